"""The maximum of several arrays: what every pool here is made of, with its gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


@jax.custom_jvp
def maximum_of(parts: list[jax.Array]) -> jax.Array:
    """Returns the maximum, cell by cell, of arrays of one shape.

    XLA computes it in one loop, slicing or gathering of the parts included. Its derivative picks
    from the part that has the maximum, of several the first. A program that computes the gradient
    as well keeps that part's number alone, a byte a cell.
    """
    return functools.reduce(jnp.maximum, parts)


@maximum_of.defjvp
def _maximum_of_jvp(primals: tuple, tangents: tuple):
    (parts,), (changes,) = primals, tangents
    best = parts[0]
    winner = jnp.zeros(best.shape, jnp.uint8 if len(parts) <= 256 else jnp.int32)
    for number, part in enumerate(parts[1:], start=1):
        winner = jnp.where(part > best, jnp.asarray(number, winner.dtype), winner)
        best = jnp.maximum(best, part)
    # Else the gradient would compute it again for each of the parts.
    winner = jax.lax.optimization_barrier(winner)
    picked = [jnp.where(winner == number, change, 0) for number, change in enumerate(changes)]
    return maximum_of(parts), sum(picked[1:], picked[0])


def widen(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Returns `function` of arrays of one dtype, which only selects among their numbers.

    On CPUs XLA widens 16-bit floats to float32 and rounds them again at each operation. There the
    arrays are widened once instead, three to four times as fast; nothing is lost on the way.
    """
    dtype = arrays[0].dtype
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > 2:
        return function(*arrays)

    def cpu(*arrays: jax.Array) -> jax.Array:
        return function(*(array.astype(jnp.float32) for array in arrays)).astype(dtype)

    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=function)
