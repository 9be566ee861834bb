"""The small network of tests that need one whose parameters are drawn, not trained."""

from typing import Any

import jax
import jax.numpy as jnp

import spp_jax

# A model and its variables.
Network = tuple[spp_jax.SPPNet, dict[str, Any]]


def small() -> Network:
    """Returns a network of 6 classes that takes images from 32 x 32 pixels."""
    model = spp_jax.make_model("digits", levels=(2, 1), num_classes=6)
    return model, dict(model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
