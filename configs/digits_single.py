"""Digit scenes at 64 pixels only: `digits_multisize` with the same number of epochs."""

from configs import digits_multisize
from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = digits_multisize.get_config()
    config.train.sizes = (64,)
    return config
