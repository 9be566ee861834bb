"""The network that a config names."""

import dataclasses

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.models import sppnet


def make(config: config_lib.ModelConfig, num_classes: int) -> sppnet.SPPNet:
    """Returns the network, for as many classes as its data turned out to have."""
    return sppnet.make_model(**{**dataclasses.asdict(config), "num_classes": num_classes})


def check(config: config_lib.Config) -> None:
    """Raises InputError if there is no such network, or it does not take the sizes of training."""
    model, sizes = config.model, config.train.sizes
    try:
        net = make(model, max(1, model.num_classes))
    except ValueError as e:
        raise errors.InputError(f"config.model: {e}") from e
    for size in sizes:
        try:
            sppnet.check_images(net.backbone, (1, size, size, 3), any_size=bool(model.levels))
        except ValueError as e:
            raise errors.InputError(f"config.train.sizes={sizes}: {e}") from e
