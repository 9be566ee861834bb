"""Spatial pyramid pooling of whole feature maps: the paper's section 2.2.

Shapes: N maps · (H, W) cells · C channels · B = sum(n * n for n in levels) bins.
"""

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from spp_jax.pooling import bins as bins_lib
from spp_jax.pooling import maximum, meshes

Reduce = Literal["max", "mean"]

# Cells of a bin along a side up to which each is an operation of its own: longer programs are not
# worth the time they take to compile.
_MAX_PARTS = 8


def spatial_pyramid_pool(
    fmap: jax.Array | np.ndarray,
    levels: Sequence[int] = (6, 3, 2, 1),
    *,
    bins: Literal["adaptive", "sliding"] = "adaptive",
    reduce: Reduce = "max",
) -> jax.Array:
    """Pools maps of any height and width to vectors of one length.

    >>> fmap = jnp.arange(12).reshape(1, 3, 4, 1)
    >>> spatial_pyramid_pool(fmap, (2, 1)).tolist()
    [[5, 7, 9, 11, 11]]

    Args:
      fmap: (N, H, W, C), any H, W >= 1, also smaller than a level.
      levels: bins per side of each level of the pyramid, as `check_levels` takes them.
      bins: "adaptive" is the rule of appendix A, defined for every size (`bins.adaptive_bins`);
        "sliding" is the literal window and stride of section 2.3 (`bins.sliding_bins`).
      reduce: "max" as in the paper, or "mean" over the cells of each bin. Of cells that tie
        for a maximum one or several have its gradient; which ones is not promised.

    Returns:
      (N, B * C) in the dtype of fmap; the axis runs over level (in the order given), bin row, bin
      column, channel, the last fastest.

    Raises:
      ValueError: a wrong rank, level, option or an empty map; with "sliding", a side for which the
        recipe does not give the level's count.
    """
    levels = check_levels(levels)
    check_reduce(reduce)
    if fmap.ndim != 4 or fmap.shape[1] < 1 or fmap.shape[2] < 1:
        raise ValueError(f"fmap must be (N, H, W, C) with H, W >= 1, got shape {fmap.shape}")
    if bins not in ("adaptive", "sliding"):
        raise ValueError(f'bins must be "adaptive" or "sliding", got {bins!r}')

    def pool(fmap: jax.Array) -> jax.Array:
        if reduce == "mean":
            return _pool_levels(fmap, levels, bins, reduce)
        return maximum.widen(lambda x: _pool_levels(x, levels, bins, reduce), fmap)

    return meshes.on_automatic_axes(pool, fmap, fmap)


def _pool_levels(fmap: jax.Array, levels: Sequence[int], bins: str, reduce: Reduce) -> jax.Array:
    _, height, width, channels = fmap.shape
    edges = bins_lib.adaptive_bins if bins == "adaptive" else bins_lib.sliding_bins
    # Only adaptive bins nest, and only a maximum forgets that neighbours share cells.
    nest = bins == "adaptive" and reduce == "max"
    pooled: dict[int, jax.Array] = {}
    for n in sorted(set(levels), reverse=True):
        # The coarsest level of which each bin of this one is an exact union.
        finer = min((m for m in pooled if m % n == 0), default=None) if nest else None
        if finer is None:
            pooled[n] = _pool_side(
                _pool_side(fmap, edges(height, n), 1, reduce), edges(width, n), 2, reduce
            )
        else:
            pooled[n] = merge_bins(pooled[finer], n)
    return jnp.concatenate([pooled[n].reshape(-1, n * n * channels) for n in levels], axis=1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def merge_bins(grid: jax.Array, n: int) -> jax.Array:
    """Returns level n, (..., n, n, C), as maxima over blocks of a level that n divides.

    Exact: bins i*k ... (i+1)*k-1 of level n*k reach from floor(i*a/n) to ceil((i+1)*a/n).
    """
    return _blocks(grid, n).max(axis=(-4, -2))


def _blocks(grid: jax.Array, n: int) -> jax.Array:
    """Returns (..., n, k, n, k, C) of (..., n * k, n * k, C)."""
    *lead, rows, columns, channels = grid.shape
    return grid.reshape(*lead, n, rows // n, n, columns // n, channels)


@merge_bins.defjvp
def _merge_bins_jvp(n: int, primals: tuple, tangents: tuple):
    def merge(grid: jax.Array) -> jax.Array:
        blocks = _blocks(grid, n)
        k = blocks.shape[-2]
        if k > _MAX_PARTS:
            return blocks.max(axis=(-4, -2))
        return maximum.maximum_of([blocks[..., i, :, j, :] for i in range(k) for j in range(k)])

    _, change = jax.jvp(merge, primals, tangents)
    return merge_bins(*primals, n), change


def check_levels(levels: Any) -> tuple[int, ...]:
    """Returns levels, in whatever form they are given, as a tuple of Python's own integers.

    They may be a tuple, a list, or a one-dimensional array of NumPy or JAX, and hold integers of
    any of them. A tuple can be hashed, as the static arguments of compiled programs must be.

    Raises:
      ValueError: levels have no order, there is none, or one is no whole number of at least 1.
    """
    is_ordered = isinstance(levels, Iterable) and not isinstance(levels, (str, bytes, Set, Mapping))
    if not is_ordered or getattr(levels, "ndim", 1) != 1:
        raise ValueError(f"levels must be a sequence as (3, 2, 1), got {levels!r}")
    given = tuple(levels)
    whole = tuple(n for n in map(whole_number, given) if n is not None and n >= 1)
    if not given or len(whole) < len(given):
        raise ValueError(f"levels must be whole numbers of at least 1, got {levels!r}")
    return whole


def whole_number(value: Any) -> int | None:
    """Returns an integer of Python, NumPy or JAX as Python's; None for anything else."""
    # A truth value would pass as 0 or 1.
    if isinstance(value, bool) or np.dtype(bool) == getattr(value, "dtype", None):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_reduce(reduce: str) -> None:
    """Raises ValueError unless reduce is "max" or "mean"."""
    if reduce not in ("max", "mean"):
        raise ValueError(f'reduce must be "max" or "mean", got {reduce!r}')


def _pool_side(x: jax.Array, ranges: list[tuple[int, int]], axis: int, reduce: Reduce) -> jax.Array:
    """Reduces each range of one axis to one cell; static slices, so the gradient has no scatter."""

    def pool(start: int, stop: int) -> jax.Array:
        if reduce == "max" and stop - start <= _MAX_PARTS:
            return maximum.maximum_of(
                [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(start, stop)]
            )
        part = jax.lax.slice_in_dim(x, start, stop, axis=axis)
        return part.max(axis=axis) if reduce == "max" else part.mean(axis=axis)

    return jnp.stack([pool(*bounds) for bounds in ranges], axis=axis)
