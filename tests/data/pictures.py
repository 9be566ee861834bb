"""Encoded images of every format, and what other readers make of them."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.images import decoding

# What a viewer does to the stored rows and columns (EXIF 2.3, table of tag 274).
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: np.rot90,
}


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    """Smooth random colours: no symmetry, and near enough to a photograph for a JPEG encoder."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_cv(pixels: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def peer(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def decode_or_reason(data: bytes, name: str) -> np.ndarray | str:
    try:
        return images.decode(data, name)
    except errors.ImageError as error:
        return str(error)


def exif(orientation: int, order: str = "<") -> bytes:
    """One IFD of two entries: ImageWidth, then Orientation."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(order + "HHIHH", 256, 3, 1, 90, 0)
    entries += struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return b"Exif\0\0" + magic + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


def sof_position(jpeg: bytearray) -> int:
    """Where height (2 bytes), width (2), number of components and their samplings stand."""
    return jpeg.index(b"\xff\xc0") + 5


def max_difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


PHOTO = photo()
PALETTE = Image.fromarray(PHOTO).quantize(64)
# Every format in the variants that its decoder treats differently.
HAS_AVIF = "AVIF" in decoding._READERS  # not every Pillow reads it
NEEDS_AVIF = pytest.mark.skipif(not HAS_AVIF, reason="Pillow without AVIF")
FILES = {
    "baseline.jpg": encode(PHOTO, "JPEG", quality=90),
    "progressive.jpg": encode(PHOTO, "JPEG", quality=90, progressive=True),
    "grey.jpg": encode(PHOTO[:, :, 0], "JPEG"),
    "cmyk.jpg": encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "rgb.png": encode(PHOTO, "PNG"),
    "palette.png": encode(PALETTE, "PNG"),
    "sixteen.png": encode_cv(PHOTO.astype(np.uint16) * 257, ".png"),
    "one.gif": encode(PALETTE, "GIF"),
    "lossy.webp": encode(PHOTO, "WEBP"),
    "lossless.webp": encode(PHOTO, "WEBP", lossless=True),
    "raw.tif": encode(PHOTO, "TIFF"),
    "lzw.tif": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "deflate.tif": encode(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "jpeg.tif": encode(PHOTO, "TIFF", compression="jpeg"),
    "rgb.bmp": encode(PHOTO, "BMP"),
    "palette.bmp": encode(PALETTE, "BMP"),
    "rgb.ppm": encode(PHOTO, "PPM"),
    "grey.pgm": encode(PHOTO[:, :, 0].copy(), "PPM"),
} | ({"lossy.avif": encode(PHOTO, "AVIF")} if HAS_AVIF else {})
