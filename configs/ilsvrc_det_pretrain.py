"""Section 4.5: an Overfeat-7 trained on crops of ILSVRC DET's own images, 499 leaf classes.

    python -m spp_jax.data.object_crops --data=DETROOT --split=train --output=CROPS
    python train.py --config=configs/ilsvrc_det_pretrain.py --config.data.path=CROPS --workdir=DIR

docs/detection.md has the whole procedure. Not measured here: DET was not at hand.
"""

from configs import imagenet_multisize
from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = imagenet_multisize.get_config("overfeat7")
    config.data.name = "folder"
    config.data.split = "train"
    config.data.held_out = 0.02
    # Crops are of the network's size already.
    config.data.shorter_side = 224
    config.data.crop_size = 224
    config.train.sizes = (224,)
    return config
