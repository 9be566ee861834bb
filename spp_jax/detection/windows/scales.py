"""The scale on which a window is pooled, and the cells of that scale's map that it covers.

Section 4.1 has the rules for scales, appendix A those for cells; the released code has its own.

Shapes: R windows · U distinct cells of windows. Windows are (x1, y1, x2, y2) pixels of the original
image, right and bottom exclusive; scales are lengths of the image's shorter side, increasing.
"""

from typing import NamedTuple

import numpy as np

from spp_jax.canvas import arithmetic
from spp_jax.detection import boxes
from spp_jax.models import topology


class Cells(NamedTuple):
    """The distinct cells that an image's windows cover: windows on the same cells share a row.

    Attributes:
        map_index: (U,) int32 index of the scale whose map the cells are of.
        cells: (U, 4) int32 x1, y1, x2, y2, right and bottom exclusive.
        inverse: (R,) for each window, its row in `map_index` and `cells`.
    """

    map_index: np.ndarray
    cells: np.ndarray
    inverse: np.ndarray


def choose_scale(
    windows: np.ndarray,
    size: tuple[int, int],
    scales: tuple[int, ...],
    *,
    target_side: float,
    rule: str,
) -> np.ndarray:
    """Returns the index of each window's scale, (R,); of equally good scales the smaller.

    Args:
        windows: (R, 4).
        size: (height, width) of the original image.
        scales: increasing.
        target_side: on its scale a window should have target_side^2 pixels.
        rule: "area", section 4.1's, takes the scale on which the window's pixels are nearest to
            target_side^2. "linear", the released code's, takes the scale nearest to the one on
            which they would be exactly that many, rounded to a whole number.
    """
    shorter = min(size)
    sides = np.sqrt(np.maximum(boxes.area(np.asarray(windows, np.float64)), 1e-12))
    lengths = np.asarray(scales, np.float64)
    if rule == "linear":
        # MATLAB's rounding: halves up.
        exact = np.floor(target_side * shorter / sides + 0.5)
        return np.abs(lengths - exact[:, None]).argmin(axis=1)
    scaled = sides[:, None] * lengths / shorter
    return np.abs(scaled**2 - target_side**2).argmin(axis=1)


def to_cells(
    windows: np.ndarray,
    size: tuple[int, int],
    scales: tuple[int, ...],
    scale_index: np.ndarray,
    backbone: topology.Backbone,
    layer: str,
    *,
    rule: str = "released",
) -> np.ndarray:
    """Returns the cells (R, 4), int32, of each window on a layer's map of its scale.

    Cells are x1, y1, x2, y2, counted from 0, right and bottom exclusive.

    Args:
        windows: (R, 4).
        size: (height, width) of the original image.
        scales: increasing.
        scale_index: (R,) of each window, as `choose_scale` returns it.
        backbone, layer: whose map.
        rule: "paper", appendix A's, takes the cells whose centres lie strictly inside the window;
            "released" adds the authors' code's tolerance, if one is published for the backbone.
    """
    cells = np.zeros((len(windows), 4), np.int32)
    for index, scale in enumerate(scales):
        rows = np.flatnonzero(scale_index == index)
        # As published, with both corners inclusive and counted from 1; the centres of the first
        # and the last pixel stay in place: x' = (x - 1) * (s - 1) / (shorter - 1) + 1.
        factor = (scale - 1) / max(min(size) - 1, 1)
        corners = np.asarray(windows[rows], np.float64)
        first, last = corners[:, :2] * factor, (corners[:, 2:] - 1) * factor + 1
        # Without tolerance the released formula is the paper's.
        cells[rows] = topology.window_cells(
            backbone,
            layer,
            np.concatenate([first, last], axis=1),
            arithmetic.shorter_size(*size, scale),
            tolerant=rule == "released",
        )
    return cells


def distinct(map_index: np.ndarray, cells: np.ndarray) -> Cells:
    """Returns each pair of a map's index and cells once.

    Args:
        map_index: (R,) of each window.
        cells: (R, 4) of each window.
    """
    keys = np.concatenate([map_index[:, None], cells], axis=1).astype(np.int64)
    rows, inverse = np.unique(keys, axis=0, return_inverse=True)
    return Cells(rows[:, 0].astype(np.int32), rows[:, 1:].astype(np.int32), inverse.reshape(-1))
