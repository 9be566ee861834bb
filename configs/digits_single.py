"""Digit scenes at 64 pixels only: `digits_multisize` with the same number of epochs.

Five minutes on two cores; top-1 96.8 % of full images (docs/results/digits.md).
"""

from configs import digits_multisize
from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = digits_multisize.get_config()
    config.train.sizes = (64,)
    return config
