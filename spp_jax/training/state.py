"""What training changes, and the programs start from."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from spp_jax import sharding
from spp_jax.models import sppnet


@flax.struct.dataclass
class TrainState:
    """Step (int32 scalar), parameters (float32) and optimizer state. Random numbers are a
    function of seed and step, and so is the place in the data: neither is state.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState


def init_state(
    model: sppnet.SPPNet,
    optimizer: optax.GradientTransformation,
    seed: int,
    size: int,
    mesh: Mesh,
) -> TrainState:
    """Returns the state of step 0, on every device of the mesh.

    The parameters do not depend on `size`; it is the side of the image that shapes are found on.
    """

    def init() -> TrainState:
        images = jnp.zeros((1, size, size, 3), jnp.uint8)
        params: Any = model.init(jax.random.key(seed), images)["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    return jax.jit(init, out_shardings=sharding.replicated(mesh))()


def state_spec(state: TrainState) -> TrainState:
    """Returns shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
