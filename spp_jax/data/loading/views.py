"""How a training image becomes a square: section 3.1's crops, or the warped image.

Images are (H, W, 3) uint8 RGB.
"""

import dataclasses

import numpy as np

from spp_jax import config as config_lib
from spp_jax.canvas import arithmetic
from spp_jax.data import images


def limits_of(config: config_lib.DataConfig) -> images.Limits:
    """Returns what images may have at most, as a config's `max_megapixels` and ratio say."""
    return images.Limits(round(config.max_megapixels * 1e6), config.max_side_ratio)


@dataclasses.dataclass(frozen=True)
class TrainView:
    """Makes views as a config's `view`, `shorter_side`, `crop_size` and `jitter` say."""

    config: config_lib.DataConfig

    def read(self, data: bytes, name: str) -> np.ndarray:
        """Decodes an image: the part that is the same in every epoch.

        Returns (H, W, 3); the shorter side is `shorter_side`, or for "warp" may be longer.
        """
        side = self.config.shorter_side
        limits = limits_of(self.config)
        image = images.decode(data, name, shorter_side=side, limits=limits)
        return image if self.config.view == "warp" else images.resize_shorter(image, side)

    def square(self, rng: np.random.Generator, image: np.ndarray, size: int) -> np.ndarray:
        """Returns a (size, size, 3) view, drawn by `rng`, of an image that `read` gave."""
        if self.config.view == "warp":
            return images.resize(self._cut(rng, image), size, size)
        position = int(rng.integers(arithmetic.NUM_POSITIONS))
        return images.resize(images.five_crop(image, self.config.crop_size, position), size, size)

    def middle(self, image: np.ndarray, size: int) -> np.ndarray:
        """Returns the (size, size, 3) view of an image that chance has no part in."""
        if self.config.view != "warp":
            image = images.center_crop(image, self.config.crop_size)
        return images.resize(image, size, size)

    def _cut(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Cuts off a share of each side, uniform from 0 to `jitter`, at a random place."""
        shares, places = rng.random((2, 2))
        whole = np.asarray(image.shape[:2])
        left = np.maximum(1, np.rint(whole * (1 - self.config.jitter * shares))).astype(int)
        top_left = np.floor(places * (whole - left + 1)).astype(int)
        return images.crop(image, *top_left.tolist(), *left.tolist())
