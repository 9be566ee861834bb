"""What the guards against damage cost: steps that may not be finite, and checksums.

    python -m benchmarks.guards --output=docs/results/speed_guards.json

A training step beside one that takes whatever comes; a checkpoint with momentum saved, beside the
checksums that are a part of that; and loaded, beside a load that skips them (`verify=False`).
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
from absl import flags

import spp_jax
from benchmarks import steps, timing
from spp_jax import checkpoint
from spp_jax import config as config_lib
from spp_jax.training import schedule
from spp_jax.training import state as state_lib
from spp_jax.training import steps as steps_lib

_NETWORK = flags.DEFINE_string("network", "zf5", "Its name.")
_SIDE = flags.DEFINE_integer("side", 224, "Of the images, pixels.", lower_bound=32)
_BATCH = flags.DEFINE_integer("batch", 16, "Images of a step.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times each is run, in turns.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")


def _descend(
    state: state_lib.TrainState,
    optimizer: optax.GradientTransformationExtraArgs,
    loss_fn: Callable[[dict], tuple[jax.Array, dict[str, jax.Array]]],
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
    """Descends as `steps.descend`, without a look at the loss and the gradient."""
    (loss, sums), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss)
    params: Any = optax.apply_updates(state.params, updates)
    sums["grad_norm"] = optax.tree.norm(grads)
    new = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
    return new, sums


@contextlib.contextmanager
def _unguarded() -> Iterator[None]:
    """Makes training steps without the guard."""
    guarded = steps_lib.descend
    steps_lib.descend = _descend
    try:
        yield
    finally:
        steps_lib.descend = guarded


def _step_case() -> timing.Case:
    arguments = (_NETWORK.value, _SIDE.value, "float32", _BATCH.value)
    ours = steps.Ours(*arguments)
    with _unguarded():
        bare = steps.Ours(*arguments)
    name = f"a step of {_BATCH.value}, {_NETWORK.value} {_SIDE.value}"
    return timing.Case(name, timing.Run(ours), {"without the guard": timing.Run(bare)})


def _checkpoint_cases(folder: str) -> list[timing.Case]:
    model = spp_jax.make_model(_NETWORK.value, num_classes=steps.NUM_CLASSES)
    optimizer = schedule.make_optimizer(config_lib.TrainConfig(), 1000)
    state = state_lib.init_state(model, optimizer, 0, _SIDE.value, jax.make_mesh((1,), ("data",)))
    parts: Any = {"params": state.params, "optimizer": state.opt_state}
    config = config_lib.Config()
    config.model.name = _NETWORK.value
    names = tuple(f"class {k}" for k in range(steps.NUM_CLASSES))
    step = 0

    def save() -> None:
        nonlocal step
        step += 1
        with contextlib.closing(checkpoint.Writer(folder, keep=1)) as writer:
            writer.save(checkpoint.Meta(step, config, names, 1, {}), parts)

    def load(*, verify: bool) -> Any:
        return checkpoint.load(folder, verify=verify)[1]

    sums = timing.Run(lambda: checkpoint.checksum(parts))
    skipping = timing.Run(lambda: load(verify=False))
    return [
        timing.Case(f"{_NETWORK.value} saved, with momentum", timing.Run(save), {"sums": sums}),
        timing.Case(
            f"{_NETWORK.value} loaded", timing.Run(lambda: load(verify=True)), {"skipped": skipping}
        ),
    ]


def main(_: list[str]) -> None:
    rows = [timing.measure(_step_case(), _ROUNDS.value)]
    with tempfile.TemporaryDirectory() as folder:
        rows += [timing.measure(case, _ROUNDS.value) for case in _checkpoint_cases(folder)]
    timing.report(rows, "guard", "python -m benchmarks.guards", _OUTPUT.value)


if __name__ == "__main__":
    timing.run(main)
