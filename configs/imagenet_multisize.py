"""ImageNet as in section 3.1: pyramid {6, 3, 2, 1}, whole epochs at 224 and at 180 pixels by turns.

    python train.py --config=configs/imagenet_multisize.py:overfeat7[,gpu1|,gpu8] --workdir=DIR

After the colon stands the network: zf5 (the default), convnet_star5, overfeat5 or overfeat7; it
also sets the epochs, 70 or 90, which --config.model.name=NAME leaves as they are. Without more it
is the paper's recipe in float32, as CPUs compute it. gpu1 computes in bfloat16; gpu8 as well, with
128 images on each of eight GPUs and eight times the learning rate (docs/training.md). The data is
TFDS's imagenet2012, or --config.data.name=imagenet2012_256, both prepared by `python -m
spp_jax.data.prepare` (docs/data.md). The 30-bin pyramid is --config.model.levels=4,3,2,1.
--config.run.smoke=True takes a few steps only, on whatever data is named.

Cost and result are the paper's: two to four weeks on a GTX Titan; 10-view top-1/top-5 errors
34.60/13.64 (zf5), 33.94/13.33, 32.26/12.33, 29.68/10.95 (overfeat7). Not measured here yet.
"""

from spp_jax import config as config_lib
from spp_jax import errors

NETWORKS = ("zf5", "convnet_star5", "overfeat5", "overfeat7")
GPUS = {"gpu1": 1, "gpu8": 8}


def get_config(kind: str = "zf5") -> config_lib.Config:
    network, comma, device = kind.partition(",")
    if network not in NETWORKS:
        raise errors.InputError(f"the network after the colon is {network!r}, not of {NETWORKS}")
    if comma and device not in GPUS:
        raise errors.InputError(f"after the network stands {device!r}, not of {(*GPUS,)}")
    config = config_lib.Config()
    config.model.name = network
    config.model.levels = (6, 3, 2, 1)
    config.model.dropout = 0.5
    # Normalisation is published for ZF-5 only; "across" makes all of it AlexNet's.
    config.model.lrn = None

    config.data.name = "imagenet2012"
    config.data.split = "train"
    # Not stated in the paper, which follows AlexNet: the batch, momentum and decay are AlexNet's.
    config.data.batch_size = 128
    config.data.num_workers = 16
    config.data.view = "corners"
    config.data.shorter_side = 256
    config.data.crop_size = 224
    # "constant" is 128, what the authors' code subtracts on other data; "channel" the third choice.
    config.data.mean = "image"

    # Which size comes last is not stated: it is the one the network is mostly used at.
    config.train.sizes = (224, 180)
    config.train.size_schedule = "epoch"
    config.train.num_epochs = 70 if network == "zf5" else 90
    config.train.learning_rate = 0.01
    # "when the error plateaus", twice: of the training loss here, over rounds of both sizes.
    config.train.lr_schedule = "plateau"
    config.train.lr_factor = 0.1
    config.train.num_drops = 2
    config.train.patience = 3
    config.train.momentum = 0.9
    # As in the released model definition; the paper does not say.
    config.train.bias_lr_factor = 2.0
    config.train.weight_decay = 5e-4
    config.train.flip = True
    config.train.color_noise = 0.1
    config.train.eval_protocol = "center"
    config.train.checkpoint_every_steps = 5000
    config.train.log_every_steps = 100
    if comma:
        # Parameters, normalisation and logits stay in float32. On CPUs XLA widens each convolution.
        config.model.dtype = "bfloat16"
        # Every GPU has the paper's batch; checkpoints are as many images apart as before.
        config.data.batch_size *= GPUS[device]
        config.data.num_workers *= GPUS[device]
        config.train.learning_rate *= GPUS[device]
        config.train.checkpoint_every_steps = 5000 // GPUS[device]
    return config
