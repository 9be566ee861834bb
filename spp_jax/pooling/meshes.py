"""Lets programs that leave the placing of their arrays to XLA run on a mesh of explicit axes.

`jax.make_mesh` makes such axes unless told otherwise. There the type of an array holds how it is
split, and JAX refuses every operation of which it cannot tell how the result is.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike


def on_automatic_axes(
    function: Callable[..., jax.Array], rows: ArrayLike, *arrays: ArrayLike
) -> jax.Array:
    """Returns `function` of the arrays, a matrix that is split among the devices as `rows` is.

    Where no axis of their mesh is explicit, it is called as it is.

    Args:
        function: what is computed, from arrays to (R, D).
        rows: an array of the arguments that has R as its first axis.
        arrays: the arguments.
    """
    shardings = [jax.typeof(x).sharding for x in (rows, *arrays)]
    explicit = [s.mesh for s in shardings if AxisType.Explicit in s.mesh.axis_types]
    if not explicit:
        return function(*arrays)
    split = PartitionSpec(shardings[0].spec[0], None)
    run: Any = jax.sharding.auto_axes(function, out_sharding=NamedSharding(explicit[0], split))
    return run(*arrays)
