"""What `features.extract` takes for images, and makes of them what the network is shown.

Images are (h, w, 3) uint8 RGB once they are here.
"""

import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.canvas import arithmetic
from spp_jax.data import images as images_lib
from spp_jax.evaluation import protocols
from spp_jax.pooling import pyramid


@dataclasses.dataclass(frozen=True)
class Given:
    """An image that a user gave.

    Attributes:
        name: what errors call it: its path, or images[3].
        image: its pixels, or None for a file, which is read when it is shown.
        data: the bytes of a file in memory, or None.
    """

    name: str
    image: np.ndarray | None = None
    data: bytes | None = None

    def shown_size(self, scale: int | None) -> tuple[int, int]:
        """Returns the (height, width) at which it is shown; raises ImageError as `show`."""
        if self.image is not None:
            height, width, _ = self.image.shape
        else:
            height, width = images_lib.read_size(io.BytesIO(self._read()), self.name)
        return (height, width) if scale is None else arithmetic.shorter_size(height, width, scale)

    def show(self, scale: int | None) -> np.ndarray:
        """Returns it with the shorter side `scale`, None: its own.

        Raises:
            ImageError: a file that cannot be read.
        """
        if self.image is not None:
            if scale is None:
                return self.image
            return images_lib.resize_shorter(self.image, scale, kernel="triangle")
        if scale is None:
            return images_lib.decode(self._read(), self.name)
        return protocols.Protocol("full", scale, scale)(self._read(), self.name)[0]

    def _read(self) -> bytes:
        if self.data is not None:
            return self.data
        return images_lib.read_file(config_lib.whole_path(self.name))


def take(images: Any) -> tuple[list[Given], dict[int, str]]:
    """Returns the images a user gave, one after the other, and {index: why it cannot be read}.

    Args:
        images: any iterable, also one that can be gone through only once, of paths, encoded files
            as bytes, PIL images, and arrays, NumPy's, JAX's or of whatever becomes one of NumPy:
            (h, w, 3), or (h, w) or (h, w, 1) grey, uint8.

    Raises:
        InputError: no iterable, or something in it that is none of these.
    """
    example = "; give a list, as [image] for one"
    if isinstance(images, (str, os.PathLike, bytes)) or images_lib.is_pillow(images):
        raise errors.InputError(
            f"images must be a sequence of images or paths, got {images!r:.200}{example}"
        )
    if hasattr(images, "ndim"):
        images = np.asarray(images)
        are_names = images.ndim == 1 and images.dtype.kind in "UO"
        if images.ndim != 4 and not are_names:
            raise errors.InputError(
                f"images must be a sequence of images, got one array of {images.shape}{example}, "
                "or an array (n, h, w, 3)"
            )
    elif not isinstance(images, Iterable):
        raise errors.InputError(
            f"images must be a sequence of images or paths, got {images!r:.200}{example}"
        )
    taken, refused = [], {}
    for index, image in enumerate(images):
        try:
            taken.append(_take(image, f"images[{index}]"))
        except errors.ImageError as e:
            taken.append(Given(f"images[{index}]"))
            refused[index] = str(e)
    return taken, refused


def check_scale(scale: Any) -> int | None:
    """Returns a shorter side as an int, or None; raises InputError if it is none."""
    found = None if scale is None else pyramid.whole_number(scale) or 0
    if found is not None and found < 1:
        raise errors.InputError(f"scale must be None or a whole number of pixels, got {scale!r}")
    return found


def check_count(value: Any, name: str) -> int:
    """Returns a whole number of Python, NumPy or JAX as an int; raises InputError below 1."""
    found = pyramid.whole_number(value)
    if found is None or found < 1:
        raise errors.InputError(f"{name} must be a whole number of at least 1, got {value!r}")
    return found


def shown_sizes(
    given: Sequence[Given], scale: int | None, refused: dict[int, str]
) -> dict[int, tuple[int, int]]:
    """Returns {index: (height, width)} of those that can be read; the others go to `refused`."""
    found = {}
    for index in (i for i in range(len(given)) if i not in refused):
        try:
            found[index] = given[index].shown_size(scale)
        except errors.ImageError as e:
            refused[index] = str(e)
    return found


def show_all(
    given: Sequence[Given],
    order: Iterable[int],
    scale: int | None,
    refused: dict[int, str] | None,
) -> Iterator[np.ndarray | None]:
    """Yields the images as they are shown; None for one that cannot be read, told in `refused`.

    Raises:
        ImageError: an image cannot be read and `refused` is None.
    """
    for index in order:
        try:
            yield given[index].show(scale)
        except errors.ImageError as e:
            if refused is None:
                raise
            refused[index] = str(e)
            yield None


def _take(image: Any, name: str) -> Given:
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        return Given(os.fsdecode(path))
    if isinstance(image, bytes):
        return Given(name, data=image)
    if images_lib.is_pillow(image):
        return Given(name, images_lib.from_pillow(image, name))
    if not hasattr(image, "ndim"):
        raise errors.InputError(
            f"{name} must be an array (h, w, 3) uint8, a PIL image or a path, got {image!r:.200}"
        )
    array = np.asarray(image)
    if array.dtype == np.uint8 and array.size:
        if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
            array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        if array.ndim == 3 and array.shape[2] == 3:
            return Given(name, array)
    raise errors.InputError(
        f"{name}: an image must be (h, w, 3) uint8, got {array.shape} of {array.dtype}"
        + _advice(array)
    )


def _advice(array: np.ndarray) -> str:
    if array.dtype.kind == "f":
        return "; if 1.0 is white in it, give (255 * image).round().astype('uint8')"
    if array.dtype != np.uint8:
        return "; if 255 is white in it, give image.astype('uint8')"
    if array.ndim == 3 and array.shape[2] == 4:
        return "; give image[..., :3] to leave out its alpha"
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return "; give image.transpose(1, 2, 0), channels last"
    return ""
