"""The images given to `features.extract`, in whatever form, as the network takes them.

Images that this module returns are (h, w, 3) uint8 RGB.
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
class InputImage:
    """An image that a user gave: pixels, a file in memory, or the path of a file.

    Attributes:
        name: what errors call it: its path, or images[3].
        image: its pixels (h, w, 3) uint8; None for a file, which is read when needed.
        data: the bytes of a file in memory, or None.
    """

    name: str
    image: np.ndarray | None = None
    data: bytes | None = None

    def size(self, scale: int | None) -> tuple[int, int]:
        """Returns the (height, width) of what `load` returns, from the file's header.

        Raises:
            ImageError: the file's header cannot be read.
        """
        if self.image is not None:
            height, width, _ = self.image.shape
        else:
            height, width = images_lib.read_size(io.BytesIO(self._encoded()), self.name)
        return (height, width) if scale is None else arithmetic.shorter_size(height, width, scale)

    def load(self, scale: int | None) -> np.ndarray:
        """Returns the image, resized to the shorter side `scale`; None keeps its size.

        Raises:
            ImageError: the file cannot be read.
        """
        if self.image is not None:
            if scale is None:
                return self.image
            return images_lib.resize_shorter(self.image, scale, kernel="triangle")
        if scale is None:
            return images_lib.decode(self._encoded(), self.name)
        return protocols.Protocol("full", scale, scale)(self._encoded(), self.name)[0]

    def _encoded(self) -> bytes:
        if self.data is not None:
            return self.data
        return images_lib.read_file(config_lib.whole_path(self.name))


def take(images: Any) -> tuple[list[InputImage], dict[int, str]]:
    """Returns the images that a user gave, in order, and {index: why the image cannot be read}.

    Args:
        images: an iterable, which is read only once, of paths, encoded files as bytes, PIL images,
            and arrays of NumPy, JAX or any library whose arrays NumPy converts: (h, w, 3), or grey
            (h, w) or (h, w, 1), uint8.

    Raises:
        InputError: `images` is no iterable, or an element is none of these.
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
    inputs, refused = [], {}
    for index, image in enumerate(images):
        try:
            inputs.append(_take(image, f"images[{index}]"))
        except errors.ImageError as e:
            inputs.append(InputImage(f"images[{index}]"))
            refused[index] = str(e)
    return inputs, refused


def check_scale(scale: Any) -> int | None:
    """Returns the shorter side `scale` as an int, None as None; raises InputError below 1."""
    side = None if scale is None else pyramid.whole_number(scale) or 0
    if side is not None and side < 1:
        raise errors.InputError(f"scale must be None or a whole number of pixels, got {scale!r}")
    return side


def check_count(value: Any, name: str) -> int:
    """Returns a whole number of Python, NumPy or JAX as an int; raises InputError below 1."""
    count = pyramid.whole_number(value)
    if count is None or count < 1:
        raise errors.InputError(f"{name} must be a whole number of at least 1, got {value!r}")
    return count


def read_sizes(
    images: Sequence[InputImage], scale: int | None, refused: dict[int, str]
) -> dict[int, tuple[int, int]]:
    """Returns {index: (height, width)} at which images are loaded.

    Args:
        images: all images.
        scale: the shorter side to which they are resized; None keeps their sizes.
        refused: {index: why the image cannot be read}, of images to leave out; those whose header
            cannot be read are added.
    """
    sizes = {}
    for index in (i for i in range(len(images)) if i not in refused):
        try:
            sizes[index] = images[index].size(scale)
        except errors.ImageError as e:
            refused[index] = str(e)
    return sizes


def load_all(
    images: Sequence[InputImage],
    order: Iterable[int],
    scale: int | None,
    refused: dict[int, str] | None,
) -> Iterator[np.ndarray | None]:
    """Yields images, loaded, and None in place of one that cannot be read.

    Args:
        images: all images.
        order: indices of the images to load.
        scale: the shorter side to which they are resized; None keeps their sizes.
        refused: {index: why the image cannot be read}; images that cannot be read are added. None
            raises for them.

    Raises:
        ImageError: an image cannot be read and `refused` is None.
    """
    for index in order:
        try:
            yield images[index].load(scale)
        except errors.ImageError as e:
            if refused is None:
                raise
            refused[index] = str(e)
            yield None


def _take(image: Any, name: str) -> InputImage:
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        return InputImage(os.fsdecode(path))
    if isinstance(image, bytes):
        return InputImage(name, data=image)
    if images_lib.is_pillow(image):
        return InputImage(name, images_lib.from_pillow(image, name))
    if not hasattr(image, "ndim"):
        raise errors.InputError(
            f"{name} must be an array (h, w, 3) uint8, a PIL image or a path, got {image!r:.200}"
        )
    array = np.asarray(image)
    if array.dtype == np.uint8 and array.size:
        if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
            array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        if array.ndim == 3 and array.shape[2] == 3:
            return InputImage(name, array)
    raise errors.InputError(
        f"{name}: an image must be (h, w, 3) uint8, got {array.shape} of {array.dtype}"
        + _advice(array)
    )


def _advice(array: np.ndarray) -> str:
    """Returns how to convert an array that is no image, as the end of a sentence, or ""."""
    if array.dtype.kind == "f":
        return "; if 1.0 is white in it, give (255 * image).round().astype('uint8')"
    if array.dtype != np.uint8:
        return "; if 255 is white in it, give image.astype('uint8')"
    if array.ndim == 3 and array.shape[2] == 4:
        return "; give image[..., :3] to leave out its alpha"
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return "; give image.transpose(1, 2, 0), channels last"
    return ""
