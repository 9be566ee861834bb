"""Decodes images on the host.

An image is an array (H, W, 3), uint8, RGB, 0..255; sizes are (height, width) in pixels. The
functions are pure and safe in threads, and release the GIL while pixels are decoded or resized.

JPEG goes through simplejpeg, every other format through Pillow. OpenCV reads those formats too,
little faster (375x500 PNG 4.9 ms against 5.6, WebP 2.3 against 2.8), but it logs each damaged file
to stderr, which only a process-wide setting silences, and accepts a decompression bomb in PNG text.
Pillow is silent but for TIFF: its warnings about tags, and libtiff's lines about damaged data, can
only be stopped for the whole process, which is left to the program.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from spp_jax import errors
from spp_jax.data.images import exif, formats, jpeg
from spp_jax.runs import files

# A quarter of a GiB as RGB: what one loader worker can afford, and where Pillow begins to warn.
MAX_PIXELS = 1024**3 // 4 // 3
# Resizing by the shorter side multiplies pixels by the aspect. At 50 an image of the largest scale
# in use, 1200, stays below MAX_PIXELS; panoramas stay below 20.
MAX_ASPECT = 50.0


class Limits(NamedTuple):
    """What images may have at most.

    Attributes:
        pixels: height * width, as the header claims them. Formats that take more than 12 bytes of
            memory per pixel to decode may have fewer: by default none then takes more than 1 GiB.
            Pillow has limits of its own: 179 million for GIF, WebP and tiles of TIFF, 268 million
            for AVIF.
        aspect: the ratio of the longer side to the shorter.
    """

    pixels: int = MAX_PIXELS
    aspect: float = MAX_ASPECT


LIMITS = Limits()
# Bytes of memory per pixel at the peak of decoding, measured with Pillow 12: WebP's decoder holds
# two canvases of 4, Pillow a copy and its image. All other formats take 12 at most.
_BYTES = {"WebP": 16}
_USUAL_BYTES = 12

_PIXELS_AT_ONCE = 2**20

# The classes, not PIL.Image.open, which would also try dozens of other formats, PostScript among
# them, and warn about size before it can be checked here. Pillow's stubs give its readers no
# arguments.
_READERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
with contextlib.suppress(ImportError):  # Pillow has it since 11.3
    from PIL import AvifImagePlugin

    if AvifImagePlugin.SUPPORTED:
        _READERS["AVIF"] = AvifImagePlugin.AvifImageFile


def decode(
    data: bytes,
    name: str,
    *,
    shorter_side: int | None = None,
    limits: Limits = LIMITS,
) -> np.ndarray:
    """Decodes the bytes of a JPEG, PNG, GIF, WebP, AVIF, TIFF, BMP or PPM file to upright RGB.

    The content decides the format, never the name. Of several frames or pages the first is taken.
    EXIF orientation is applied; malformed EXIF counts as upright. Grey, palette and CMYK become RGB
    (CMYK JPEG within 2 levels of Pillow), of 16 bits the high byte is kept, and alpha is dropped,
    not composited: as in torchvision, colours hidden under transparent pixels appear.

    A truncated file is refused unless all its pixels are there, and so is all damage the decoder
    notices; formats without checksums can hide some. A JPEG without an end marker, or with stray
    bytes before a marker, is read where the file shows that its pixels are whole (see
    `jpeg`, also for whole files that cannot be told from damaged ones).

    Args:
        data: the whole file.
        name: the name of the file in errors.
        shorter_side: decode a JPEG at the smallest of the scales 1/8 .. 8/8 that leaves its shorter
            side at least this long, for the caller to resize. Other formats keep their size.
        limits: what the image may have at most.

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        ImageError: the file is empty, no image, too large, too narrow, truncated or corrupt.
        ValueError: `shorter_side` is below 1.
    """
    if shorter_side is not None and shorter_side < 1:
        raise ValueError(f"shorter_side must be at least 1, got {shorter_side}")
    kind, reader = _find_reader(data, name)

    def check_size(height: int, width: int) -> None:
        _check_size(height, width, kind, limits)

    with _named(name, kind):
        if kind == "JPEG":
            return _decode_jpeg(data, shorter_side, check_size)
        return _decode_with_pillow(reader(io.BytesIO(data)), check_size)


def read_size(file: BinaryIO, name: str, limits: Limits = LIMITS) -> tuple[int, int]:
    """Reads the (height, width) that `decode` gives an image, from the file's header alone.

    A file that its header shows to be no image, too large or too narrow is refused as by `decode`;
    damage in the pixels goes unnoticed.

    Args:
        file: the file, open for reading at its start.
        name: the name of the file in errors.
        limits: what the image may have at most.

    Raises:
        ImageError: the file is empty, no image, too large or too narrow.
    """
    height, width, orientation = _read_head(file, name, limits)
    return (width, height) if orientation >= 5 else (height, width)


def read_orientation(file: BinaryIO, name: str) -> int:
    """Reads the EXIF orientation by which `decode` turns an image: 1 (upright as stored) to 8.

    Arguments and errors as `read_size`.
    """
    return _read_head(file, name, LIMITS)[2]


def _read_head(file: BinaryIO, name: str, limits: Limits) -> tuple[int, int, int]:
    """Reads the (height, width) of the stored pixels, and the orientation."""
    kind, reader = _find_reader(file.read(formats.NUM_BYTES), name)
    file.seek(0)
    with _named(name, kind):
        image = _open_header(reader, file, kind)
        _check_size(image.height, image.width, kind, limits)
        block = image.info.get("exif") or (exif.find_in_png(file) if kind == "PNG" else b"")
        return image.height, image.width, exif.orientation(block)


def _open_header(
    reader: Callable[..., ImageFile.ImageFile], file: BinaryIO, kind: str
) -> ImageFile.ImageFile:
    try:
        return reader(file)
    except Exception:  # as in `_named`
        file.seek(0)
        with contextlib.suppress(SyntaxError):
            # Between segments Pillow passes over stray zeros, and nothing else.
            if kind == "JPEG":
                return reader(io.BytesIO(jpeg.header(file.read())))
        raise


def is_pillow(image: object) -> bool:
    """Whether it is an image of Pillow, of whatever mode."""
    return isinstance(image, Image.Image)


def from_pillow(image: Image.Image, name: str) -> np.ndarray:
    """Converts an image of Pillow to the upright array that `decode` makes of its file.

    Raises:
        ImageError: the image is too large or too narrow, or its file is truncated or corrupt.
    """
    kind = image.format or "image"

    def check_size(height: int, width: int) -> None:
        _check_size(height, width, "WebP" if kind == "WEBP" else kind, LIMITS)

    with _named(name, kind):
        return _decode_with_pillow(image, check_size)


def read_file(path: str, limit: int = files.MAX_BYTES) -> bytes:
    """Returns the bytes of a regular file; raises ImageError where it cannot be read.

    Also where it has more bytes than the limit.
    """
    try:
        return files.read_bytes(path, limit)
    except OSError as e:
        raise errors.ImageError(f"{errors.printable(path)}: {e.strerror}") from e


def _find_reader(data: bytes, name: str) -> tuple[str, Callable[..., ImageFile.ImageFile]]:
    if not data:
        raise errors.ImageError(f"{errors.printable(name)}: the file is empty")
    kind = formats.find(data)
    if kind in _READERS:
        return kind, _READERS[kind]
    advice = f" but {kind}, which is not read; convert it to JPEG or PNG" if kind else ""
    if kind == "AVIF":
        advice = " but AVIF, which Pillow reads from version 11.3 on; this one does not"
    name, kinds = errors.printable(name), ", ".join(_READERS)
    raise errors.ImageError(f"{name}: not an image of a known format ({kinds}){advice}")


def _check_size(height: int, width: int, kind: str, limits: Limits) -> None:
    most = limits.pixels * _USUAL_BYTES // max(_BYTES.get(kind, 0), _USUAL_BYTES)
    if height * width > most:
        reason = f" of {kind}" if kind in _BYTES else ""
        raise errors.ImageError(f"{height}x{width} is more than {most} pixels{reason}")
    if max(height, width) > limits.aspect * min(height, width):
        raise errors.ImageError(f"{height}x{width} is narrower than 1:{limits.aspect:g}")


@contextlib.contextmanager
def _named(name: str, kind: str) -> Iterator[None]:
    """Turns any exception of a decoder into an ImageError about the file."""
    try:
        yield
    except errors.ImageError as error:
        raise errors.ImageError(f"{errors.printable(name)}: {error}") from None
    # Damaged bytes make the decoders raise nearly anything (OSError, SyntaxError, struct.error,
    # zlib.error, TypeError), and all of it means that this file cannot be read.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        name = errors.printable(name)
        raise errors.ImageError(f"{name}: cannot be decoded as {kind} ({reason})") from error


def _decode_jpeg(
    data: bytes, shorter_side: int | None, check_size: Callable[[int, int], None]
) -> np.ndarray:
    try:
        return _decode_strictly(data, shorter_side, check_size)
    except errors.ImageError:
        raise
    except ValueError as error:
        for mended in jpeg.mend(data):
            try:
                return _decode_strictly(mended, shorter_side, check_size)
            except errors.ImageError:
                raise
            except ValueError:
                continue
        # TurboJPEG reads six chroma samplings only, and counts odd headers as errors. Pillow reads
        # both and refuses a premature end, but it overlooks damaged data, which must not reach it.
        if "Corrupt" in str(error) or "Premature" in str(error):
            raise
        return _decode_with_pillow(JpegImagePlugin.JpegImageFile(io.BytesIO(data)), check_size)


def _decode_strictly(
    data: bytes, shorter_side: int | None, check_size: Callable[[int, int], None]
) -> np.ndarray:
    """Decodes a JPEG; raises ValueError where TurboJPEG notices anything."""
    side = shorter_side or 0
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    check_size(int(height), int(width))
    image = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side)
    return _turn_upright(image, exif.orientation(exif.find_in_jpeg(data)))


def _decode_with_pillow(file: Image.Image, check_size: Callable[[int, int], None]) -> np.ndarray:
    check_size(file.height, file.width)
    file.load()
    if file.mode == "F" or (file.mode == "I" and file.format == "TIFF"):
        raise errors.ImageError("32-bit pixels have no defined white")
    # Pillow warns when it drops a palette's transparency by itself.
    transparency = file.info.pop("transparency", None)
    image = np.empty((file.height, file.width, 3), np.uint8)
    # Row by row, as Pillow and NumPy would make four copies of the whole image on the way.
    rows = max(1, _PIXELS_AT_ONCE // file.width)
    for top in range(0, file.height, rows):
        bottom = min(top + rows, file.height)
        image[top:bottom] = _to_rgb(file.crop((0, top, file.width, bottom)))
    if transparency is not None:  # the image may be the caller's
        file.info["transparency"] = transparency
    # A TIFF has no such entry: Pillow has turned it upright while loading.
    return _turn_upright(image, exif.orientation(file.info.get("exif", b"")))


def _to_rgb(file: Image.Image) -> np.ndarray:
    """Returns the pixels of an image of Pillow, (H, W, 3), or (H, W, 1) of grey ones."""
    if file.mode.startswith("I"):
        return (np.asarray(file) >> 8).astype(np.uint8)[:, :, np.newaxis]
    return np.asarray(file.convert("RGB"))


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = cv2.transpose(image)
    if orientation in (2, 3, 6, 7):
        image = cv2.flip(image, 1)
    if orientation in (3, 4, 7, 8):
        image = cv2.flip(image, 0)
    return image
