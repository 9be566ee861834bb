"""Windows that others computed: R-CNN's .mat files, and plain .npz and .json.

What is returned is always (R, 4) float32 x1, y1, x2, y2 pixels, right and bottom exclusive.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.io.matlab

from spp_jax import errors

# What damaged files make the readers raise.
_DAMAGE = (
    *(OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, EOFError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error, scipy.io.matlab.MatReadError),
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
    kind = os.path.splitext(path)[1].lower()
    try:
        if kind == ".npz":
            with np.load(path) as found:
                return {name: check_windows(found[name], f"{path}: {name}") for name in found}
        if kind == ".json":
            with open(path, encoding="utf-8") as f:
                found = json.load(f)
            return {name: check_windows(rows, f"{path}: {name}") for name, rows in found.items()}
        if kind == ".mat":
            return _read_cells(path)
    except errors.InputError:
        raise
    except FileNotFoundError as e:
        raise errors.InputError(f"config.proposals.path={path}: no such file or folder") from e
    except _DAMAGE as e:
        raise errors.InputError(f"{path} cannot be read as windows: {e}") from e
    raise errors.InputError(
        f"config.proposals.path={path} is neither .mat, .npz, .json nor a folder of .mat files"
    )


def check_windows(rows: Any, name: str) -> np.ndarray:
    """Returns rows as (R, 4) float32; raises InputError if they are no windows."""
    try:
        windows = np.asarray(rows, np.float32).reshape(-1, 4) if len(rows) else np.zeros((0, 4))
    except (ValueError, TypeError) as e:
        raise errors.InputError(f"{name}: windows must be rows of 4 numbers") from e
    bad = ~(np.isfinite(windows).all(axis=1) & (windows[:, 2:] > windows[:, :2]).all(axis=1))
    if bad.any():
        shown = ", ".join(f"{value:g}" for value in windows[bad][0])
        raise errors.InputError(f"{name}: window ({shown}) is empty or no number")
    return windows.astype(np.float32)


def check_ids(found: Mapping[str, np.ndarray], image_ids: Iterable[str], path: str) -> None:
    """Raises InputError, naming the first, if there are images without windows."""
    missing = [i for i in image_ids if i not in found]
    if missing:
        raise errors.InputError(
            f"config.proposals.path={path} has no windows of image {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )


def _read_cells(path: str) -> dict[str, np.ndarray]:
    found = scipy.io.loadmat(path)
    ids = [str(np.ravel(cell)[0]) for cell in np.ravel(found["images"])]
    windows = {}
    for image_id, rows in zip(ids, np.ravel(found["boxes"])):
        rows = np.asarray(rows, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
        windows[image_id] = check_windows(rows - np.asarray([1, 1, 0, 0]), f"{path}: {image_id}")
    return windows


def _read_folder(path: str) -> dict[str, np.ndarray]:
    found = {}
    for file in sorted(f for f in os.listdir(path) if f.endswith(".mat")):
        own = os.path.join(path, file)
        try:
            rows = np.asarray(scipy.io.loadmat(own)["boxes"], np.float64).reshape(-1, 4)
        except _DAMAGE as e:
            raise errors.InputError(f"{own} cannot be read as windows: {e}") from e
        image_id = file.removesuffix(".mat").removesuffix("_boxes")
        found[image_id] = check_windows(rows + np.asarray([0, 0, 1, 1]), own)
    if not found:
        raise errors.InputError(f"config.proposals.path={path} holds no .mat file")
    return found
