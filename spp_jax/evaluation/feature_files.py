"""Files of features: made bit by bit beside their place, and put there whole.

While it is being made, OUTPUT.part holds the features so far, which of them are done, and in
`state.json` what they are of and which images were refused.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spp_jax import errors
from spp_jax.runs import archives, files, lock

# Facts that stand for something by a checksum.
_SUMS = {"parameters_crc32": "parameters", "images_sha256": "images"}

_EXAMPLES = ("paths", "labels", "class_names", "indices", "output_names")

_DONE = 2**32
_ROWS_AT_ONCE = 1024

# Seconds of work that a killed process may lose.
_SAVE_EVERY = 10.0


@dataclasses.dataclass(frozen=True)
class Extracted:
    """What a finished file holds, its rows in the source's order.

    Attributes:
        features: (N, D), mapped from the file where that is a .npy.
        indices: of the rows in the source; refused images have none.
        refused: a sentence for each image that could not be read.
        metadata: what is stored with them: `facts` (layers, view, checksums of parameters and
            images ...), columns (of each layer), num_programs, padded_share, refused.
    """

    features: np.ndarray
    indices: np.ndarray
    refused: tuple[str, ...]
    metadata: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Description:
    """What is stored beside the features, and belongs to them.

    Attributes:
        examples: {index in the source: (path, label)} of the images whose header can be read.
        class_names: of the labels.
        output_names: of the columns of logits, the network's classes; () without logits.
        columns: (layer, first column, the one after its last) of each part.
    """

    examples: dict[int, tuple[str, int]]
    class_names: tuple[str, ...]
    output_names: tuple[str, ...] = ()
    columns: tuple[tuple[str, int, int], ...] = ()

    def of(self, indices: Sequence[int]) -> dict[str, Any]:
        """Returns what is stored with the rows of these images."""
        return {
            "paths": [self.examples[i][0] for i in indices],
            "labels": [self.examples[i][1] for i in indices],
            "class_names": list(self.class_names),
            "indices": list(indices),
            **({"output_names": list(self.output_names)} if self.output_names else {}),
        }


@contextlib.contextmanager
def unfinished(
    output: str, facts: dict[str, Any], description: Description, num_features: int
) -> Iterator["Unfinished"]:
    """Opens the unfinished file of an output, for this process alone.

    Args:
        output: the file to be.
        facts: what the features are of.
        description: what is stored beside them.
        num_features: D.

    Raises:
        InputError: OUTPUT.part is damaged, of something else, or in use.
        OSError: there is no space for the features.
    """
    _read_state(output + ".part", facts)  # nothing is written into what is something else
    with lock.hold(output + ".part"):
        yield Unfinished(output, facts, description, num_features)


class Unfinished:
    """The unfinished file; as a context it saves the features so far, whatever ends the work.

    Attributes:
        folder: OUTPUT.part.
    """

    def __init__(
        self, output: str, facts: dict[str, Any], description: Description, num_features: int
    ):
        self._output, self._facts, self.folder = output, facts, output + ".part"
        self._description = description
        indices = list(description.examples)
        self._row = {index: row for row, index in enumerate(indices)}
        self._refused: dict[int, str] = {}
        # Of each row 0 while it is not done, then 2**32 and its CRC-32.
        self._done = np.zeros(len(indices), np.uint64)
        state = _read_state(self.folder, facts)
        if state:
            try:
                self._refused = {int(k): str(v) for k, v in state["refused"].items()}
                files.open_regular(self._path("features.npy"), links=False).close()
                self._array = np.lib.format.open_memmap(self._path("features.npy"), mode="r+")
                shape = (len(indices), num_features)
                if (self._array.shape, self._array.dtype) != (shape, np.dtype(facts["dtype"])):
                    raise ValueError(f"features of {self._array.shape}")
                self._done = self._read_done()
            # numpy answers damaged headers with many kinds of exceptions.
            except Exception as e:
                raise errors.InputError(f"{self.folder} is damaged; remove it") from e
        else:
            shape = (len(indices), num_features)
            self._array = _new_memmap(self._path("features.npy"), facts["dtype"], shape)
            self._save()
        self._last_saved = time.monotonic()

    @property
    def num_done(self) -> int:
        return int(np.count_nonzero(self._done))

    def done(self) -> set[int]:
        """Returns the images whose features are there."""
        return {index for index, row in self._row.items() if self._done[row]}

    def take(self, other: "Unfinished") -> None:
        """Takes what is there of another unfinished file, of some of the same images."""
        rows = self._rows(list(other._row))
        is_done = other._done > 0
        for row, source in zip(np.asarray(rows)[is_done], np.flatnonzero(is_done)):
            self._array[row], self._done[row] = other._array[source], other._done[source]
        self._refused.update(other._refused)
        self._save()

    def _read_done(self) -> np.ndarray:
        """Returns which rows are done, as `_done`; one that is not as saved is computed again.

        Such a row was written after the last save, as part of another batch, or damaged.
        """
        with files.open_regular(self._path("done.npy")) as f:
            done = archives.read_npy(f, os.fstat(f.fileno()).st_size)
        if done.shape != self._done.shape or done.dtype not in (bool, np.uint64):
            raise ValueError(f"{done.shape} rows")
        is_old = done.dtype == bool
        if is_old:
            files.warn_unchecked(self._path("done.npy"))
        checked = np.zeros(len(done), np.uint64)
        for row in np.flatnonzero(done).tolist():
            value = _DONE + zlib.crc32(self._array[row])
            checked[row] = value if is_old or int(done[row]) == value else 0
        return checked

    def _rows(self, indices: Sequence[int]) -> list[int]:
        return [self._row[index] for index in indices]

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def __enter__(self) -> "Unfinished":
        return self

    def __exit__(self, *_: object) -> None:
        self._save()

    def note(self, index: int, refused: str) -> None:
        """Notes why an image cannot be read; "" if it can."""
        self._refused.pop(index, None)
        if refused:
            self._refused[index] = refused

    def write(self, indices: Sequence[int], values: np.ndarray) -> None:
        """Stores the features of the next batch."""
        with np.errstate(over="ignore"):
            stored = values.astype(self._array.dtype)
        if self._array.dtype == np.float16 and not np.all(np.isfinite(stored)):
            raise errors.InputError(
                f"features up to {np.max(np.abs(values)):g} do not fit float16; use float32, or "
                "normalise them"
            )
        self._array[self._rows(indices)] = stored
        self._done[self._rows(indices)] = [_DONE + zlib.crc32(row) for row in stored]
        if time.monotonic() - self._last_saved > _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        self._array.flush()
        # What is done goes last: before it the features and refusals must be there.
        state = {"facts": self._facts, "refused": self._refused}
        files.write_checked(self._path("state.json"), state)
        with files.replacing(self._path("done.npy")) as f:
            np.save(f, self._done)
        self._last_saved = time.monotonic()

    def finish(self, refused_heads: list[str], plan: dict[str, Any]) -> Extracted:
        """Puts the finished file in its place and returns what it holds."""
        kept = [index for index in self._row if index not in self._refused]
        refused = [*refused_heads, *(self._refused[i] for i in sorted(self._refused))]
        if not kept:
            shutil.rmtree(self.folder)
            raise errors.InputError(f"none of {len(refused)} images can be read: {refused[0]}")
        examples = self._description.of(kept)
        metadata = {
            "facts": self._facts,
            "columns": [list(part) for part in self._description.columns],
            **plan,
            "refused": refused,
        }
        whole = self._array
        if self._refused:
            # Mapped, so that a set larger than memory can lose a row as well.
            path = self._path("kept.npy")
            whole = _new_memmap(path, whole.dtype, (len(kept), whole.shape[1]))
            for row, index in enumerate(kept):
                whole[row] = self._array[self._row[index]]
            whole.flush()
        if self._output.endswith(".npz"):
            with files.replacing(self._output) as f:
                np.savez(f, features=whole, metadata=json.dumps(metadata), **examples)
        else:
            metadata["features_crc32"] = _checksum(whole)
            files.write_checked(self._output + ".json", {**examples, "metadata": metadata})
            os.replace(str(whole.filename), self._output)
        shutil.rmtree(self.folder)
        return _read(self._output)


def _read_state(folder: str, facts: dict[str, Any]) -> dict[str, Any] | None:
    if not os.path.exists(os.path.join(folder, "done.npy")):
        names = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        others = {
            f
            for f in names
            # Versions before kept labels.npy as well.
            if not f.startswith(("features.npy", "labels.npy", "new.npy", "state.", "lock."))
        }
        if others or os.path.isfile(folder):
            raise errors.InputError(
                f"{folder}, where the unfinished file goes, is there and holds something "
                "else; change the output"
            )
        return None
    try:
        state = files.read_checked(os.path.join(folder, "state.json"))
        stored = state["facts"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise errors.InputError(f"{folder} is damaged; remove it") from e
    if stored != facts:
        raise errors.InputError(
            f"{folder} holds the beginning of something else "
            f"({_difference(stored, facts)}); remove it or change the output"
        )
    return state


def read_finished(output: str, facts: dict[str, Any], description: Description) -> Extracted | None:
    """Returns the output if it is there and of this; raises InputError if it is something else.

    Paths may begin otherwise than those described, as the folder may have been moved.
    """
    if not os.path.exists(output):
        return None
    try:
        finished = _read(output)
        stored = finished.metadata["facts"]
        checksum = finished.metadata.get("features_crc32")
        if checksum is not None and checksum != _checksum(finished.features):
            raise ValueError("its features are not as saved")
        examples = _read_examples(output)
    # numpy, zipfile and json answer damage, and files of others, with many kinds of exceptions.
    except Exception as e:
        raise errors.InputError(
            f"{output} is there and is damaged, or is not of this package "
            f"({errors.first_line(e)[:200]}); remove it or change the output"
        ) from e
    if stored != facts:
        raise errors.InputError(
            f"{output} is there and holds something else ({_difference(stored, facts)}); remove "
            "it or change the output"
        )
    changed = _other_examples(examples, description)
    if changed:
        raise errors.InputError(
            f"{output} is there and holds the same images otherwise described ({changed}); remove "
            "it or change the output"
        )
    shutil.rmtree(output + ".part", ignore_errors=True)  # of a run killed when it had finished
    return finished


def _read(output: str) -> Extracted:
    if output.endswith(".npz"):
        arrays = archives.read_npz(output, ("features", "indices", "metadata"))
        array, indices = arrays["features"], arrays["indices"]
        metadata = files.parse_json(str(arrays["metadata"]))
    else:
        files.open_regular(output).close()  # numpy would wait for a pipe
        array = np.load(output, mmap_mode="r")
        beside = files.read_checked(output + ".json")
        indices, metadata = np.asarray(beside["indices"]), beside["metadata"]
    return Extracted(array, indices, tuple(metadata["refused"]), metadata)


def _read_examples(output: str) -> dict[str, Any]:
    if not output.endswith(".npz"):
        entries = files.read_json(output + ".json")
        return {name: entries[name] for name in _EXAMPLES if name in entries}
    return {name: array.tolist() for name, array in archives.read_npz(output, _EXAMPLES).items()}


def _other_examples(stored: dict[str, Any], description: Description) -> str:
    """Returns in which way what is stored with features differs from what is described, or ""."""
    if not set(stored["indices"]) <= set(description.examples):
        return "images that cannot be read have come or gone"
    now = description.of(stored["indices"])
    old_names, new_names = (_below_common(each["paths"]) for each in (stored, now))
    for old, new in zip(old_names, new_names):
        if old != new:
            return f"an image was {errors.printable(old)} and is {errors.printable(new)}"
    for name, old, new in zip(new_names, stored["labels"], now["labels"]):
        label_names = [
            repr(names[k]) if 0 <= k < len(names) else "none"
            for k, names in ((old, stored["class_names"]), (new, now["class_names"]))
        ]
        if label_names[0] != label_names[1]:
            shown = errors.printable(name)
            return f"the class of {shown} was {label_names[0]} and is {label_names[1]}"
    if stored["class_names"] != now["class_names"]:
        return "there are other class folders"
    # Not every file of logits has them: versions before stored none.
    names = [each["output_names"] for each in (stored, now) if "output_names" in each]
    return "the network's classes have other names" if names and names[0] != names[-1] else ""


def _checksum(features: np.ndarray) -> int:
    """Returns a CRC-32 of features, (N, D), which may be mapped from a file."""
    total = 0
    for row in range(0, len(features), _ROWS_AT_ONCE):
        rows = np.ascontiguousarray(features[row : row + _ROWS_AT_ONCE])
        total = zlib.crc32(rows.data, total)
    return total


def _below_common(paths: Sequence[str]) -> list[str]:
    """Returns the paths without the folders that all of them begin with."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [path.removeprefix(common).lstrip(os.sep) for path in paths]


def _new_memmap(path: str, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Returns a new array in a file; raises OSError if the disk has no space for all of it."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)  # also a link, which would be followed
    form = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    try:
        with open(path, "xb", buffering=0) as f:
            np.lib.format.write_array_header_1_0(f, form)
            # A map of a file with holes ends the process (SIGBUS) where the disk has no space left.
            num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            os.posix_fallocate(f.fileno(), 0, f.tell() + num_bytes)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(path)
        raise
    return np.lib.format.open_memmap(path, mode="r+")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    name = next((k for k in new if old.get(k) != new[k]), "version")
    if name in _SUMS:
        return f"other {_SUMS[name]}"
    return f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
