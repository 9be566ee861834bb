"""Section 4.5: ILSVRC 2014 DET, five scales, Overfeat-7. docs/detection.md has the whole procedure.

    python detect.py train --config=configs/ilsvrc_detection.py --workdir=DIR
        --config.checkpoint=NETWORK --config.data.path=DETROOT

NETWORK is an Overfeat-7 trained on crops of DET's own images (configs/ilsvrc_det_pretrain.py). The
paper's single model has 31.84 mAP on the test set; neither data nor network was at hand here.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.DetectionConfig:
    config = config_lib.DetectionConfig()
    config.data.split = "val"
    config.data.eval_split = ""  # the test set's annotations are not public
    config.features.layer = "fc7"
    config.features.scales = (480, 576, 688, 864, 1200)
    config.features.num_canvases = 8
    config.finetune.enabled = True
    config.finetune.num_steps = 300_000
    config.finetune.drop_steps = (250_000,)
    config.finetune.learning_rate = 1e-4
    return config
