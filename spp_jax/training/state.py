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
    """Step (int32 scalar), parameters (float32), optimizer state, and the constants of the network,
    {"mean": ...} or {}. Random numbers are a function of seed and step, and so is the place in the
    data: neither is state.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    constants: dict

    @property
    def variables(self) -> dict:
        """What the network is applied with."""
        return {"params": self.params} | ({"constants": self.constants} if self.constants else {})


def init_state(
    model: sppnet.SPPNet,
    optimizer: optax.GradientTransformation,
    seed: int,
    size: int,
    mesh: Mesh,
    constants: dict | None = None,
) -> TrainState:
    """Returns the state of step 0, on every device of the mesh.

    The parameters do not depend on `size`; it is the side of the image that shapes are found on.
    `constants` are {"mean": (3,) or (s, s, 3)} or none.
    """

    def init() -> TrainState:
        images = jnp.zeros((1, size, size, 3), jnp.uint8)
        params: Any = model.init(jax.random.key(seed), images)["params"]
        found = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), constants or {})
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), found)

    return jax.jit(init, out_shardings=sharding.replicated(mesh))()


def state_spec(state: TrainState) -> TrainState:
    """Returns shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
