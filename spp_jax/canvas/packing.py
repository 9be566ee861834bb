"""Puts images of several sizes onto canvases of one size, each with its extent."""

from collections.abc import Sequence

import numpy as np


def pack(
    images: Sequence[np.ndarray | None], canvas: tuple[int, int], num_rows: int
) -> dict[str, np.ndarray]:
    """Returns a batch of the canvases of images, black where there is none.

    Args:
        images: at most `num_rows`, each (h, w, 3) uint8 and no larger than the canvas; None in the
            place of an image that could not be read.
        canvas: (height, width) H, W.
        num_rows: N, of the program that the batch is for.

    Returns:
        `images` (N, H, W, 3) uint8, each image in its upper left corner, and `extents` (N, 2)
        int32, its (height, width); that of the whole canvas where there is no image.
    """
    packed = np.zeros((num_rows, *canvas, 3), np.uint8)
    extents = np.tile(np.asarray(canvas, np.int32), (num_rows, 1))
    for row, image in enumerate(images):
        if image is not None:
            height, width, _ = image.shape
            packed[row, :height, :width] = image
            extents[row] = height, width
    return {"images": packed, "extents": extents}
