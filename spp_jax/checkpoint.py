"""Saves, resumes and loads: the only file that knows Orbax.

A step directory, DIR/checkpoints/STEP, holds `params`, after training also `optimizer`, and
`constants` where the network has any (its mean image); in its metadata the config, the class names,
the metrics and the versions it was made with. The step is also the place in the data: batches are a
function of seed and step.
"""

import dataclasses
import os
import zlib
from collections.abc import Callable
from typing import Any

import flax
import jax
import numpy as np
import optax
import orbax.checkpoint.experimental.v1 as ocp

import spp_jax
from spp_jax import config as config_lib
from spp_jax import errors, network, sharding
from spp_jax.models import sppnet

CHECKPOINTS = "checkpoints"
_PARTS = ("params", "optimizer")


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself.

    Attributes:
        step: number of updates made.
        config: of the run.
        class_names: name of each output of the network.
        num_examples: that it was trained on; 0 for imported weights.
        metrics: of the last evaluation before it was saved.
        versions: of the libraries it was made with.
    """

    step: int
    config: config_lib.Config
    class_names: tuple[str, ...]
    num_examples: int
    metrics: dict[str, Any]
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: _versions())


class Writer:
    """Saves the steps of a run in the background and keeps the last few; close it when done."""

    def __init__(self, workdir: str, keep: int):
        self._checkpointer = ocp.training.Checkpointer(
            os.path.join(os.path.abspath(workdir), CHECKPOINTS),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyright: ignore[reportArgumentType] (their protocol and their class disagree)
            cleanup_tmp_directories=True,
        )
        self._pending: Any = None

    def save(self, meta: Meta, parts: dict[str, Any]) -> None:
        """Starts to save; an error shows at the next `save` or at `wait`.

        `parts` are trees by name: params, optimizer, constants; what is empty is left out.
        """
        self.wait()
        stored = {f.name: getattr(meta, f.name) for f in dataclasses.fields(meta)}
        stored["config"] = dataclasses.asdict(meta.config)
        stored["class_names"] = list(meta.class_names)
        parts = {name: tree for name, tree in parts.items() if jax.tree.leaves(tree)}
        stored["parts"] = sorted(parts)
        self._pending = self._checkpointer.save_checkpointables_async(
            meta.step,
            parts,
            force=True,
            custom_metadata=stored,
        )

    def wait(self) -> None:
        """Returns when what was saved is on disk; raises what went wrong."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """Waits and gives back what Orbax holds."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()


def save_network(workdir: str, variables: dict, meta: Meta) -> None:
    """Saves a network alone, without an optimizer; returns when it is on disk."""
    writer = Writer(workdir, keep=1)
    try:
        writer.save(meta, dict(variables))
    finally:
        writer.close()


def latest_step_dir(path: str) -> str | None:
    """Returns the newest whole step directory under a workdir, its checkpoints, or `path` itself.

    None where there is none. A step that was being written when its process died is not whole.
    """
    root = config_lib.whole_path(path)
    is_root = os.path.basename(root) == CHECKPOINTS
    folder = root if is_root else os.path.join(root, CHECKPOINTS)
    if os.path.isdir(folder):
        # Orbax renames a step into place when it is whole.
        steps = [int(d) for d in os.listdir(folder) if d.isdigit()]
        return os.path.join(folder, str(max(steps))) if steps else None
    in_root = os.path.basename(os.path.dirname(root)) == CHECKPOINTS
    is_step = os.path.isdir(os.path.join(root, _PARTS[0])) or (in_root and os.path.isdir(root))
    return root if is_step else None


def read_meta(step_dir: str) -> Meta:
    """Returns what a step directory says of itself.

    Raises:
        InputError: it is damaged, or was not written by this package.
    """
    stored = _stored(step_dir).custom_metadata
    if not isinstance(stored, dict) or not {f.name for f in dataclasses.fields(Meta)} <= set(
        stored
    ):
        raise errors.InputError(f"checkpoint {step_dir} is damaged or was not written by spp_jax")
    return Meta(
        step=stored["step"],
        config=config_lib.from_dict(config_lib.Config, stored["config"]),
        class_names=tuple(stored["class_names"]),
        num_examples=stored["num_examples"],
        metrics=stored["metrics"],
        versions=stored["versions"],
    )


