"""GoogLeNet with published weights, fine-tuned on a folder of photographs at 224 and 180 pixels.

    python train.py --config=configs/finetune_googlenet.py --config.init_from=DIR
        --config.data.path=FOLDER --workdir=OUT

DIR is what `python -m spp_jax.interop --backbone=googlenet` wrote. docs/results/imagenette.md has
what it took and gave.
"""

from spp_jax import config as config_lib


def get_config() -> config_lib.Config:
    config = config_lib.Config()
    config.init_from = "runs/googlenet"
    config.model.name = "googlenet"
    config.model.levels = (1,)
    config.model.reduce = "mean"
    config.model.dropout = 0.4
    config.data.batch_size = 32
    config.data.cache_mb = 1024
    config.train.sizes = (224, 180)
    config.train.num_epochs = 2
    config.train.learning_rate = 0.002
    config.train.lr_schedule = "step"
    config.train.drop_epochs = (1,)
    config.train.weight_decay = 2e-4
    config.train.log_every_steps = 10
    config.train.checkpoint_every_steps = 50
    config.train.keep_checkpoints = 1
    return config
