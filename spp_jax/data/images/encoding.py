"""Encodes images on the host."""

import cv2
import numpy as np


def encode(image: np.ndarray, suffix: str) -> bytes:
    """Returns the file of an image (H, W, 3), uint8, RGB; `suffix` is ".png" or ".jpg"."""
    _, data = cv2.imencode(suffix, np.ascontiguousarray(image[:, :, ::-1]))
    return data.tobytes()
