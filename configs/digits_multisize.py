"""Digit scenes at 64 and 48 pixels, alternating epoch by epoch: what `make train` runs.

Four minutes on two cores; top-1 97.7 % of full images (docs/results/digits.md).
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = config_lib.Config()
    config.model.name = "digits"
    config.model.levels = (4, 2, 1)
    config.model.dropout = 0.5
    config.data.name = "digit_scenes"
    config.data.view = "warp"
    config.data.jitter = 0.2
    config.data.shorter_side = 64
    config.data.batch_size = 16
    config.data.cache_mb = 512
    config.train.sizes = (64, 48)
    config.train.num_epochs = 32
    config.train.learning_rate = 0.008
    config.train.lr_schedule = "step"
    config.train.lr_factor = 0.5
    config.train.drop_epochs = (14, 18, 21, 24, 27, 29)
    config.train.color_noise = 0.5
    config.train.flip = False  # a mirrored digit is another shape, or none
    config.train.eval_protocol = "full"
    config.train.eval_every_epochs = 4
    config.train.log_every_steps = 250
    config.train.checkpoint_every_steps = 2000
    config.eval.batch_size = 64
    # Warped to a square, an image shows its digit smaller than the full view of 64 pixels does.
    config.eval.scale = 56
    return config
