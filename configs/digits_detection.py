"""Digits in groups of 1 to 5: what `make detect` runs, detection from end to end in minutes.

    python detect.py train --config=configs/digits_detection.py --config.checkpoint=NETWORK
        --workdir=DIR

NETWORK is what `python train.py --config=configs/digits_multisize.py` wrote.
docs/results/detection.md has what it took and gave.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.DetectionConfig:
    config = config_lib.DetectionConfig()
    config.checkpoint = "runs/digits_multisize"
    config.data.name = "digit_groups"
    config.data.split = "train"
    config.data.eval_split = "test"
    config.proposals.min_side = 5
    config.features.layer = "fc6"
    config.features.levels = (4, 2, 1)
    config.features.scales = (128, 256)
    config.features.num_canvases = 2
    # Digits were learnt at 64 and 48 pixels.
    config.features.target_side = 64
    config.finetune.enabled = True
    config.finetune.num_steps = 1500
    config.finetune.drop_steps = (1200,)
    config.finetune.learning_rate = 0.002
    config.finetune.images_per_batch = 4
    config.finetune.flip = False  # a mirrored digit is another shape, or none
    return config
