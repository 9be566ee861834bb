"""Which scale a window is looked at on, and which cells of that scale's map it covers (PAPER 3.2).

Shapes: R windows · S scales · U distinct windows. Windows are (x1, y1, x2, y2) pixels of the
original image, right and bottom exclusive; scales are lengths of its shorter side, increasing.
"""

from typing import NamedTuple

import numpy as np

from spp_jax.canvas import arithmetic
from spp_jax.detection import boxes
from spp_jax.models import topology


class Cells(NamedTuple):
    """Windows on the maps of an image, those that fall on the same cells but once.

    Attributes:
        map_index: (U,) which scale's map.
        cells: (U, 4) int32 x1, y1, x2, y2, right and bottom exclusive.
        inverse: (R,) the row above of each window.
    """

    map_index: np.ndarray
    cells: np.ndarray
    inverse: np.ndarray


def choose_scale(
    windows: np.ndarray,
    size: tuple[int, int],
    scales: tuple[int, ...],
    target_side: float,
    rule: str,
) -> np.ndarray:
    """Returns the index of each window's scale, (R,).

    Args:
        windows: (R, 4).
        size: (height, width) of the original image.
        scales: increasing.
        target_side: on its scale a window has about this side squared in pixels.
        rule: "area", section 4.1's: pixels nearest to target_side^2; "linear", the released one:
            the scale nearest to the one that would give exactly that, rounded to a whole number.
            Of equally near scales the smaller is taken.
    """
    shorter = min(size)
    sides = np.sqrt(np.maximum(boxes.area(np.asarray(windows, np.float64)), 1e-12))
    known = np.asarray(scales, np.float64)
    if rule == "linear":
        # MATLAB's rounding: halves up.
        exact = np.floor(target_side * shorter / sides + 0.5)
        return np.abs(known - exact[:, None]).argmin(axis=1)
    scaled = sides[:, None] * known / shorter
    return np.abs(scaled**2 - target_side**2).argmin(axis=1)


def to_cells(
    windows: np.ndarray,
    size: tuple[int, int],
    scales: tuple[int, ...],
    scale_index: np.ndarray,
    backbone: topology.Backbone,
    layer: str,
    rule: str = "released",
) -> np.ndarray:
    """Returns the cells (R, 4) of each window on its scale's map of a layer.

    `rule` is appendix A's "paper": the cells whose centres lie strictly inside the window; or
    "released", the authors' code's, with the tolerance published for the backbone, if one is.
    """
    found = np.zeros((len(windows), 4), np.int32)
    for index, scale in enumerate(scales):
        rows = np.flatnonzero(scale_index == index)
        # As published, both corners inclusive, counted from 1, the first and last pixels' centres
        # kept in place: x' = (x - 1) * (s - 1) / (shorter - 1) + 1.
        factor = (scale - 1) / max(min(size) - 1, 1)
        corners = np.asarray(windows[rows], np.float64)
        first, last = corners[:, :2] * factor, (corners[:, 2:] - 1) * factor + 1
        # Without tolerance the released formula is the paper's.
        found[rows] = topology.window_cells(
            backbone,
            layer,
            np.concatenate([first, last], axis=1),
            arithmetic.shorter_size(*size, scale),
            tolerant=rule == "released",
        )
    return found


def distinct(map_index: np.ndarray, cells: np.ndarray) -> Cells:
    """Returns each pair of a map and its cells once."""
    keys = np.concatenate([map_index[:, None], cells], axis=1).astype(np.int64)
    found, inverse = np.unique(keys, axis=0, return_inverse=True)
    return Cells(found[:, 0].astype(np.int32), found[:, 1:].astype(np.int32), inverse.reshape(-1))