def restore(step_dir: str, **specs: Any) -> dict[str, Any]:
    """Restores `params`, `optimizer` ..., as the given trees of shapes and shardings say.

    Raises:
        InputError: the checkpoint is damaged, or a parameter is missing, unexpected or of
            another shape; each is named.
    """
    metadata = _stored(step_dir).metadata or {}
    for part, spec in specs.items():
        if metadata.get(part) is None:
            raise errors.InputError(f"checkpoint {step_dir} is damaged: its {part} cannot be read")
        _compare(step_dir, part, metadata[part], spec)
    return _read(step_dir, lambda: ocp.load_checkpointables(step_dir, specs))


def stored_spec(
    step_dir: str, part: str, layout: jax.sharding.Sharding | None = None
) -> dict[str, Any]:
    """Returns the tree of shapes, in one layout, of a part as stored; {} if there is none.

    Raises:
        InputError: the part was saved and cannot be read.
    """
    found = _stored(step_dir)
    stored = (found.metadata or {}).get(part) or {}
    if not stored and part in (found.custom_metadata or {}).get("parts", ()):
        raise errors.InputError(f"checkpoint {step_dir} is damaged: its {part} cannot be read")
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), stored)


def read_constants(step_dir: str) -> dict[str, Any]:
    """Returns the constants of a network, {"mean": ...} on every device, or {}."""
    spec = stored_spec(step_dir, "constants", sharding.replicated(sharding.make_mesh()))
    return restore(step_dir, constants=spec)["constants"] if spec else {}


def load(path: str | os.PathLike[str]) -> tuple[sppnet.SPPNet, dict, config_lib.Config]:
    """Loads a network from its checkpoint alone, on whatever devices there are.

    Args:
        path: a workdir of train.py, its checkpoints directory (the newest step is taken), or one
            step directory.

    Returns:
        (model, variables, config): `model.apply(variables, images)` gives logits for (N, H, W, 3)
        RGB images, 0 to 255, of any size. The variables, "params" and, with a mean image,
        "constants", lie on every local device.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    model, variables, meta = load_with_meta(path)
    return model, variables, meta.config


def load_with_meta(path: str | os.PathLike[str]) -> tuple[sppnet.SPPNet, dict, Meta]:
    """Loads as `load`, with everything the checkpoint says of itself in place of the config."""
    step_dir = _find_step_dir(path)
    meta = read_meta(step_dir)
    model = network.make(meta.config.model, len(meta.class_names))
    shapes = sppnet.param_shapes(model)
    whole = sharding.replicated(sharding.make_mesh())
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    variables = restore(step_dir, params=spec)
    constants = read_constants(step_dir)
    return model, variables | ({"constants": constants} if constants else {}), meta


def class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the name of each output of a network: `logits[:, k]` is of class `class_names[k]`.

    Args:
        path: of its checkpoint, as for `load`.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    return read_meta(_find_step_dir(path)).class_names


def _find_step_dir(path: str | os.PathLike[str]) -> str:
    path = config_lib.whole_path(path)
    if not os.path.isdir(path):
        raise errors.InputError(f"no checkpoint: there is no folder {path}")
    step_dir = latest_step_dir(path)
    if step_dir is None:
        raise errors.InputError(f"no checkpoint in {path}")
    return step_dir


def checksum(variables: dict) -> int:
    """Returns a CRC-32 of all numbers of a network: of equal networks it is equal."""
    total = 0
    for leaf in jax.tree.leaves(variables):
        values: Any = np.ascontiguousarray(leaf)
        total = zlib.crc32(values, total)
    return total


def _stored(step_dir: str) -> Any:
    return _read(step_dir, lambda: ocp.checkpointables_metadata(step_dir))


def _read(step_dir: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    # Orbax and TensorStore answer damage with many kinds of exceptions.
    except Exception as e:
        reason = str(e).strip().split("\n")[0][:200]
        raise errors.InputError(f"checkpoint {step_dir} is damaged: {reason}") from e


def _compare(step_dir: str, part: str, stored: Any, spec: Any) -> None:
    """Orbax's own complaints about a wrong tree name no parameter, and some trees pass it."""
    old, new = _shapes(stored), _shapes(spec)
    lines = [f"{name} is only in the checkpoint" for name in sorted(set(old) - set(new))]
    lines += [f"{name} is missing in the checkpoint" for name in sorted(set(new) - set(old))]
    lines += [
        f"{name} is {old[name]} in the checkpoint and {new[name]} here"
        for name in sorted(set(old) & set(new))
        if old[name] != new[name]
    ]
    if lines:
        raise errors.InputError(f"checkpoint {step_dir} does not fit: {part} " + "; ".join(lines))


def _shapes(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(x.dtype)}{x.shape}"
        for path, x in leaves
    }


def _versions() -> dict[str, str]:
    return {
        "spp_jax": spp_jax.__version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
    }
