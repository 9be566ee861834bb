"""Section 4: detection on VOC 2007 at one scale; `:5scale` is the paper's best, at five.

    python detect.py train --config=configs/voc07_detection.py[:5scale] --workdir=DIR
        --config.checkpoint=NETWORK --config.data.path=VOCROOT

NETWORK is a ZF-5 with SPP trained on ImageNet (configs/imagenet_single.py: the paper's detector
starts from the single-size one). VOCROOT is VOC2007, or a folder it lies in; or
--config.data.name=voc/2007, from TFDS, with --config.data.split=train+validation. `:released` is
the authors' code where it differs from the paper: the scale 874, its rule to choose a scale, and
its schedule. The paper's mAP with box regression is 58.0 at one scale and 59.2 at five; it
fine-tunes for about two hours on a GPU. No such network was trained here:
docs/results/detection.md has what other networks gave.
"""

from spp_jax import config as config_lib
from spp_jax import errors

KINDS = ("1scale", "5scale", "released")


def get_config(kind: str = "1scale") -> config_lib.DetectionConfig:
    if kind not in KINDS:
        raise errors.InputError(f"{kind!r} after the colon is none of {', '.join(KINDS)}")
    config = config_lib.DetectionConfig()
    config.data.split = "trainval"
    config.data.eval_split = "test"
    config.proposals.methods = ("fast",)
    config.features.layer = "fc7"
    config.features.scales = (688,) if kind == "1scale" else (480, 576, 688, 864, 1200)
    config.finetune.enabled = True
    config.finetune.batch_size = 128
    config.finetune.num_steps = 300_000
    config.finetune.drop_steps = (250_000,)
    config.finetune.learning_rate = 1e-4
    if kind == "released":
        config.features.scales = (480, 576, 688, 874, 1200)
        config.features.scale_rule = "linear"
        config.finetune.num_steps = 200_000
        config.finetune.drop_steps = (30_000, 60_000)
        config.finetune.learning_rate = 1e-3
    return config
