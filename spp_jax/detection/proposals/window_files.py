"""Reads windows that other programs computed: R-CNN's .mat files, and plain .npz and .json.

The windows returned are always (R, 4) float32 x1, y1, x2, y2 pixels, right and bottom exclusive.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import numpy as np

from spp_jax import errors
from spp_jax.data.sources import image_sets
from spp_jax.detection.proposals import mat_reader
from spp_jax.runs import archives, files, memory

# The readers raise these for damaged files.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError)
# Seconds after which a .mat file counts as one that never ends; VOC 2007's takes some 20.
MAX_SECONDS = 900


def read(path: str) -> dict[str, np.ndarray]:
    """Returns {image id: windows} of a file, or of a folder with one .mat file per image.

    - FILE.mat as R-CNN's selective_search_data: cells `images` and `boxes`, rows y1, x1, y2, x2,
      counted from 1, both corners inclusive.
    - FOLDER of ID.mat or ID_boxes.mat: `boxes`, rows x1, y1, x2, y2, counted from 0, both corners
      inclusive.
    - FILE.npz: one array per id; FILE.json: {id: rows}. Rows x1, y1, x2, y2, counted from 0, right
      and bottom exclusive.

    Raises:
        InputError: `path` is missing, damaged or of another kind, or has rows that are no windows.
    """
    if os.path.isdir(path):
        return _read_folder(path)
    if not os.path.exists(path):
        raise errors.InputError(f"config.proposals.path={path}: no such file or folder")
    kind = os.path.splitext(path)[1].lower()
    try:
        if kind == ".npz":
            arrays = archives.read_npz(path)
            return {name: check_windows(rows, f"{path}: {name}") for name, rows in arrays.items()}
        if kind == ".json":
            # Of one byte of rows Python makes eight or more.
            entries = files.parse_json(files.read_text(path, memory.physical() // 8))
            if not isinstance(entries, dict):
                raise errors.InputError(
                    f"{path} cannot be read as windows: it holds no {{id: rows}}"
                )
            return {name: check_windows(rows, f"{path}: {name}") for name, rows in entries.items()}
        if kind == ".mat":
            return _read_cells(path)
    except errors.InputError:
        raise
    except _DAMAGE as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise errors.InputError(f"{path} cannot be read as windows: {reason}") from e
    raise errors.InputError(
        f"config.proposals.path={path} is neither .mat, .npz, .json nor a folder of .mat files"
    )


def check_windows(rows: Any, name: str) -> np.ndarray:
    """Returns rows as windows, (R, 4) float32.

    Args:
        rows: a sequence of R rows of 4 numbers.
        name: what an error calls them.

    Raises:
        InputError: they are no rows of 4 finite numbers, or a window has no width or height.
    """
    try:
        windows = np.asarray(rows, np.float32) if len(rows) else np.zeros((0, 4))
        if windows.shape[-1:] != (4,):  # else rows of 6 or 8 numbers would become other rows of 4
            raise ValueError(f"{windows.shape}")
        windows = windows.reshape(-1, 4)
    except (ValueError, TypeError, OverflowError) as e:
        raise errors.InputError(f"{name}: windows must be rows of 4 numbers") from e
    bad = ~(np.isfinite(windows).all(axis=1) & (windows[:, 2:] > windows[:, :2]).all(axis=1))
    if bad.any():
        first = ", ".join(f"{value:g}" for value in windows[bad][0])
        raise errors.InputError(f"{name}: window ({first}) is empty or no number")
    return windows.astype(np.float32)


def by_image(
    windows: Mapping[str, np.ndarray], image_ids: Collection[str], path: str
) -> dict[str, np.ndarray]:
    """Returns {image id: windows} of those images that have windows.

    A file may name an image in any way that `image_sets.match` understands, such as ID.jpg or
    JPEGImages/ID.jpg.

    Args:
        windows: {name of an image in the file: its windows}.
        image_ids: the images wanted; windows of other images are left out.
        path: of the file.

    Raises:
        InputError: the file has windows of one image under two names.
    """
    wanted, names = frozenset(image_ids), {}
    for name in windows:
        image_id = image_sets.match(name, wanted)
        if image_id is not None and names.setdefault(image_id, name) != name:
            raise errors.InputError(
                f"config.proposals.path={path} has windows of image {image_id} twice: as "
                f"{names[image_id]} and as {name}"
            )
    return {image_id: windows[name] for image_id, name in names.items()}


def check_ids(windows: Mapping[str, np.ndarray], image_ids: Iterable[str], path: str) -> None:
    """Raises InputError, which names the first, if an image has no entry in {id: windows}."""
    missing = [i for i in image_ids if i not in windows]
    if missing:
        raise errors.InputError(
            f"config.proposals.path={path} has no windows of image {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )


def _read_cells(path: str) -> dict[str, np.ndarray]:
    # From y1, x1, y2, x2, counted from 1, both corners inclusive, as R-CNN writes them.
    return {
        image_id: check_windows(rows[:, [1, 0, 3, 2]] - [1, 1, 0, 0], f"{path}: {image_id}")
        for _, image_id, rows in _read_mats([path], "cells")
    }


def _read_folder(path: str) -> dict[str, np.ndarray]:
    names = sorted(f for f in os.listdir(path) if f.lower().endswith(".mat"))
    if not names:
        raise errors.InputError(f"config.proposals.path={path} holds no .mat file")
    windows = {}
    for file, _, rows in _read_mats([os.path.join(path, name) for name in names], "boxes"):
        image_id = os.path.basename(file)[: -len(".mat")].removesuffix("_boxes")
        if image_id in windows:
            raise errors.InputError(f"config.proposals.path={path} has two files of {image_id}")
        windows[image_id] = check_windows(rows - [0, 0, -1, -1], file)
    return windows


def _read_mats(paths: Sequence[str], kind: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields (path, image id, (R, 4) rows) of .mat files, read by one `mat_reader` process.

    Raises:
        InputError: a file cannot be read, or it ended the process, or takes longer than
            MAX_SECONDS.
    """
    limit = memory.physical() // 2
    command = [sys.executable, "-P", mat_reader.__file__, kind, str(limit)]
    # So that the child finds the same libraries; of whose threads each would want memory.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    env["OPENBLAS_NUM_THREADS"] = "1"
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as log:
        names.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
        names.seek(0)
        child = subprocess.Popen(command, stdin=names, stdout=subprocess.PIPE, stderr=log, env=env)
        output, path = cast(IO[bytes], child.stdout), ""
        late = threading.Event()
        try:
            for path in paths:
                _check_file(path, limit)
                with _ending(child, late):
                    for image_id, rows in _read_records(output, path):
                        yield path, image_id, rows
        except EOFError:
            reason = _why(child.wait(), log)
            if late.is_set():
                reason = f"it was not read within {MAX_SECONDS:g} seconds"
            raise errors.InputError(f"{path} cannot be read as windows: {reason}") from None
        finally:
            child.kill()
            output.close()
            child.wait()


