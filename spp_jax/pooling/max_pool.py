"""Strided max pooling whose gradient is no select-and-scatter.

XLA's gradient of a reduce_window maximum is a select-and-scatter: slow, and not deterministic on
GPUs. The same maximum over strided slices, rows first and columns after, differentiates to
selects and pads.
"""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp

# A side in cells, or an array of them.
Side = TypeVar("Side", int, jax.Array)


def pooled_side(side: Side, window: int, stride: int, padding: int = 0, *, ceil_mode: bool) -> Side:
    """Returns the number of outputs along a side; works on Python and on traced integers.

    With ceil_mode a last, partly filled window is kept as Caffe keeps it: only if it starts inside
    the side or its leading padding.
    """
    span = side + 2 * padding - window
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    # Only with padding, or a stride beyond the window, can the last window start past the end.
    return count - ((count - 1) * stride >= side + padding)


def max_pool(
    x: jax.Array, window: int, stride: int, *, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
    """Max-pools (N, H, W, C) with square windows to (N, H', W', C).

    Padded cells never win: they count as minus infinity. H' and W' are `pooled_side` of H and W.
    Where several cells of a window tie, the gradient is shared between them.

    Raises:
        ValueError: a map in which no window fits (with ceil_mode the last one may reach out of
            it), padding not smaller than the window, or a window or stride of less than 1.
    """
    if window < 1 or stride < 1 or not 0 <= padding < window:
        raise ValueError(
            f"max_pool needs window, stride >= 1 and 0 <= padding < window, got window {window}, "
            f"stride {stride}, padding {padding}"
        )
    for axis in (1, 2):
        x = _pool_side(x, axis, window, stride, padding, ceil_mode)
    return x


def _pool_side(x: jax.Array, axis: int, window: int, stride: int, padding: int, ceil_mode: bool):
    side = x.shape[axis]
    count = pooled_side(side, window, stride, padding, ceil_mode=ceil_mode)
    if side < 1 or count < 1:
        raise ValueError(f"max_pool of a {window}-cell window on a map of shape {x.shape}")
    reach = (count - 1) * stride + window
    if padding or reach > side:
        pads = [(0, 0)] * x.ndim
        pads[axis] = (padding, max(0, reach - side - padding))
        x = jnp.pad(x, pads, constant_values=_lowest(x.dtype))
    parts = [
        jax.lax.slice_in_dim(x, offset, offset + (count - 1) * stride + 1, stride, axis)
        for offset in range(window)
    ]
    return functools.reduce(jnp.maximum, parts)


def _lowest(dtype: jnp.dtype):
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min
