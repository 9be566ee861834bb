"""Where arrays lie: one mesh over all devices, parameters on each, batches split along `data`."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spp_jax import errors


def make_mesh() -> Mesh:
    """Returns a mesh of all devices of all processes with one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


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
    """Returns the tree with every array on each device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def check_batch_size(batch_size: int, field: str) -> None:
    """Raises InputError unless the batch divides evenly among all devices."""
    if batch_size % jax.device_count():
        raise errors.InputError(
            f"{field}={batch_size} does not divide evenly among {jax.device_count()} devices"
        )
