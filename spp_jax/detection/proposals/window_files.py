"""Windows that others computed: R-CNN's .mat files, and plain .npz and .json.

What is returned is always (R, 4) float32 x1, y1, x2, y2 pixels, right and bottom exclusive.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import numpy as np

from spp_jax import errors
from spp_jax.data.sources import image_sets
from spp_jax.detection.proposals import mat_reader
from spp_jax.runs import files

# What damaged files make the readers raise.
_DAMAGE = (
    *(OSError, ValueError, KeyError, AttributeError, TypeError, EOFError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error),
)


def read(path: str) -> dict[str, np.ndarray]:
    """Returns {image id: windows} of a file, or of a folder with a .mat file for each image.

    - FILE.mat as R-CNN's selective_search_data: cells `images` and `boxes`, rows y1, x1, y2, x2,
      counted from 1, both corners inclusive.
    - FOLDER of ID.mat or ID_boxes.mat: `boxes`, rows x1, y1, x2, y2, counted from 0, both corners
      inclusive.
    - FILE.npz: an array for each id; FILE.json: {id: rows}. Rows x1, y1, x2, y2, right and bottom
      exclusive, as everywhere here.

    Raises:
        InputError: it is missing, damaged or of another kind.
    """
    if os.path.isdir(path):
        return _read_folder(path)
    if not os.path.exists(path):
        raise errors.InputError(f"config.proposals.path={path}: no such file or folder")
    kind = os.path.splitext(path)[1].lower()
    try:
        if kind == ".npz":
            with np.load(path) as found:
                return {name: check_windows(found[name], f"{path}: {name}") for name in found}
        if kind == ".json":
            found = json.loads(files.read_text(path))
            if not isinstance(found, dict):
                raise errors.InputError(
                    f"{path} cannot be read as windows: it holds no {{id: rows}}"
                )
            return {name: check_windows(rows, f"{path}: {name}") for name, rows in found.items()}
        if kind == ".mat":
            return _read_cells(path)
    except errors.InputError:
        raise
    except _DAMAGE as e:
        raise errors.InputError(f"{path} cannot be read as windows: {e}") from e
    raise errors.InputError(
        f"config.proposals.path={path} is neither .mat, .npz, .json nor a folder of .mat files"
    )


def check_windows(rows: Any, name: str) -> np.ndarray:
    """Returns rows as (R, 4) float32; raises InputError if they are no windows."""
    try:
        windows = np.asarray(rows, np.float32) if len(rows) else np.zeros((0, 4))
        if windows.shape[-1] != 4:  # as many numbers may make whole rows of 4, but of others
            raise ValueError(f"{windows.shape}")
        windows = windows.reshape(-1, 4)
    except (ValueError, TypeError) as e:
        raise errors.InputError(f"{name}: windows must be rows of 4 numbers") from e
    bad = ~(np.isfinite(windows).all(axis=1) & (windows[:, 2:] > windows[:, :2]).all(axis=1))
    if bad.any():
        shown = ", ".join(f"{value:g}" for value in windows[bad][0])
        raise errors.InputError(f"{name}: window ({shown}) is empty or no number")
    return windows.astype(np.float32)


def by_image(
    found: Mapping[str, np.ndarray], image_ids: Collection[str], path: str
) -> dict[str, np.ndarray]:
    """Returns {image id: windows} of the images that there are windows of.

    A file may call an image as `image_sets.match` understands it: ID.jpg, JPEGImages/ID.jpg.

    Args:
        found: {what a file calls an image: windows}.
        image_ids: of the images wanted; windows of others are left out.
        path: of the file.

    Raises:
        InputError: the file calls an image two ways.
    """
    known, names = frozenset(image_ids), {}
    for name in found:
        image_id = image_sets.match(name, known)
        if image_id is not None and names.setdefault(image_id, name) != name:
            raise errors.InputError(
                f"config.proposals.path={path} has windows of image {image_id} twice: as "
                f"{names[image_id]} and as {name}"
            )
    return {image_id: found[name] for image_id, name in names.items()}


def check_ids(found: Mapping[str, np.ndarray], image_ids: Iterable[str], path: str) -> None:
    """Raises InputError, naming the first, if there are images without windows."""
    missing = [i for i in image_ids if i not in found]
    if missing:
        raise errors.InputError(
            f"config.proposals.path={path} has no windows of image {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )


def _read_cells(path: str) -> dict[str, np.ndarray]:
    # R-CNN's y1, x1, y2, x2, counted from 1, both corners inclusive.
    return {
        image_id: check_windows(rows[:, [1, 0, 3, 2]] - [1, 1, 0, 0], f"{path}: {image_id}")
        for _, image_id, rows in _read_mats([path], "cells")
    }


def _read_folder(path: str) -> dict[str, np.ndarray]:
    names = sorted(f for f in os.listdir(path) if f.lower().endswith(".mat"))
    if not names:
        raise errors.InputError(f"config.proposals.path={path} holds no .mat file")
    windows = {}
    for own, _, rows in _read_mats([os.path.join(path, name) for name in names], "boxes"):
        image_id = os.path.basename(own)[: -len(".mat")].removesuffix("_boxes")
        if image_id in windows:
            raise errors.InputError(f"config.proposals.path={path} has two files of {image_id}")
        windows[image_id] = check_windows(rows - [0, 0, -1, -1], own)
    return windows


def _read_mats(paths: Sequence[str], kind: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields (path, image id, (R, 4) rows), read by one process as `mat_reader` says.

    Raises:
        InputError: a file cannot be read, or it ended the process.
    """
    command = [sys.executable, "-P", mat_reader.__file__, kind]
    # Where this process finds its libraries, that one does.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    given = b"".join(os.fsencode(path) + b"\0" for path in paths)
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        asked.write(given)
        asked.seek(0)
        child = subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE, stderr=said, env=env)
        output, path = cast(IO[bytes], child.stdout), ""
        try:
            for path in paths:
                for image_id, rows in _read_records(output, path):
                    yield path, image_id, rows
        except EOFError:
            code = child.wait()
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = f"the process that was to read it failed: {lines[-1] if lines else code}"
            if code < 0:
                reason = (
                    f"it is damaged, or too large for the memory: the process that was to read it "
                    f"ended by {signal.Signals(-code).name}"
                )
            raise errors.InputError(f"{path} cannot be read as windows: {reason}") from None
        finally:
            child.kill()
            output.close()
            child.wait()


def _read_records(file: IO[bytes], path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields what `mat_reader` writes of a file; raises EOFError where it does not end."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            break
        head = json.loads(line)
        if head.get("end"):
            raise errors.InputError(f"{path} cannot be read as windows: {head['end']}")
        if "end" in head:
            return
        size = head["count"] * 4 * 8
        data = file.read(size)
        if len(data) < size:
            break
        yield head["id"], np.frombuffer(data, np.float64).reshape(-1, 4)
    raise EOFError
