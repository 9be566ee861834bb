"""Saves and restores checkpoints; no other file uses Orbax.

A step directory, DIR/checkpoints/STEP, holds `params`, after training also `optimizer`, and
`constants` if the network has any (its mean image). Its metadata hold the config, the class names,
the metrics, the versions of libraries, and a CRC-32 of each array and of the metadata. The step is
also the position in the data: batches are a function of seed and step.
"""

import concurrent.futures
import contextlib
import dataclasses
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping
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
from spp_jax.runs import files, memory, workers

CHECKPOINTS = "checkpoints"
_PARTS = ("params", "optimizer")
# The most bytes of a file of metadata, and the names of these files; Orbax reads them whole.
MAX_METADATA = 2**26
_METADATA = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding")


@dataclasses.dataclass(frozen=True)
class Meta:
    """The metadata of a checkpoint.

    Attributes:
        step: number of updates made.
        config: of the run.
        class_names: name of each output of the network.
        num_examples: number of training examples; 0 for imported weights.
        metrics: of the last evaluation before the checkpoint was saved.
        versions: {library: version} that saved it.
    """

    step: int
    config: config_lib.Config
    class_names: tuple[str, ...]
    num_examples: int
    metrics: dict[str, Any]
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: _versions())


class Writer:
    """Saves steps of a run in the background, keeps the last `keep`; call `close` at the end."""

    def __init__(self, workdir: str, keep: int):
        self._folder = os.path.join(os.path.abspath(workdir), CHECKPOINTS)
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyright: ignore[reportArgumentType] (their protocol and their class disagree)
            cleanup_tmp_directories=True,
        )
        self._pending: Any = None

    def save(self, meta: Meta, parts: dict[str, Any]) -> None:
        """Starts to save a step; the next `save` or `wait` raises an error that saving meets.

        Args:
            meta: the metadata.
            parts: trees by name, "params", "optimizer" and "constants"; empty trees are left out.

        Raises:
            InputError: this step, or the one before, cannot be written.
        """
        self.wait()
        stored = {f.name: getattr(meta, f.name) for f in dataclasses.fields(meta)}
        stored["config"] = dataclasses.asdict(meta.config)
        stored["class_names"] = list(meta.class_names)
        parts = {name: tree for name, tree in parts.items() if jax.tree.leaves(tree)}
        stored["parts"] = sorted(parts)
        stored["checksums"] = _checksums(parts)
        stored["metadata_crc32"] = _metadata_checksum(stored)
        self._pending = self._write(
            lambda: self._checkpointer.save_checkpointables_async(
                meta.step, parts, force=True, custom_metadata=stored
            )
        )

    def wait(self) -> None:
        """Waits until the last step saved is on disk; raises an error that saving met."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._write(pending.result)

    def _write(self, act: Callable[[], Any]) -> Any:
        try:
            return workers.undisturbed(act)
        # Orbax and TensorStore raise many kinds of exceptions for what a disk refuses.
        except Exception as e:
            raise errors.InputError(
                f"checkpoint in {self._folder} cannot be written: {errors.disk_reason(e)}"
            ) from e

    def close(self) -> None:
        """Waits as `wait`, and frees Orbax's threads and files."""
        try:
            self.wait()
        finally:
            self._write(self._checkpointer.close)  # it raises again what saving met


def save_network(workdir: str, variables: Mapping[str, Any], meta: Meta) -> None:
    """Saves a network without an optimizer, and waits until it is on disk.

    Args:
        workdir: gets the checkpoint.
        variables: of the network, "params" and perhaps "constants".
        meta: the metadata.

    Raises:
        InputError: it cannot be written.
    """
    with contextlib.closing(Writer(workdir, keep=1)) as writer:
        writer.save(meta, dict(variables))


def latest_step_dir(path: str) -> str | None:
    """Returns the newest whole step directory, None if there is none.

    A step is not whole if its process died while it wrote the step.

    Args:
        path: a workdir, its checkpoints directory, or a step directory, which is returned itself.
    """
    root = config_lib.whole_path(path)
    is_root = os.path.basename(root) == CHECKPOINTS
    folder = root if is_root else os.path.join(root, CHECKPOINTS)
    if os.path.isdir(folder):
        # Orbax gives a step its name, a number, when it is whole.
        names = filter(re.compile("0|[1-9][0-9]*").fullmatch, os.listdir(folder))
        steps = [path for d in names if os.path.isdir(path := os.path.join(folder, d))]
        return max(steps, key=lambda path: int(os.path.basename(path)), default=None)
    in_root = os.path.basename(os.path.dirname(root)) == CHECKPOINTS
    is_step = os.path.isdir(os.path.join(root, _PARTS[0])) or (in_root and os.path.isdir(root))
    return root if is_step else None


