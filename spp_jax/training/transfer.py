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
    """The parameters that a network takes over from a checkpoint, and those that it does not.

    Attributes:
        step_dir: of the checkpoint.
        constants: of the checkpoint, {"mean": array} or {}.
        restored: names of the parameters taken over, such as backbone/conv1/kernel.
        fresh: {name: why not} of the network's other parameters.
        unused: names of the parameters that only the checkpoint has.
        num_restored: count of numbers in the parameters taken over.
    """

    step_dir: str
    constants: dict
    restored: tuple[str, ...]
    fresh: dict[str, str]
    unused: tuple[str, ...]
    num_restored: int

    def lines(self) -> str:
        """Returns one line about the parameters restored, and one for each of the others."""
        lines = [
            f"init_from {self.step_dir}: restored {len(self.restored)} arrays, "
            f"{self.num_restored:,} parameters" + (" and the mean" if self.constants else "")
        ]
        lines += [f"  fresh: {name} ({why})" for name, why in self.fresh.items()]
        lines += [f"  not used: {name}" for name in self.unused]
        return "\n".join(lines)


def find_step_dir(path: str) -> str:
    """Returns the step directory of `config.init_from`; raises InputError if there is none."""
    step_dir = checkpoint.latest_step_dir(path)
    if step_dir is None:
        raise errors.InputError(f"config.init_from={path}: no checkpoint there")
    return step_dir


def make_plan(path: str, model: sppnet.SPPNet, class_names: tuple[str, ...]) -> Plan:
    """Returns which parameters of a checkpoint a network takes over; reads none of them yet.

    The kernel and the bias of a layer are taken over together or not at all, because a bias is of
    use to its own kernel only. The classifier is taken over only if the classes are the same; the
    same number of classes is not enough.

    Args:
        path: a workdir, its checkpoints directory or one step directory.
        model: the network to be trained.
        class_names: of its outputs.

    Raises:
        InputError: there is no checkpoint at `path`, it is damaged, or no convolution of it fits.
    """
    step_dir = find_step_dir(path)
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
    """Returns `fresh` extended to all parameters of each layer that it names, in `names`' order."""
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
    """Returns the state with the plan's parameters, which are read from the checkpoint."""
    whole = jax.tree.leaves(state.params)[0].sharding
    spec = checkpoint.stored_spec(plan.step_dir, "params", whole)
    stored = _flat(checkpoint.restore(plan.step_dir, params=spec)["params"])
    restored = {name: stored[name] for name in plan.restored}
    params = flax.traverse_util.unflatten_dict(_flat(state.params) | restored, sep="/")
    return dataclasses.replace(state, params=params)


def _are_same(class_names: tuple[str, ...], stored: tuple[str, ...]) -> bool:
    """Returns whether classes are the same in the same order, by name or WordNet identifier."""
    try:
        matched = base.match_classes(class_names, stored, "")
    except errors.InputError:
        return False
    return matched == list(range(len(stored)))


def _flat(tree: dict) -> dict:
    return flax.traverse_util.flatten_dict(tree, sep="/")
