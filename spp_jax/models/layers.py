"""The layers of the networks that Flax does not have, and the pyramid as a Flax module.

Shapes: N maps · (H, W) cells · C channels · B = sum(n * n for n in levels) bins.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spp_jax.models import topology
from spp_jax.pooling import pyramid, windows


class SpatialPyramidPooling(nn.Module):
    """Spatial pyramid pooling (section 2.2) as a layer; it has no parameters.

    Attributes:
        levels: bins per side of each level.
        reduce: "max" as in the paper, or "mean".
    """

    levels: Sequence[int] = (6, 3, 2, 1)
    reduce: pyramid.Reduce = "max"

    def __call__(self, fmap: jax.Array, *, extents: jax.Array | None = None) -> jax.Array:
        """Pools (N, H, W, C) to (N, B * C), ordered as `spatial_pyramid_pool`.

        `extents`, (N, 2) integers, are the valid (height, width) of each map: only these cells
        are pooled, as if each map were given alone.
        """
        if extents is None:
            return pyramid.spatial_pyramid_pool(fmap, self.levels, reduce=self.reduce)

        # Mapped over images, not one pool of all: so devices that share a batch share no maps.
        def pool(fmap: jax.Array, extent: jax.Array) -> jax.Array:
            zero = jnp.zeros_like(extent[0])
            whole = jnp.stack([zero, zero, extent[1], extent[0]])[None]
            return windows.pool_windows(fmap, whole, self.levels, reduce=self.reduce)[0]

        return jax.vmap(pool)(fmap, extents)


def normalize_responses(x: jax.Array, layer: topology.LRN) -> jax.Array:
    """Applies local response normalisation to (N, H, W, C); the constants are `layer`'s.

    Computed in float32: in bfloat16 1 + alpha * x^2 would round to 1.
    """
    squares = jnp.square(x.astype(jnp.float32))
    if layer.kind == "within":
        total = _sum_along(_sum_along(squares, 1, layer.size), 2, layer.size)
        count = layer.size**2
    else:
        total, count = _sum_along(squares, 3, layer.size), layer.size
    scale = layer.k + layer.alpha / count * total
    return (x * _inverse_power(scale, layer.beta)).astype(x.dtype)


def _inverse_power(x: jax.Array, beta: float) -> jax.Array:
    """Returns x**-beta; for the beta of every published network by roots, many times faster."""
    if beta == 0.75:
        root = jax.lax.rsqrt(x)
        return root * jnp.sqrt(root)
    return x**-beta


def _sum_along(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Sums each cell with its neighbours, `size` in all, along an axis; zeros beyond the border."""
    before = (size - 1) // 2
    pads = [(0, 0)] * x.ndim
    pads[axis] = (before, size - 1 - before)
    padded = jnp.pad(x, pads)
    parts = [jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(size)]
    return sum(parts[1:], parts[0])


def warp_mean(mean: jax.Array, shape: Sequence[int], extents: jax.Array | None) -> jax.Array:
    """Warps a mean image (s, s, 3) to images (N, H, W, 3): to each one's extent, or to all of it.

    Returns (N, H, W, 3) or, without extents, (1, H, W, 3). Beyond an extent it is not defined.
    """
    if extents is None:
        extents = jnp.asarray([shape[1:3]])

    def warp(extent: jax.Array) -> jax.Array:
        scale = extent / jnp.asarray(mean.shape[:2])
        return jax.image.scale_and_translate(
            mean, (*shape[1:3], 3), (0, 1), scale, jnp.zeros(2), method="linear", antialias=True
        )

    return jax.vmap(warp)(extents)


def mask_beyond(x: jax.Array, extents: jax.Array | None) -> jax.Array:
    """Sets the cells of (N, H, W, C) outside each map's valid (height, width) to 0."""
    if extents is None:
        return x
    rows = jnp.arange(x.shape[1]) < extents[:, :1]
    columns = jnp.arange(x.shape[2]) < extents[:, 1:]
    inside = rows[:, :, None] & columns[:, None, :]
    return jnp.where(inside[..., None], x, 0)