def _check_file(path: str, limit: int) -> None:
    """Raises InputError for a file that must not be given to the child, or which is too large."""
    try:
        with files.open_regular(path) as f:
            size = os.fstat(f.fileno()).st_size
    except OSError as e:
        raise errors.InputError(f"{path} cannot be read as windows: {e.strerror}") from e
    if size > limit:
        raise errors.InputError(
            f"{path} cannot be read as windows: it has {size:,} bytes, more than the limit of "
            f"{limit:,}, half of this machine's memory"
        )


@contextlib.contextmanager
def _ending(child: subprocess.Popen, late: threading.Event) -> Iterator[None]:
    """Ends the child and sets `late` when the block takes longer than MAX_SECONDS."""

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(MAX_SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _why(code: int, log: IO[bytes]) -> str:
    """Returns why the child ended too early, by its exit code and what it wrote to `log`."""
    if code < 0:
        return (
            "it is damaged, or too large for the memory: the process that was to read it ended by "
            f"{signal.Signals(-code).name}"
        )
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"the process that was to read it failed: {lines[-1] if lines else code}"


def _read_records(file: IO[bytes], path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (image id, rows) of one file from the output of `mat_reader`.

    Raises:
        InputError: the output says that the file cannot be read.
        EOFError: the output ends before the file's last line.
    """
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