def read_meta(step_dir: str) -> Meta:
    """Returns the metadata of a step directory.

    Raises:
        InputError: they are damaged, or were not written by this package.
    """
    stored = _read_metadata(step_dir).custom_metadata
    kinds = {"step": int, "config": dict, "class_names": list, "num_examples": int}
    kinds |= {"metrics": dict, "versions": dict}
    # The types themselves: true is an int to isinstance.
    is_right = isinstance(stored, dict) and all(type(stored.get(n)) is k for n, k in kinds.items())
    if not is_right or stored["step"] < 0:
        raise errors.InputError(f"checkpoint {step_dir} is damaged or was not written by spp_jax")
    checksum = stored.get("metadata_crc32")
    names = stored["class_names"]
    is_changed = checksum is not None and checksum != _metadata_checksum(stored)
    if is_changed or not names or not all(isinstance(name, str) for name in names):
        raise _damaged(step_dir, "its metadata were changed")
    if checksum is None:
        files.warn_unchecked(f"checkpoint {step_dir}")
    try:
        config = config_lib.from_dict(config_lib.Config, stored["config"])
        config_lib.validate(config, stored=config)
        network.check(config)
    except (errors.InputError, TypeError, AttributeError) as e:
        raise errors.InputError(f"checkpoint {step_dir} has a config that is wrong: {e}") from e
    return Meta(
        step=stored["step"],
        config=config,
        class_names=tuple(names),
        num_examples=stored["num_examples"],
        metrics=stored["metrics"],
        versions=stored["versions"],
    )


def restore(step_dir: str, *, verify: bool = True, **specs: Any) -> dict[str, Any]:
    """Returns parts of a checkpoint, {name: tree}.

    Args:
        step_dir: the step directory.
        verify: whether to compare each array with its checksum, if the checkpoint has them.
        specs: for each part, as params= or optimizer=, a tree of shapes, dtypes and shardings.

    Raises:
        InputError: the checkpoint is damaged or larger than memory, or a parameter is missing,
            unexpected or of another shape; the sentence names each.
    """
    stored = _read_metadata(step_dir)
    metadata = stored.metadata or {}
    for part, spec in specs.items():
        if metadata.get(part) is None:
            raise _damaged(step_dir, f"its {part} cannot be read")
        _compare(step_dir, part, metadata[part], spec)
    # Files of arrays may hold little of what they claim.
    size = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(specs))
    if size > memory.physical():
        raise errors.InputError(f"checkpoint {step_dir} claims {size:,} bytes, more than memory")
    parts = _read(step_dir, lambda: ocp.load_checkpointables(step_dir, specs))
    checksums = (stored.custom_metadata or {}).get("checksums")
    if verify and checksums:
        wrong = [name for name, crc in _checksums(parts).items() if checksums.get(name) != crc]
        if wrong:
            raise errors.InputError(
                f"checkpoint {step_dir} is damaged: {', '.join(wrong[:3])} "
                f"{'are' if wrong[1:] else 'is'} not as saved"
                + (f", nor are {len(wrong) - 3} others" if wrong[3:] else "")
            )
    return parts


def stored_spec(
    step_dir: str, part: str, layout: jax.sharding.Sharding | None = None
) -> dict[str, Any]:
    """Returns the tree of shapes and dtypes of a part as stored; {} if the checkpoint has none.

    Args:
        step_dir: the step directory.
        part: "params", "optimizer" or "constants".
        layout: the sharding of every leaf.

    Raises:
        InputError: the part was saved and cannot be read.
    """
    metadata = _read_metadata(step_dir)
    stored = (metadata.metadata or {}).get(part) or {}
    if not stored and part in (metadata.custom_metadata or {}).get("parts", ()):
        raise _damaged(step_dir, f"its {part} cannot be read")
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), stored)


