"""The state of training: where it begins, and what each step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from spp_jax import sharding
from spp_jax.models import sppnet


@flax.struct.dataclass
class TrainState:
    """The state of training.

    Random numbers and the position in the data are functions of seed and step, so neither is here.

    Attributes:
        step: int32 scalar, number of updates made.
        params: of the network, float32.
        opt_state: of the optimizer.
        constants: of the network, {"mean": (3,) or (s, s, 3) float32} or {}.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    constants: dict

    @property
    def variables(self) -> dict:
        """The variables with which the network is applied."""
        return {"params": self.params} | ({"constants": self.constants} if self.constants else {})


def init_state(
    model: sppnet.SPPNet,
    optimizer: optax.GradientTransformation,
    seed: int,
    size: int,
    mesh: Mesh,
    *,
    constants: dict | None = None,
) -> TrainState:
    """Returns the state of step 0, on every device of the mesh.

    Args:
        model: the network.
        optimizer: of the run.
        seed: of the parameters.
        size: side of the image that initialises the model, pixels; the parameters do not depend on
            it.
        mesh: the devices.
        constants: of the network, {"mean": (3,) or (s, s, 3)}, or None.
    """

    # From wherever they are: the program that makes the state runs on all devices.
    given = jax.tree.map(np.asarray, constants or {})

    def init() -> TrainState:
        images = jnp.zeros((1, size, size, 3), jnp.uint8)
        params: Any = model.init(jax.random.key(seed), images)["params"]
        fixed = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), given)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), fixed)

    return jax.jit(init, out_shardings=sharding.replicated(mesh))()


def state_spec(state: TrainState) -> TrainState:
    """Returns the shapes, dtypes and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
