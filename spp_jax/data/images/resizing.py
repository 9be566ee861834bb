"""Resizes and crops images on the host.

An image is an array (H, W, 3), uint8, RGB; sizes are (height, width) in pixels. The functions are
pure and safe in threads, and release the GIL while they resize.
"""

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from spp_jax.canvas import arithmetic


def resize(
    image: np.ndarray, height: int, width: int, *, kernel: Literal["area", "triangle"] = "area"
) -> np.ndarray:
    """Resizes (H, W, 3) to (height, width, 3).

    A side that shrinks is averaged, so nothing aliases; a side that grows is interpolated linearly.

    Args:
        image: any size.
        height, width: the new ones.
        kernel: how cells are averaged. "area" is evenly, by OpenCV, several times faster; where one
            side shrinks and the other grows, the one that shrinks goes first. "triangle" is
            Pillow's bilinear, the resampler behind most published accuracies.

    Returns:
        A new array, or `image` itself where the size is right already.

    Raises:
        ValueError: `image` is not (H, W, 3), or a side is below 1.
    """
    _require_image(image)
    if height < 1 or width < 1:
        raise ValueError(f"a resized image needs sides of at least 1, got {height}x{width}")
    rows, columns, _ = image.shape
    if kernel == "triangle" and (height, width) != (rows, columns):
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.array(resized)
    if height < rows or width < columns:
        small = min(width, columns), min(height, rows)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    if height > rows or width > columns:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def resize_shorter(
    image: np.ndarray, side: int, *, kernel: Literal["area", "triangle"] = "area"
) -> np.ndarray:
    """Resizes (H, W, 3) so that the shorter side is exactly `side` and the aspect is kept.

    The longer side is rounded to the nearest pixel, halves up. Otherwise as `resize`.
    """
    _require_image(image)
    height, width = arithmetic.shorter_size(image.shape[0], image.shape[1], side)
    return resize(image, height, width, kernel=kernel)


def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Cuts (height, width, 3) out of (H, W, 3), as a view; never pads.

    Raises:
        ValueError: `image` is not (H, W, 3), or the crop is empty or not wholly inside it.
    """
    _require_image(image)
    rows, columns, _ = image.shape
    is_inside = 0 <= top <= rows - height and 0 <= left <= columns - width
    if height < 1 or width < 1 or not is_inside:
        raise ValueError(
            f"a {height}x{width} crop at ({top}, {left}) does not fit an image of {rows}x{columns}"
        )
    return image[top : top + height, left : left + width]


def five_crop(image: np.ndarray, size: int, position: int) -> np.ndarray:
    """Cuts (size, size, 3) out of (H, W, 3), as a view.

    `position` is one of those of `arithmetic.five_crop_origin`.
    """
    _require_image(image)
    top, left = arithmetic.five_crop_origin(image.shape[0], image.shape[1], size, position)
    return crop(image, top, left, size, size)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Cuts the central (size, size, 3) out of (H, W, 3)."""
    return five_crop(image, size, 0)


def _require_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"an image must have shape (H, W, 3), got {image.shape}")
