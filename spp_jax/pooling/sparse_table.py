"""Maxima over many rectangles of shared maps, by look-up, and the gradient of each to one cell.

A maximum over any rectangle is the maximum of four overlapping blocks whose sides are powers of
two, so a table of such blocks makes each rectangle four look-ups, whatever its size: a sparse
table. Shapes: R windows · B bins of each · (H, W) cells · C channels · T blocks of all maps.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class SparseTable:
    """Finds and looks up blocks of 2^i x 2^j cells, all that a bin of level n or finer can need."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], n: int):
        """Takes the (N, H, W) of each array of maps."""
        self._powers = tuple((_num_powers(h, n), _num_powers(w, n)) for _, h, w in shapes)
        # By array of maps and powers: where their blocks begin, and how many there are a map.
        grid = (len(shapes), *np.max(self._powers, axis=0))
        self._first, self._shapes = np.zeros(grid, np.int32), np.zeros((*grid, 2), np.int32)
        total = 0
        for number, (count, height, width) in enumerate(shapes):
            for i, j in np.ndindex(self._powers[number]):
                block = height + 1 - (1 << i), width + 1 - (1 << j)
                self._first[number, i, j] = total
                self._shapes[number, i, j] = block
                total += count * block[0] * block[1]
        counts = [count for count, _, _ in shapes]
        self._array_of = np.repeat(np.arange(len(shapes), dtype=np.int32), counts)
        self._place_of = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
        sizes = np.repeat([h * w for _, h, w in shapes], counts)
        self._first_cell = (np.cumsum(sizes) - sizes).astype(np.int32)

    def index(self, map_index, rows, columns) -> jax.Array:
        """Returns (R, n, n, 4): which of the T blocks are the four whose union is each bin."""
        i, upper, lower = _two_blocks(*rows)
        j, left, right = _two_blocks(*columns)
        array = jnp.asarray(self._array_of)[map_index][:, None, None]
        place = jnp.asarray(self._place_of)[map_index][:, None, None]
        power = array, i[:, :, None], j[:, None, :]
        height, width = jnp.moveaxis(jnp.asarray(self._shapes)[power], -1, 0)
        origin = jnp.asarray(self._first)[power] + place * height * width
        corners = [
            origin + y[:, :, None] * width + x[:, None, :]
            for y in (upper, lower)
            for x in (left, right)
        ]
        return jnp.stack(corners, axis=-1)

    def maxima(self, maps: Sequence[jax.Array], map_index, index) -> jax.Array:
        """Returns (R, B, C), of each bin the maximum of its four blocks, `index` (R, B, 4).

        The gradient of a maximum goes to one cell that has it.
        """
        first_cell = jnp.asarray(self._first_cell)[map_index]
        return _maxima(self._powers, tuple(maps), index, first_cell)


