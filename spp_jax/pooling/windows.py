"""Pools many windows from shared feature maps: how detection reuses one convolution pass.

Shapes: N maps · R windows · (H, W) cells · C channels · B = sum(n * n for n in levels) bins.
Windows are (x1, y1, x2, y2) in map cells, right and bottom exclusive.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from spp_jax.pooling import maximum, meshes, pyramid, sparse_table


def pool_windows(
    fmap: ArrayLike | Sequence[ArrayLike],
    windows: ArrayLike,
    levels: Sequence[int] = (6, 3, 2, 1),
    *,
    map_index: ArrayLike | None = None,
    reduce: pyramid.Reduce = "max",
) -> jax.Array:
    """Pools each window to the vector `spatial_pyramid_pool` gives for that part of its map.

    >>> fmap = jnp.arange(12).reshape(3, 4, 1)
    >>> pool_windows(fmap, jnp.array([[0, 0, 4, 3], [1, 0, 3, 2]]), (2, 1)).tolist()
    [[5, 7, 9, 11, 11], [1, 2, 5, 6, 6]]

    The window is clipped to the map first; a window with no cell in the map gives zeros and
    passes no gradient. With "max" a window of the whole map equals `spatial_pyramid_pool`
    exactly; with "mean" to rounding.

    Args:
        fmap: (H, W, C), or (N, H, W, C) together with map_index; or a sequence of such maps of
            different sides, of an image at several scales, which map_index counts through.
        windows: (R, 4) integer cells (x1, y1, x2, y2), right and bottom exclusive.
        levels: bins per side of each level of the pyramid (appendix A's bins), as
            `pyramid.check_levels` takes them.
        map_index: (R,) integers in [0, N): the map each window lies on. May be left out where
            there is one map.
        reduce: "max" as in the paper, or "mean" over the cells of each bin.

    Returns:
        (R, B * C) in the dtype of fmap; the axis runs over level (in the order given), bin row,
        bin column, channel, the last fastest.

    Raises:
        ValueError: wrong ranks or shapes, a wrong level or option, windows that are not integers,
            or several maps without map_index.
    """
    levels = pyramid.check_levels(levels)
    pyramid.check_reduce(reduce)
    windows = as_int32(windows, "windows")
    given = fmap if isinstance(fmap, Sequence) else (fmap,)
    maps = tuple(m[None] if m.ndim == 3 else m for m in map(jnp.asarray, given))
    if not maps or any(m.ndim != 4 or 0 in m.shape for m in maps):
        shapes = ", ".join(str(jnp.shape(m)) for m in given)
        raise ValueError(f"fmap must be (H, W, C) or (N, H, W, C), not empty; got {shapes}")
    if len({(m.shape[3], m.dtype) for m in maps}) > 1:
        raise ValueError(f"maps of one channel count and dtype, got {[m.shape for m in maps]}")
    if windows.ndim != 2 or windows.shape[1] != 4:
        raise ValueError(f"windows must be (R, 4) integers, got shape {windows.shape}")
    num_windows = windows.shape[0]
    num_maps, channels = sum(m.shape[0] for m in maps), maps[0].shape[3]
    if map_index is None:
        if num_maps != 1:
            raise ValueError(f"windows of {num_maps} maps need map_index")
        map_index = jnp.zeros(num_windows, jnp.int32)
    map_index = as_int32(map_index, "map_index")
    if map_index.shape != (num_windows,):
        raise ValueError(
            f"map_index must be ({num_windows},) integers, got shape {map_index.shape}"
        )
    if num_windows == 0:
        num_bins = sum(n * n for n in levels)
        return jnp.zeros((0, num_bins * channels), maps[0].dtype)

    def pool(windows: jax.Array, map_index: jax.Array, *maps: jax.Array) -> jax.Array:
        return _pool(maps, windows, map_index, levels, reduce)

    return meshes.on_automatic_axes(pool, windows, windows, map_index, *maps)


def as_int32(x: Any, name: str) -> jax.Array:
    """Returns integers of any size as int32, those beyond it as the nearest one it has.

    Raises:
        ValueError: they are no integers; it calls them `name`.
    """
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got {x.dtype}")
    limits, own = jnp.iinfo(jnp.int32), jnp.iinfo(x.dtype)
    if own.min < limits.min or own.max > limits.max:
        x = x.clip(max(own.min, limits.min), min(own.max, limits.max))
    return jnp.asarray(x, jnp.int32)


def _pool(
    maps: tuple[jax.Array, ...],
    windows: jax.Array,
    map_index: jax.Array,
    levels: tuple[int, ...],
    reduce: pyramid.Reduce,
) -> jax.Array:
    num_windows, channels = windows.shape[0], maps[0].shape[3]
    # Every index here is int32, also where JAX's default is 64 bits: `sparse_table` counts bits.
    sides = np.repeat([m.shape[1:3] for m in maps], [m.shape[0] for m in maps], axis=0)
    height, width = jnp.split(jnp.asarray(sides, jnp.int32)[map_index], 2, axis=1)
    x1, y1, x2, y2 = jnp.split(windows, 4, axis=1)
    x1, x2 = jnp.clip(x1, 0, width), jnp.clip(x2, 0, width)
    y1, y2 = jnp.clip(y1, 0, height), jnp.clip(y2, 0, height)
    is_valid = (x2 > x1) & (y2 > y1)
    # An empty window looks up one real cell, so that nothing is infinite; its result is dropped.
    x1, y1 = jnp.where(is_valid, x1, 0), jnp.where(is_valid, y1, 0)
    x2, y2 = jnp.where(is_valid, x2, 1), jnp.where(is_valid, y2, 1)

    def pool(*maps: jax.Array) -> jax.Array:
        of_levels = _max_of_levels if reduce == "max" else _mean_of_levels
        grids = of_levels(maps, map_index, (x1, y1, x2, y2), levels)
        flat = [grids[n].reshape(num_windows, n * n * channels) for n in levels]
        return jnp.where(is_valid, jnp.concatenate(flat, axis=1), 0)

    return maximum.widen(pool, *maps) if reduce == "max" else pool(*maps)


def image_to_cells(
    windows: np.ndarray,
    extent: tuple[int, int],
    *,
    stride: float,
    offset0: float,
    offset: float,
) -> np.ndarray:
    """Maps windows of an image to the cells of its feature map, as the authors' code does.

    It keeps the cells centred in the window, `stride` / 2 - `offset` pixels of tolerance included;
    a window with no such cell gets the one in its middle. Then it is clamped to the map.

    Args:
        windows: (R, 4) pixels (x1, y1, x2, y2) of the network's input, right and bottom exclusive.
        extent: (height, width) of the map, cells.
        stride: pixels from one cell to the next.
        offset0: pixel, the first being 1, on which the first cell is centred.
        offset: pixels by which each side of a window shrinks.

    Returns:
        (R, 4) int32 cells, right and bottom exclusive, never empty.
    """
    windows = np.asarray(windows, np.float64)
    # Cells and pixels are counted from 1, both corners inclusive, as in the released code.
    first = np.floor((windows[:, :2] + 1 - offset0 + offset) / stride + 0.5) + 1
    last = np.ceil((windows[:, 2:] - offset0 - offset) / stride - 0.5) + 1
    middle = np.trunc((first + last) / 2)
    first, last = np.where(first > last, middle, first), np.where(first > last, middle, last)
    sides = np.asarray(extent[::-1])
    first, last = np.clip(first, 1, sides), np.clip(last, 1, sides)
    return np.concatenate([first - 1, last], axis=1).astype(np.int32)


def _edges(start: jax.Array, stop: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Returns starts and stops (R, n) of the n adaptive bins of the ranges [start, stop) (R, 1)."""
    i = jnp.arange(n, dtype=jnp.int32)[None]
    length = stop - start
    return start + i * length // n, start - (-(i + 1) * length // n)


def _max_of_levels(maps, map_index, window, levels) -> dict[int, jax.Array]:
    """Returns {n: (R, n, n, C)}; levels that divide another one are taken from its bins."""
    channels = maps[0].shape[3]
    x1, y1, x2, y2 = window
    looked_up = [n for n in sorted(set(levels)) if not any(m > n and m % n == 0 for m in levels)]
    table = sparse_table.SparseTable([m.shape[:3] for m in maps], min(looked_up))
    index = []
    for n in looked_up:
        rows, columns = _edges(y1, y2, n), _edges(x1, x2, n)
        index.append(table.index(map_index, rows, columns).reshape(-1, n * n, 4))
    bins = table.maxima(maps, map_index, jnp.concatenate(index, axis=1))

    grids: dict[int, jax.Array] = {}
    first = 0
    for n in looked_up:
        grids[n] = bins[:, first : first + n * n].reshape(-1, n, n, channels)
        first += n * n
    for n in sorted(set(levels) - set(looked_up), reverse=True):
        grids[n] = pyramid.merge_bins(grids[min(m for m in grids if m % n == 0)], n)
    return grids


# Windows averaged together: their weighted sums stay in a processor's cache.
_MEAN_BLOCK = 16


def _mean_of_levels(maps, map_index, window, levels) -> dict[int, jax.Array]:
    """Returns {n: (R, n, n, C)}; plain sums, as differences of running sums would lose digits."""
    height, width = (max(m.shape[axis] for m in maps) for axis in (1, 2))
    # What is added to the smaller maps lies outside every window.
    padded = [
        jnp.pad(m, ((0, 0), (0, height - m.shape[1]), (0, width - m.shape[2]), (0, 0)))
        for m in maps
    ]
    fmap = padded[0] if len(padded) == 1 else jnp.concatenate(padded)
    dtype = jnp.float64 if fmap.dtype == jnp.float64 else jnp.float32

    def one_window(args):
        m, x1, y1, x2, y2 = args
        grids = []
        for n in sorted(set(levels)):
            rows = _average(*_edges(y1[None], y2[None], n), height, dtype)[0]
            columns = _average(*_edges(x1[None], x2[None], n), width, dtype)[0]
            grid = jnp.einsum(
                "ih,jw,hwc->ijc",
                rows,
                columns,
                fmap[m].astype(dtype),
                precision="highest",
                preferred_element_type=dtype,
            )
            grids.append(grid.astype(fmap.dtype))
        return grids

    grids = jax.lax.map(one_window, (map_index, *window), batch_size=_MEAN_BLOCK)
    return dict(zip(sorted(set(levels)), grids))


def _average(start: jax.Array, stop: jax.Array, side: int, dtype: Any) -> jax.Array:
    """Returns weights (R, n, side) that average the cells of each range (R, n)."""
    cell = jnp.arange(side, dtype=jnp.int32)[None, None]
    inside = (cell >= start[..., None]) & (cell < stop[..., None])
    return inside.astype(dtype) / (stop - start)[..., None].astype(dtype)
