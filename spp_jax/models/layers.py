"""The layers of the networks that Flax does not have, and the pyramid as a Flax module.

Shapes: N maps · (H, W) cells · C channels · B = sum(n * n for n in levels) bins.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spp_jax.models import topology
from spp_jax.pooling import pyramid, windows


class SpatialPyramidPooling(nn.Module):
    """Spatial pyramid pooling (section 2.2) as a layer; it has no parameters.

    Attributes:
        levels: bins per side of each level, as `pyramid.check_levels` takes them.
        reduce: "max" as in the paper, or "mean".
    """

    levels: Sequence[int] = (6, 3, 2, 1)
    reduce: pyramid.Reduce = "max"

    def __post_init__(self):
        # A tuple of Python's integers can be hashed, as a module that is a static argument must be.
        self.levels = pyramid.check_levels(self.levels)
        super().__post_init__()

    def __call__(self, fmap: jax.Array, *, extents: jax.Array | None = None) -> jax.Array:
        """Pools (N, H, W, C) to (N, B * C), ordered as `spatial_pyramid_pool`.

        `extents`, (N, 2) integers, are the valid (height, width) of each map: only these cells
        are pooled, as if each map were given alone.
        """
        if extents is None:
            return pyramid.spatial_pyramid_pool(fmap, self.levels, reduce=self.reduce)

        extents = windows.as_int32(extents, "extents")
        whole = jnp.concatenate([jnp.zeros_like(extents), extents[:, ::-1]], axis=1)

        # Mapped over images, so that devices that share a batch need not exchange maps.
        def pool(fmap: jax.Array, window: jax.Array) -> jax.Array:
            return windows.pool_windows(fmap, window[None], self.levels, reduce=self.reduce)[0]

        return jax.vmap(pool)(fmap, whole)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def normalize_responses(x: jax.Array, layer: topology.LRN, rectify: bool = False) -> jax.Array:
    """Applies local response normalisation to (N, H, W, C).

    Computed in float32: in bfloat16 1 + alpha * x^2 would round to 1.

    Args:
        x: the map.
        layer: the constants.
        rectify: whether a ReLU comes first; the gradient of both then reads x alone.
    """

    def normalize(x: jax.Array) -> jax.Array:
        x32 = _rectify(x.astype(jnp.float32), rectify)
        return (x32 * _inverse_power(_scale(x32, layer), layer.beta)).astype(x.dtype)

    # On GPUs the barrier lets a pool read this result; it would read sums in float32, nine times.
    return jax.lax.platform_dependent(
        x, cpu=normalize, default=lambda x: jax.lax.optimization_barrier(normalize(x))
    )


@normalize_responses.defjvp
def _normalize_responses_jvp(layer: topology.LRN, rectify: bool, primals: tuple, tangents: tuple):
    # Automatic differentiation would store every sum and root. This derivative stores x only, which
    # takes half the time and a fraction of the memory.
    def cpu(x: jax.Array, change: jax.Array) -> jax.Array:
        return _change(x, change, layer, rectify, again=False)

    @jax.checkpoint
    def default(x: jax.Array, change: jax.Array) -> jax.Array:
        return _change(x, change, layer, rectify, again=True)

    tangent = jax.lax.platform_dependent(*primals, *tangents, cpu=cpu, default=default)
    return normalize_responses(*primals, layer, rectify), tangent


def _change(
    x: jax.Array,
    change: jax.Array,
    layer: topology.LRN,
    rectify: bool,
    *,
    again: bool,
) -> jax.Array:
    """Returns the derivative along `change`.

    On GPUs, `again`, XLA is made to compute the sums in both loops of the gradient, from x; it
    would write and read them. What the loops exchange is then in the dtype of x, else in float32.
    """
    dtype = x.dtype
    other = jax.lax.optimization_barrier(x) if again else x
    change = change.astype(jnp.float32)
    if rectify:
        change = jnp.where(x > 0, change, 0)
    x, other = (_rectify(v.astype(jnp.float32), rectify) for v in (x, other))
    around = _sum_around(x * change, layer)
    # In the gradient the barrier keeps XLA from computing each summand anew for each neighbour.
    around = jax.lax.optimization_barrier(around.astype(dtype) if again else around)
    scale = _scale(other, layer)
    factor = 2 * layer.beta * layer.alpha / layer.cells
    pull = factor * other * _inverse_power(scale, layer.beta) / scale * around.astype(jnp.float32)
    return (change * _inverse_power(_scale(x, layer), layer.beta) - pull).astype(dtype)


def _rectify(x: jax.Array, rectify: bool) -> jax.Array:
    return jnp.maximum(x, 0) if rectify else x


def _scale(x: jax.Array, layer: topology.LRN) -> jax.Array:
    return layer.k + layer.alpha / layer.cells * _sum_around(x, layer, jnp.square)


def _inverse_power(x: jax.Array, beta: float) -> jax.Array:
    """Returns x**-beta; for the beta of every published network by roots, many times faster."""
    if beta == 0.75:
        root = jax.lax.rsqrt(x)
        return root * jnp.sqrt(root)
    return x**-beta


def _sum_around(
    x: jax.Array, layer: topology.LRN, function: Callable[[jax.Array], jax.Array] = lambda x: x
) -> jax.Array:
    """Returns, for each cell, the sum of `function` over the cells that normalise it.

    The cell itself is one of them; cells beyond the border count as 0. XLA makes a single loop of
    the sum over slices, one per neighbour, `function` included.
    """
    before = (layer.size - 1) // 2
    axes = (1, 2) if layer.kind == "within" else (3,)
    pads = [(before, layer.size - 1 - before) if axis in axes else (0, 0) for axis in range(4)]
    starts = itertools.product(*(range(sum(pad) + 1) for pad in pads))
    padded = jnp.pad(x, pads)
    parts = [
        function(jax.lax.slice(padded, start, [a + b for a, b in zip(start, x.shape)]))
        for start in starts
    ]
    return functools.reduce(jnp.add, parts)


def warp_mean(mean: jax.Array, shape: Sequence[int], extents: jax.Array | None) -> jax.Array:
    """Warps a mean image (s, s, 3) to the extents of images of shape (N, H, W, 3).

    Returns (N, H, W, 3), undefined beyond the extents. Without extents the mean is warped to
    (H, W), and the result is (1, H, W, 3).
    """
    if extents is None:
        extents = jnp.asarray([shape[1:3]], jnp.int32)
    size, zeros = jnp.asarray(mean.shape[:2], jnp.float32), jnp.zeros(2, jnp.float32)

    def warp(extent: jax.Array) -> jax.Array:
        scale = extent.astype(jnp.float32) / size
        return jax.image.scale_and_translate(
            mean, (*shape[1:3], 3), (0, 1), scale, zeros, method="linear", antialias=True
        )

    return jax.vmap(warp)(extents)


def mask_beyond(x: jax.Array, extents: jax.Array | None) -> jax.Array:
    """Sets the cells of (N, H, W, C) outside each map's valid (height, width) to 0."""
    if extents is None:
        return x
    rows = jnp.arange(x.shape[1], dtype=extents.dtype)[None] < extents[:, :1]
    columns = jnp.arange(x.shape[2], dtype=extents.dtype)[None] < extents[:, 1:]
    inside = rows[:, :, None] & columns[:, None, :]
    return jnp.where(inside[..., None], x, 0)
