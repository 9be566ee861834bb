"""Small folders of images that a network can learn in seconds."""

import pathlib

import cv2
import numpy as np


def make_folder(root: pathlib.Path, counts: dict[str, int]) -> str:
    """Writes classes "dark" and "light" under each split ("" for none), images of many sizes."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for name, low in (("dark", 0), ("light", 128)):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                height, width = rng.integers(30, 70, 2)
                image = rng.integers(low, low + 128, (height, width, 3)).astype(np.uint8)
                assert cv2.imwrite(str(folder / f"{i}.png"), image)
    return str(root)