def _num_powers(side: int, n: int) -> int:
    """Returns how many powers of two fit in the longest bin of level n on up to `side` cells."""
    # A bin can span one cell more than ceil(side/n): [2, 6) of 16 cells in 6 bins.
    return min(side, -(-side // n) + 1).bit_length()


def _two_blocks(start: jax.Array, stop: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns i, a, b: [start, stop) is the union of the 2^i cells from a and those from b.

    All are int32.
    """
    power = 31 - jax.lax.clz(stop - start)
    return power, start, stop - jnp.left_shift(jnp.int32(1), power)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _maxima(powers, maps: tuple[jax.Array, ...], index, first_cell) -> jax.Array:
    del first_cell  # where the cells of each window's map begin, (R,): for the derivative
    return _look_up(powers, maps, index, jnp.maximum)


@_maxima.defjvp
def _maxima_jvp(powers, primals: tuple, tangents: tuple):
    """Looks up beside each maximum the cell it came from: its derivative is that cell's."""
    maps, index, first_cell = primals
    # A program that computes the gradient as well keeps one such number an output.
    dtype = jnp.uint16 if max(m.shape[1] * m.shape[2] for m in maps) <= 1 << 16 else jnp.int32
    channels = maps[0].shape[3]

    def cells_of(fmap: jax.Array) -> jax.Array:
        _, height, width, _ = fmap.shape
        cells = jnp.arange(height * width, dtype=dtype).reshape(1, height, width, 1)
        return jnp.broadcast_to(cells, fmap.shape)

    def larger(one, other):
        (a, cell_of_a), (b, cell_of_b) = one, other
        return jnp.maximum(a, b), jnp.where(b > a, cell_of_b, cell_of_a)

    best, cell = _look_up(powers, [(m, cells_of(m)) for m in maps], index, larger)
    # Else the gradient would look them up again.
    cell = jax.lax.optimization_barrier(cell)
    place = (
        first_cell[:, None, None] + cell.astype(jnp.int32),
        jnp.arange(channels, dtype=jnp.int32)[None, None],
    )
    change = jnp.concatenate([t.reshape(-1, channels) for t in tangents[0]])
    return best, _linear(
        lambda cells: cells.at[place].get(mode="promise_in_bounds"),
        lambda picked: _sum_at(place, picked, change.shape),
        change,
    )


def _look_up(powers, maps: Sequence[Any], index: jax.Array, larger: Callable) -> Any:
    """Returns the largest of the blocks `index` (R, B, 4) of maps, which may be pairs of arrays.

    `larger` of two such maps, or parts of them, is the larger one cell by cell.
    """
    blocks = []
    for fmap, (rows, columns) in zip(maps, powers):
        column = fmap
        for i in range(rows):
            column = _double(column, 1, i, larger)
            block = column
            for j in range(columns):
                block = _double(block, 2, j, larger)
                blocks.append(jax.tree.map(lambda x: x.reshape(-1, x.shape[3]), block))
    table = jax.tree.map(lambda *parts: jnp.concatenate(parts), *blocks)
    # Not one gather of all four: XLA would write that, four times the result, to memory first.
    corners = [
        jax.tree.map(lambda x: x.at[index[..., i]].get(mode="promise_in_bounds"), table)  # noqa: B023
        for i in range(index.shape[-1])
    ]
    return functools.reduce(larger, corners)


def _double(block: Any, axis: int, power: int, larger: Callable) -> Any:
    """Returns maxima over 2^power cells of an axis from those over 2^(power-1), fewer by starts."""
    if power == 0:
        return block
    half = 1 << (power - 1)

    def part(start: int) -> Any:
        def cut(x: jax.Array) -> jax.Array:
            return jax.lax.slice_in_dim(x, start, x.shape[axis] - half + start, axis=axis)

        return jax.tree.map(cut, block)

    return larger(part(0), part(half))


def _linear(function: Callable, transpose: Callable, x: jax.Array) -> jax.Array:
    """Returns `function` of x, which is linear; its reverse derivative is `transpose`.

    As `jax.custom_derivatives.linear_call`, which vmap does not take: y = function(x) solves
    (x, y - function(x)) = (x, 0).
    """

    def matvec(pair):
        return pair[0], pair[1] - function(pair[0])

    def solve(_, pair):
        return pair[0], pair[1] + function(pair[0])

    def transpose_solve(_, pair):
        return pair[0] + transpose(pair[1]), pair[1]

    # Both halves have to depend on x, and their cotangents on the result's: JAX refuses zeros that
    # it knows to be such. The sum of no cells is zero, and costs nothing.
    zeros = jnp.broadcast_to(x[:0].sum(), jax.eval_shape(function, x).shape)
    # Pyright takes it for a function that never returns.
    run: Any = jax.lax.custom_linear_solve
    x, y = run(matvec, (x, zeros), solve, transpose_solve)
    return y + x[:0].sum()


# Digits of a fixed-point number: three keep 40 bits below the largest one, also of sums of 100,000.
_NUM_DIGITS = 3


def _sum_at(place: tuple[jax.Array, ...], values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns zeros of (cells, C), to which `values` (R, B, C) are added at `place`."""

    def add(values: jax.Array, *place: jax.Array) -> jax.Array:
        return jnp.zeros(shape, values.dtype).at[place].add(values, mode="promise_in_bounds")

    def add_digits(values: jax.Array, *place: jax.Array) -> jax.Array:
        wide = jnp.promote_types(values.dtype, jnp.float32)
        integer = jnp.int64 if wide == jnp.float64 else jnp.int32
        # Of a first digit; the sum of all values has to fit, and one is less than two units.
        bits = jnp.iinfo(integer).bits - 3 - (values.shape[0] * values.shape[1]).bit_length()
        base = 2.0 ** (bits + 2)
        rest = values.astype(wide)
        unit = _power_of_two(jnp.abs(rest).max(axis=(0, 1), keepdims=True))
        rest = rest / unit * 2.0**bits
        digits = []
        for _ in range(_NUM_DIGITS):
            digits.append(jnp.round(rest))
            rest = (rest - digits[-1]) * base
        digits = jnp.stack(digits, axis=-1).astype(integer)
        sums = jnp.zeros((*shape, _NUM_DIGITS), integer)
        sums = sums.at[place].add(digits, mode="promise_in_bounds").astype(wide)
        total = sum(sums[..., i] * base**-i for i in range(_NUM_DIGITS))
        # In this order, as a small unit divided by 2^bits would be zero.
        return (total * 2.0**-bits * unit[0]).astype(values.dtype)

    # A sum of floats depends on its order, which differs from run to run on GPUs: where XLA is told
    # to keep it, it sorts every index first. Sums of integers do not depend on it. A CPU adds one
    # after another.
    return jax.lax.platform_dependent(values, *place, cpu=add, default=add_digits)


def _power_of_two(x: jax.Array) -> jax.Array:
    """Returns the largest power of two up to each x > 0; NaN where x is not finite."""
    power = jnp.ldexp(jnp.ones_like(x), jnp.frexp(x)[1] - 1)
    # Smaller numbers have no full precision, and processors may take them for zero.
    return jnp.where(jnp.isfinite(x), jnp.maximum(power, jnp.finfo(x.dtype).tiny), jnp.nan)
