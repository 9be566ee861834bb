"""Strided max pooling whose gradient is no select-and-scatter.

XLA's gradient of a reduce_window maximum is a select-and-scatter: slow, and not deterministic on
GPUs. Here the maximum is one over strided slices, one for each cell of a window, and its gradient
is selects and pads.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from spp_jax.pooling import maximum

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
    is_past: Any = (count - 1) * stride >= side + padding
    return count - (is_past if isinstance(side, int) else is_past.astype(side.dtype))


def max_pool(
    x: jax.Array, window: int, stride: int, *, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
    """Max-pools (N, H, W, C) with square windows to (N, H', W', C).

    >>> x = jnp.arange(16).reshape(1, 4, 4, 1)
    >>> max_pool(x, 2, 2)[0, :, :, 0].tolist()
    [[5, 7], [13, 15]]

    Padded cells never win: they count as minus infinity. H' and W' are `pooled_side` of H and W.
    Of cells that tie the first one, row by row, gets the gradient, as in Caffe and torch.

    Raises:
        ValueError: a map in which no window fits (with ceil_mode the last one may reach out of
            it), padding not smaller than the window, or a window or stride of less than 1.
    """
    if window < 1 or stride < 1 or not 0 <= padding < window:
        raise ValueError(
            f"max_pool needs window, stride >= 1 and 0 <= padding < window, got window {window}, "
            f"stride {stride}, padding {padding}"
        )
    counts = [
        pooled_side(side, window, stride, padding, ceil_mode=ceil_mode) for side in x.shape[1:3]
    ]
    if min(*x.shape[1:3], *counts) < 1:
        raise ValueError(f"max_pool of a {window}-cell window on a map of shape {x.shape}")
    # Cells of the last window beyond the map; negative where it ends before it.
    after = [(n - 1) * stride + window - side - padding for n, side in zip(counts, x.shape[1:3])]
    pads = ((0, 0), *((padding, max(0, n)) for n in after), (0, 0))
    if padding or max(after) > 0:
        x = _pad_lowest(x, pads)
    return maximum.widen(lambda x: maximum.maximum_of(_slices(x, window, stride)), x)


def _pad_lowest(x: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    is_floating = jnp.issubdtype(x.dtype, jnp.floating)
    return jnp.pad(x, pads, constant_values=-jnp.inf if is_floating else jnp.iinfo(x.dtype).min)


def _slices(x: jax.Array, window: int, stride: int) -> list[jax.Array]:
    """Returns for each cell of a window, row by row, that cell of all windows, (N, H', W', C).

    By phases of the stride first: so the gradient adds up few arrays as large as x.
    """
    rows, columns = ((side - window) // stride + 1 for side in x.shape[1:3])
    count = min(window, stride)
    phases = [[x[:, i::stride, j::stride] for j in range(count)] for i in range(count)]

    def cells(i: int, j: int) -> jax.Array:
        top, left = i // stride, j // stride
        return phases[i % stride][j % stride][:, top : top + rows, left : left + columns]

    return [cells(i, j) for i in range(window) for j in range(window)]
