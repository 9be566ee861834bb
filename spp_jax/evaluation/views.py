"""The test views of section 4 of the paper: how an image is shown to a trained network.

Images are (H, W, 3) uint8 RGB.
"""

import dataclasses

import numpy as np

from spp_jax.data import images


@dataclasses.dataclass(frozen=True)
class View:
    """Makes the one view of a protocol.

    "center": the shorter side resized to `scale`, the central size x size pixels.
    "full": the shorter side resized to `scale`, the whole image.
    "warp": the whole image resized to size x size.
    """

    protocol: str
    scale: int
    size: int

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        """Decodes an image and returns its view; raises `images.ImageError`."""
        if self.protocol == "warp":
            image = images.decode(data, name, shorter_side=self.size)
            return images.resize(image, self.size, self.size)
        image = images.decode(data, name, shorter_side=self.scale)
        image = images.resize_shorter(image, self.scale)
        return images.center_crop(image, self.size) if self.protocol == "center" else image


def canvas(height: int, width: int, step: int) -> tuple[int, int]:
    """Returns the sides rounded up to multiples of `step`: few canvases hold all image sizes."""
    return -(-height // step) * step, -(-width // step) * step