def read_constants(step_dir: str) -> dict[str, Any]:
    """Returns the constants of a network, {"mean": array on every device}, or {}."""
    spec = stored_spec(step_dir, "constants", sharding.replicated(sharding.make_local_mesh()))
    return restore(step_dir, constants=spec)["constants"] if spec else {}


def load(
    path: str | os.PathLike[str], *, verify: bool = True
) -> tuple[sppnet.SPPNet, dict, config_lib.Config]:
    """Loads a network from its checkpoint alone, on whatever devices there are.

    Args:
        path: a workdir of train.py or its checkpoints directory, whose newest step is loaded, or
            one step directory.
        verify: whether to compare each parameter with the checksum that was stored with it.

    Returns:
        (model, variables, config): `model.apply(variables, images)` returns logits (N, K) of
        images (N, H, W, 3), RGB, 0 to 255, of any size. The variables, "params" and, with a mean
        image, "constants", are on every local device.

    Raises:
        InputError: there is no checkpoint at `path`, or a damaged one.
    """
    model, variables, meta = load_with_meta(path, verify=verify)
    return model, variables, meta.config


def load_with_meta(
    path: str | os.PathLike[str], *, verify: bool = True
) -> tuple[sppnet.SPPNet, dict, Meta]:
    """Loads a network as `load`, and returns all its metadata in place of the config."""
    step_dir = _find_step_dir(path)
    meta = read_meta(step_dir)
    model = network.make(meta.config.model, len(meta.class_names))
    shapes = sppnet.param_shapes(model)
    whole = sharding.replicated(sharding.make_local_mesh())
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    variables = restore(step_dir, verify=verify, params=spec)
    constants = read_constants(step_dir)
    return model, variables | ({"constants": constants} if constants else {}), meta


def class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the name of each output of a network: `logits[:, k]` is of class `class_names[k]`.

    Args:
        path: of its checkpoint, as for `load`.

    Raises:
        InputError: there is no checkpoint at `path`, or a damaged one.
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


def checksum(variables: Mapping[str, Any]) -> int:
    """Returns a CRC-32 of all numbers of a network; equal networks have equal ones."""
    total = 0
    for leaf in jax.tree.leaves(variables):
        total = _crc32(leaf, total)
    return total


def _crc32(array: Any, start: int = 0) -> int:
    values: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(values, start)


def _checksums(parts: dict[str, Any]) -> dict[str, int]:
    """Returns {"PART/NAME": CRC-32} of every array that this process can read."""
    leaves = {
        name: leaf
        for name, leaf in named_leaves(parts)
        if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated
    }
    # zlib lets other threads run.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(leaves, pool.map(_crc32, leaves.values())))


def _metadata_checksum(stored: dict[str, Any]) -> int:
    """Returns a CRC-32 of metadata as JSON stores them, without their own."""
    others = {name: value for name, value in stored.items() if name != "metadata_crc32"}
    return files.checksum(others)


def _read_metadata(step_dir: str) -> Any:
    try:
        files.check_below(step_dir, dict.fromkeys(_METADATA, MAX_METADATA))
    except OSError as e:
        raise _damaged(step_dir, f"{e.filename}: {e.strerror}") from e
    return _read(step_dir, lambda: ocp.checkpointables_metadata(step_dir))


def _read(step_dir: str, read: Callable[[], Any]) -> Any:
    try:
        return workers.undisturbed(read)
    # Orbax and TensorStore raise many kinds of exceptions for damage, and tracebacks for Ctrl-C.
    except Exception as e:
        raise _damaged(step_dir, errors.first_line(e)[:200]) from e


def _damaged(step_dir: str, reason: str) -> errors.InputError:
    return errors.InputError(f"checkpoint {step_dir} is damaged: {reason}")


def _compare(step_dir: str, part: str, stored: Any, spec: Any) -> None:
    """Raises InputError, which names each difference, if a stored part does not fit its spec."""
    # Orbax's own errors name no parameter, and it accepts some wrong trees.
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
    """Returns {name of a leaf: its dtype and shape in words}."""
    return {name: f"{np.dtype(x.dtype)}{x.shape}" for name, x in named_leaves(tree)}


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Returns (name, leaf) of every leaf of a tree, as ("head/fc6/kernel", array), in order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in leaves]


def _versions() -> dict[str, str]:
    return {
        "spp_jax": spp_jax.__version__,
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
    }
