"""The convolutional layers of a network as a Flax module, which returns the map of each.

Shapes: N images · (H, W) cells · C channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spp_jax.models import layers, products, topology
from spp_jax.pooling import max_pool


class Convolutions(nn.Module):
    """The layers of a backbone or a block; (N, H, W, C) -> {name: (N, h, w, C')}."""

    backbone: topology.Backbone
    dtype: str
    block: topology.Block | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, extents: dict[str, jax.Array], prefix: str = ""
    ) -> dict[str, jax.Array]:
        """`extents` are the valid (height, width) of each map, or {}; `prefix` begins each name."""
        maps: dict[str, jax.Array] = {}

        def chain(x: jax.Array, chained: Sequence[topology.Layer]) -> jax.Array:
            before = None  # the map before the ReLU of the last layer, if that is a convolution
            for layer in chained:
                name = prefix + layer.name
                if isinstance(layer, topology.Block):
                    block = Convolutions(self.backbone, self.dtype, layer, name=layer.name)
                    maps.update(block(x, extents, name + "/"))
                    x, before = maps.pop(""), None
                elif isinstance(layer, topology.Conv):
                    before = layers.mask_beyond(self._convolve(layer, x), extents.get(name))
                    x = nn.relu(before)
                else:
                    if isinstance(layer, topology.LRN) and before is not None:
                        x = layers.normalize_responses(before, layer, rectify=True)
                    else:
                        x = _apply(layer, x)
                    # Beyond its extent a map must hold zeros, as the padding of an image that is
                    # alone does. They do not change a maximum either: no output of a ReLU is less.
                    x, before = layers.mask_beyond(x, extents.get(name)), None
                maps[name] = x
            return x

        if self.block is None:
            chain(x, self.backbone.layers)
            return maps
        x = chain(x, self.block.layers)
        if self.block.branches:
            x = jnp.concatenate([chain(x, branch) for branch in self.block.branches], axis=-1)
        maps[""] = x
        return maps

    def _convolve(self, layer: topology.Conv, x: jax.Array) -> jax.Array:
        return products.Convolution(
            layer.features,
            layer.kernel,
            layer.stride,
            layer.padding,
            self.dtype,
            kernel_init(self.backbone),
            nn.initializers.constant(layer.bias),
            name=layer.name,
        )(x)


def _apply(layer: topology.MaxPool | topology.LRN, x: jax.Array) -> jax.Array:
    if isinstance(layer, topology.LRN):
        return layers.normalize_responses(x, layer)
    return max_pool.max_pool(x, layer.window, layer.stride, padding=layer.padding, ceil_mode=True)


def kernel_init(backbone: topology.Backbone) -> nn.initializers.Initializer:
    """Returns how the kernels of a network are drawn."""
    if backbone.kernel_std is None:
        return nn.initializers.he_normal()
    return nn.initializers.normal(backbone.kernel_std)
