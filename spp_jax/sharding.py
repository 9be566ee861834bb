"""Where arrays lie: one mesh over all devices, parameters on each, batches split along `data`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spp_jax import errors


def make_mesh() -> Mesh:
    """Returns a mesh of all devices of all processes with one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def make_local_mesh() -> Mesh:
    """Returns a mesh of the devices of this process alone, for work that processes share out."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns the global batch of which each process gives its own rows."""
    sharding = split(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Returns the tree with every array on each device of the mesh.

    Arrays that other processes hold as well must be whole on each device.
    """

    def own(x: Any) -> Any:
        is_elsewhere = isinstance(x, jax.Array) and not x.is_fully_addressable
        return x.addressable_data(0) if is_elsewhere else x

    return jax.device_put(jax.tree.map(own, tree), replicated(mesh))


def largest(own: int) -> jax.Array:
    """Returns the largest of the numbers of all processes, each of which gives its own."""
    mesh = make_mesh()
    numbers = np.full(jax.local_device_count(), own, np.int32)
    given = jax.make_array_from_process_local_data(split(mesh), numbers)
    return _largest(mesh)(given)


@functools.lru_cache
def _largest(mesh: Mesh) -> Any:
    return jax.jit(jnp.max, out_shardings=replicated(mesh))


def check_batch_size(batch_size: int, field: str) -> None:
    """Raises InputError unless the batch divides evenly among all devices."""
    if batch_size % jax.device_count():
        raise errors.InputError(
            f"{field}={batch_size} does not divide evenly among {jax.device_count()} devices"
        )
