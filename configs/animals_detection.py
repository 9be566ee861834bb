"""Few classes and few images: SVMs on pooled features of a published network, not fine-tuned.

    python detect.py train --config=configs/animals_detection.py --workdir=DIR
        --config.checkpoint=NETWORK --config.data.path=VOCROOT

NETWORK is what `python -m spp_jax.interop --backbone=googlenet` wrote, VOCROOT a folder in VOC's
layout with image sets trainval and test. For other networks --config.features.map=NAME names the
map, "" the last. docs/results/detection.md has what it took and gave.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.DetectionConfig:
    config = config_lib.DetectionConfig()
    config.proposals.methods = ("fast",)
    # Stride 16 and 832 channels: one map before the last, which has a stride of 32.
    config.features.map = "inception_4e"
    config.features.levels = (3, 2, 1)
    config.features.layer = "pool"
    config.features.scales = (300, 400, 600)
    return config
