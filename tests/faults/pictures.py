"""Mutated images: decoded to an array of the right form, or refused in one line."""

import functools
import io
import pathlib
import resource
import time
from typing import Any

import numpy as np
from PIL import Image, features

from spp_jax import errors
from spp_jax.data import images
from tests.faults import mutations
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_FAULTS = 100  # of a case
_SECONDS = 5.0
_MORE_MEMORY = int(1.2 * 2**30)  # than the process had before its first image

# {format: for each file the mode of its image, and how Pillow saves it}
_FILES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "JPEG": [
        ("RGB", {"quality": 80}),
        ("RGB", {"quality": 60, "progressive": True}),
        ("RGB", {"quality": 90, "subsampling": 0, "exif": 6}),
        ("RGB", {"quality": 75, "restart_marker_blocks": 2}),
        ("L", {"quality": 70}),
        ("CMYK", {"quality": 70}),
    ],
    "PNG": [
        *(("RGB", {}), ("RGBA", {}), ("L", {}), ("LA", {}), ("1", {})),
        *(("P", {}), ("P", {"transparency": 3}), ("I;16", {}), ("RGB", {"exif": 8})),
    ],
    "GIF": [("P", {}), ("L", {"interlace": 1}), ("P", {"save_all": True, "frames": 3})],
    "WebP": [
        *(("RGB", {"quality": 70}), ("RGB", {"lossless": True}), ("RGBA", {"quality": 50})),
        ("RGB", {"exif": 3}),
    ],
    "AVIF": [("RGB", {"quality": 50}), ("RGBA", {"quality": 60}), ("L", {})],
    "TIFF": [
        *(("RGB", {}), ("RGB", {"compression": "tiff_lzw"}), ("L", {"compression": "packbits"})),
        *(("RGB", {"compression": "tiff_adobe_deflate"}), ("1", {"compression": "group4"})),
        *(("I;16", {}), ("P", {}), ("CMYK", {}), ("RGB", {"compression": "jpeg"})),
        ("RGB", {"exif": 6}),
    ],
    "BMP": [("RGB", {}), ("L", {}), ("P", {}), ("1", {}), ("RGBA", {})],
}


@functools.cache
def _files(kind: str) -> list[bytes]:
    """Returns the encoded images of a format, the same in every process."""
    rng = np.random.default_rng(0)
    files = []
    for mode, options in _FILES[kind]:
        height, width = (int(x) for x in rng.integers(20, 60, 2))
        smooth = np.add.outer(np.arange(height), np.arange(width))[..., None] * [3, 2, 1]
        noise = rng.integers(0, 60, (height, width, 3))
        image = Image.fromarray((smooth + noise).astype(np.uint8)).convert(
            "I" if mode == "I;16" else mode
        )
        if mode == "I;16":
            image = Image.fromarray((np.asarray(image) * 257).astype(np.uint16))
        options = dict(options)
        if "exif" in options:
            exif = Image.Exif()
            exif[0x0112] = options["exif"]
            options["exif"] = exif
        if options.pop("frames", 0):
            options["append_images"] = [image.rotate(90), image.rotate(180)]
        file = io.BytesIO()
        image.save(file, kind.upper(), **options)
        files.append(file.getvalue())
    return files


def _splice(data: bytes, second: bytes, rng: np.random.Generator) -> bytes:
    """Returns the beginning of a file and the end of another."""
    return data[: int(rng.integers(len(data)))] + second[int(rng.integers(len(second))) :]


@functools.cache
def _first_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _check(data: bytes, name: str) -> None:
    """Decodes a file, and reads its size, as a program would."""
    start = time.monotonic()
    shape = size = None
    try:
        image = images.decode(data, name)
        shape = image.shape
        if image.dtype != np.uint8 or image.ndim != 3 or shape[2] != 3 or not image.size:
            raise Broken("form", f"{name}: {shape} {image.dtype}")
        if not (image.flags.c_contiguous and image.flags.writeable):
            raise Broken("form", f"{name}: not contiguous and writable")
    except errors.ImageError as e:
        _check_sentence(e, name)
    try:
        size = images.read_size(io.BytesIO(data), name)
        images.read_orientation(io.BytesIO(data), name)
    except errors.ImageError as e:
        _check_sentence(e, name)
    if shape and size is None:
        raise Broken("size", f"{name}: decoded to {shape}, but its size cannot be read")
    if shape and size != shape[:2]:
        raise Broken("size", f"{name}: decoded to {shape}, and its size is read as {size}")
    seconds = time.monotonic() - start
    if seconds > _SECONDS:
        raise Broken("slow", f"{name}: {seconds:.1f} s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - _first_memory()) * 1024
    if grown > _MORE_MEMORY:
        raise Broken("memory", f"{name}: {grown / 2**30:.2f} GiB more than at the start")


def _check_sentence(error: errors.ImageError, name: str) -> None:
    if "\n" in str(error) or not str(error).startswith(f"{name}: "):
        raise Broken("sentence", f"{str(error)!r} does not begin with {name}")


def _case(kind: str, place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    del place
    _first_memory()
    samples = _files(kind)
    for number in range(_FAULTS):
        data = samples[int(rng.integers(len(samples)))]
        if rng.integers(10) == 0:
            data = _splice(data, samples[int(rng.integers(len(samples)))], rng)
        else:
            data = mutations.mutate(data, rng)
        path = folder / f"{number}.{kind.lower()}"
        path.write_bytes(data)  # before it is read, so that it is there if the process ends
        _check(data, str(path))
        path.unlink()
    return "decoded or refused"


def campaigns() -> list[Campaign]:
    """Returns mutated images of each format that Pillow writes here."""
    kinds = [kind for kind in _FILES if kind != "AVIF" or features.check("avif")]
    return [
        Campaign(
            f"pictures-{kind.lower()}",
            f"{kind} images mutated",
            "an array (H, W, 3) uint8 of the size that the header says, or refused in one line",
            functools.partial(_case, kind),
            15,
            1,
            faults=_FAULTS,
        )
        for kind in kinds
    ]
