"""imagenet_multisize at a size an epoch, drawn from 180 to 224 pixels.

The paper's 10-view errors of overfeat7 are 30.06/10.96. Each size drawn is one program to
compile: about 36 in 70 epochs."""

from configs import imagenet_multisize
from spp_jax import config as config_lib


def get_config(kind: str = "zf5") -> config_lib.Config:
    config = imagenet_multisize.get_config(kind)
    config.train.size_schedule = "random"
    return config
