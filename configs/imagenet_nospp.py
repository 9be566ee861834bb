"""imagenet_single with the network's own last pool in the pyramid's place: the paper's baseline.

Its 10-view errors are 35.99/14.76 (zf5), 34.93/13.92, 34.13/13.52 and 32.01/11.97 (overfeat7)."""

from configs import imagenet_single
from spp_jax import config as config_lib


def get_config(kind: str = "zf5") -> config_lib.Config:
    config = imagenet_single.get_config(kind)
    config.model.levels = None
    return config
