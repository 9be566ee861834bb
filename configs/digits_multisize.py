"""Digit scenes at two sizes, alternating epoch by epoch."""

from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = config_lib.Config()
    config.model.name = "digits"
    config.model.levels = (4, 2, 1)
    config.model.dropout = 0.5
    config.data.name = "digit_scenes"
    config.data.view = "warp"
    config.data.shorter_side = 64
    config.data.batch_size = 64
    config.train.num_epochs = 20
    config.train.sizes = (64, 48)
    config.train.learning_rate = 0.02
    config.train.lr_schedule = "step"
    config.train.drop_epochs = (14, 18)
    config.train.flip = False  # a mirrored digit is another shape
    config.train.eval_protocol = "full"
    config.train.checkpoint_every_steps = 500
    return config
