"""Mutated .mat files of windows, read by the child process that `window_files` starts.

One child reads all files of a case, as it does those of a folder; where a file ends the child, the
next one goes on after it. The first file of a case is also read by `window_files` itself.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import scipy.io

from spp_jax import errors
from spp_jax.detection.proposals import mat_reader, window_files
from spp_jax.runs import memory
from tests.faults import mutations
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_FAULTS = 500  # of a case
_SECONDS = 60.0  # of a child


@functools.cache
def _files(kind: str) -> list[bytes]:
    """Returns whole files of many images, "cells", or of one image each, "boxes"."""
    rows = np.array([[1.0, 2, 30, 40], [5, 6, 70, 80]])
    cells = np.empty((1, 3), object)
    cells[0, :] = [rows, rows[:1], rows[[1, 0, 1]]]
    images = np.array([["000001", "000002", "a b"]], object)
    cell_variables = {"images": images, "boxes": cells}
    whole = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.mat")
        for compress in (False, True):
            for form in ("5", "4") if kind == "boxes" else ("5",):
                variables = cell_variables if kind == "cells" else {"boxes": rows}
                compressed = compress and form == "5"
                scipy.io.savemat(path, variables, format=form, do_compression=compressed)
                whole.append(pathlib.Path(path).read_bytes())
    return whole


def _read_all(paths: list[str], kind: str) -> int:
    """Reads files one after another; returns how many of them ended a child."""
    ended = 0
    while paths:
        command = [sys.executable, "-P", mat_reader.__file__, kind, str(memory.physical() // 2)]
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as output:
            child = subprocess.run(
                command,
                input=b"".join(os.fsencode(path) + b"\0" for path in paths),
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=env,
                check=False,
                timeout=_SECONDS,
            )
            output.seek(0)
            for done, path in enumerate(paths):
                try:
                    _check(window_files._read_records(output, path), path, kind)
                except EOFError:
                    if not child.returncode:
                        raise Broken("output", f"{path}: its end is missing") from None
                    ended += 1
                    paths = paths[done + 1 :]
                    break
            else:
                return ended
    return ended


def _check(records: object, path: str, kind: str) -> None:
    """Takes in the records of a file as `window_files` does."""
    order, shift = (
        ([1, 0, 3, 2], [1, 1, 0, 0]) if kind == "cells" else ([0, 1, 2, 3], [0, 0, -1, -1])
    )
    try:
        for image_id, rows in records:  # pyright: ignore[reportGeneralTypeIssues]
            windows = window_files.check_windows(rows[:, order] - shift, f"{path}: {image_id}")
            if windows.dtype != np.float32 or not np.isfinite(windows).all():
                raise Broken("value", f"{path}: {windows}")
    except errors.InputError as e:
        if "\n" in str(e) or path not in str(e):
            raise Broken("sentence", repr(str(e))) from e


def _case(kind: str, place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    del place
    whole, paths = _files(kind), []
    for number in range(_FAULTS):
        data = mutations.mutate(whole[int(rng.integers(len(whole)))], rng)
        path = folder / f"{number}.mat"
        path.write_bytes(data)
        paths.append(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = _read_all(paths, kind)
        try:
            window_files.read(paths[0] if kind == "cells" else str(folder))
        except errors.InputError as e:
            if "\n" in str(e) or str(folder) not in str(e):
                raise Broken("sentence", repr(str(e))) from e
    return "read or refused" if not ended else "read, refused, or a child process ended"


def campaigns() -> list[Campaign]:
    """Returns mutations of .mat files of both kinds."""
    return [
        Campaign(
            f"readers-mat-{kind}",
            f"windows in .mat of {what} mutated",
            "windows, or refused in one line that names the file",
            functools.partial(_case, kind),
            10,
            0,
            faults=_FAULTS,
        )
        for kind, what in (("cells", "many images"), ("boxes", "one image"))
    ]
