"""Digit scenes without SPP: a 2x2/2 pool in the pyramid's place, 64x64 images only.

What it is shown in a test is a centre crop or a warped image; the full view needs SPP.
Five minutes on two cores; top-1 94.3 % of warped images (docs/results/digits.md).
"""

from configs import digits_single
from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = digits_single.get_config()
    config.model.levels = None
    config.train.eval_protocol = "warp"
    return config
