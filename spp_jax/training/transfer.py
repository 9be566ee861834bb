"""Fine-tuning: starts a network from another checkpoint, `config.init_from`, as far as it fits."""

import dataclasses

import flax.traverse_util
import jax
import numpy as np

from spp_jax import checkpoint, errors
from spp_jax.data.sources import base
from spp_jax.models import sppnet
from spp_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is taken from a checkpoint.

    Attributes:
        step_dir: of the checkpoint.
        constants: its mean, {} if it has none.
        restored: names of the parameters taken, backbone/conv1/kernel ...
        fresh: {name: why it is not taken}.
        unused: names that are in the checkpoint only.
        num_restored: numbers in the parameters taken.
    """

    step_dir: str
    constants: dict
    restored: tuple[str, ...]
    fresh: dict[str, str]
    unused: tuple[str, ...]
    num_restored: int

    def lines(self) -> str:
        """Returns a line for what was restored and one for each layer that was not."""
        found = [
            f"init_from {self.step_dir}: restored {len(self.restored)} arrays, "
            f"{self.num_restored:,} parameters" + (" and the mean" if self.constants else "")
        ]
        found += [f"  fresh: {name} ({why})" for name, why in self.fresh.items()]
        found += [f"  not used: {name}" for name in self.unused]
        return "\n".join(found)


def make_plan(path: str, model: sppnet.SPPNet, class_names: tuple[str, ...]) -> Plan:
    """Compares a checkpoint with a network, parameter by parameter, and reads nothing large.

    The kernel and the bias of a layer are taken together or not at all: a bias is of use to its own
    kernel only. The classifier is taken only where the classes are the same, not merely as many.

    Args:
        path: a workdir, its checkpoints directory or one step directory.
        model: the network to be trained.
        class_names: of its outputs.

    Raises:
        InputError: no checkpoint there, a damaged one, or one of which no convolution fits.
    """
    step_dir = checkpoint.latest_step_dir(path)
    if step_dir is None:
        raise errors.InputError(f"config.init_from={path}: no checkpoint there")
    meta = checkpoint.read_meta(step_dir)
    here, there = (
        _flat(sppnet.param_shapes(model)),
        _flat(checkpoint.stored_spec(step_dir, "params")),
    )
    classifier = f"head/fc{6 + len(model.backbone.hidden)}/"
    fresh = {}
    for name, spec in here.items():
        if name not in there:
            fresh[name] = "not in the checkpoint"
        elif name.startswith(classifier) and not _are_same(class_names, meta.class_names):
            fresh[name] = f"{len(class_names)} classes, not those of its {len(meta.class_names)}"
        elif spec.shape != there[name].shape:
            fresh[name] = f"{spec.shape} here, {there[name].shape} there"
    fresh = _whole_layers(list(here), fresh)
    restored = tuple(name for name in here if name not in fresh)
    if not any(name.startswith("backbone/") for name in restored):
        raise errors.InputError(
            f"config.init_from={path}: none of its convolutions fits {model.backbone.name}; it is "
            f"of network {meta.config.model.name}"
        )
    return Plan(
        step_dir,
        checkpoint.read_constants(step_dir),
        restored,
        fresh,
        tuple(name for name in there if name not in here),
        sum(int(np.prod(here[name].shape)) for name in restored),
    )


def _whole_layers(names: list[str], fresh: dict[str, str]) -> dict[str, str]:
    """Returns `fresh` with all parameters of every layer of which one is, in order of `names`."""
    cause: dict[str, str] = {}
    for name in fresh:
        cause.setdefault(_layer(name), name)
    return {
        name: fresh.get(name) or f"goes with {cause[_layer(name)]}"
        for name in names
        if _layer(name) in cause
    }


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def apply_plan(plan: Plan, state: state_lib.TrainState) -> state_lib.TrainState:
    """Returns the state with the parameters of the plan in place of its own."""
    whole = jax.tree.leaves(state.params)[0].sharding
    spec = checkpoint.stored_spec(plan.step_dir, "params", whole)
    stored = _flat(checkpoint.restore(plan.step_dir, params=spec)["params"])
    taken = {name: stored[name] for name in plan.restored}
    params = flax.traverse_util.unflatten_dict(_flat(state.params) | taken, sep="/")
    return dataclasses.replace(state, params=params)


def _are_same(class_names: tuple[str, ...], stored: tuple[str, ...]) -> bool:
    """Whether the classes are the same in the same order, by name or WordNet identifier."""
    try:
        matched = base.match_classes(class_names, stored, "")
    except errors.InputError:
        return False
    return matched == list(range(len(stored)))


def _flat(tree: dict) -> dict:
    return flax.traverse_util.flatten_dict(tree, sep="/")
