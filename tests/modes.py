"""JAX's stricter modes, in which every public function must do what it does without them."""

import contextlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# What a user can turn on for a whole program, by JAX_ENABLE_X64=1 and the like.
PROMOTIONS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "64 bits": lambda: jax.enable_x64(True),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
}


@contextlib.contextmanager
def explicit_mesh():
    """Gives place(x, *names), which puts an array on four devices, its axes split by name."""
    if jax.device_count() < 4:  # the tests' CPU has four, a GPU that they are tried on may be one
        pytest.skip("needs four devices")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))

    def place(x: np.ndarray | jax.Array, *names: str) -> jax.Array:
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*names)))

    with jax.set_mesh(mesh):
        yield place
