"""imagenet_multisize at 224 pixels only.

The paper's 10-view errors are 34.98/14.14 (zf5), 34.38/13.54, 32.87/12.80 and 30.36/11.12
(overfeat7)."""

from configs import imagenet_multisize
from spp_jax import config as config_lib


def get_config(kind: str = "zf5") -> config_lib.Config:
    config = imagenet_multisize.get_config(kind)
    config.train.sizes = (224,)
    return config
