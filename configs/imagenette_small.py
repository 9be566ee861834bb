"""A quarter-width ZF-5 on photographs, on two cores: does multi-size training help?

    python train.py --config=configs/imagenette_small.py:multisize --config.data.path=FOLDER
        --workdir=DIR

After the colon: multisize (112 and 90 pixels by epochs), single (112) or nospp (112, no pyramid).
benchmarks/accuracy.py runs all three; docs/results/imagenette.md has the table.
"""

from spp_jax import config as config_lib
from spp_jax import errors


def get_config(variant: str = "multisize") -> config_lib.Config:
    if variant not in ("multisize", "single", "nospp"):
        raise errors.InputError(f"imagenette_small:{variant} is none of multisize, single, nospp")
    config = config_lib.Config()
    config.model.name = "zf5_small"
    config.model.levels = None if variant == "nospp" else (6, 3, 2, 1)
    config.data.batch_size = 32
    config.data.cache_mb = 1024
    config.data.shorter_side = 128
    config.data.crop_size = 112
    config.data.mean = "channel"
    config.train.sizes = (112, 90) if variant == "multisize" else (112,)
    config.train.num_epochs = 30
    config.train.learning_rate = 0.01
    config.train.lr_schedule = "step"
    config.train.drop_epochs = (20, 26)
    config.train.eval_every_epochs = 15
    config.train.log_every_steps = 31
    config.train.checkpoint_every_steps = 100
    config.train.keep_checkpoints = 1
    return config
