"""Section 4: detection on VOC 2007, one scale; `:5scale` is the paper's best, five.

    python detect.py train --config=configs/voc07_detection.py[:5scale] --workdir=DIR
        --config.checkpoint=NETWORK --config.data.path=VOCROOT

NETWORK is a ZF-5 with SPP trained on ImageNet (configs/imagenet_single.py: the paper's detector
starts from the single-size one). VOCROOT is VOC2007, or a folder it lies in; or
--config.data.name=voc/2007, from TFDS, with --config.data.split=train+validation. The paper's mAP
with box regression is 58.0 at one scale and 59.2 at five; it fine-tunes for about two hours on a
GPU. No such network was trained here: docs/results/detection.md has what other networks gave.
"""

from spp_jax import errors
from spp_jax.detection import detection_config


def get_config(kind: str = "1scale") -> detection_config.DetectionConfig:
    scales = {"1scale": (688,), "5scale": (480, 576, 688, 864, 1200)}
    if kind not in scales:
        raise errors.InputError(f"{kind} is neither of {', '.join(scales)}")
    config = detection_config.DetectionConfig()
    config.data.split = "trainval"
    config.data.eval_split = "test"
    config.proposals.methods = ("fast",)
    config.features.layer = "fc7"
    config.features.scales = scales[kind]
    config.finetune.enabled = True
    config.finetune.num_steps = 300_000
    config.finetune.drop_steps = (250_000,)
    config.finetune.learning_rate = 1e-4
    return config
