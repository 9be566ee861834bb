"""Damaged, truncated and hostile images: an image or one sentence, in little memory."""

import io
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.images import decoding, formats
from tests.data.pictures import FILES, HAS_AVIF, PHOTO, decode_or_reason, encode, sof_position


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused_or_exact(name, capfd):
    data = FILES[name]
    whole = images.decode(data, name)
    # 16: what tells AVIF from others.
    lengths = {max(16, len(data) * percent // 100) for percent in range(1, 100, 7)}
    lengths |= {len(data) - cut for cut in (1, 2, 4, 9, 13, 20)}
    for length in lengths:
        image = decode_or_reason(data[:length], name)
        if isinstance(image, str):
            assert image.startswith(f"{name}: cannot be decoded")
            assert "\n" not in image
        else:
            np.testing.assert_array_equal(image, whole)
            assert length > 0.95 * len(data)  # no more than a trailer is missing
    noise = capfd.readouterr()
    assert noise.out == ""
    # libtiff reports compressed data that it cannot read; Pillow offers no handler for it.
    if name not in ("lzw.tif", "deflate.tif", "jpeg.tif"):
        assert noise.err == ""


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg"])
@pytest.mark.parametrize("tail", [b"\xff\xd9", bytes(99) + b"\xff\xd9"])
def test_cut_jpeg_with_an_end_marker_is_refused(name, tail):
    data = FILES[name]
    with pytest.raises(errors.ImageError, match=name):
        images.decode(data[: len(data) * 2 // 3] + tail, name)


def test_damaged_png_is_refused():
    data = FILES["rgb.png"]
    start = data.index(b"IDAT") + 4
    for position in range(start, len(data) - 20, len(data) // 50):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(errors.ImageError, match=r"rgb\.png"):
            images.decode(bytes(damaged), "rgb.png")


def bombs() -> dict[str, bytes]:
    """Headers that claim 50000x50000 (WebP: its largest, 16383x16383) over small bodies."""
    side = 50000
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rest = FILES["rgb.png"][33:]
    jpeg, gif, bmp = (bytearray(FILES[name]) for name in ("baseline.jpg", "one.gif", "rgb.bmp"))
    struct.pack_into(">HH", jpeg, sof_position(jpeg), side, side)
    struct.pack_into("<HH", gif, 6, side, side)
    struct.pack_into("<ii", bmp, 18, side, side)
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: side**2}
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    webp = bytearray(FILES["lossless.webp"])
    webp[21:25] = b"\xff\xff\xff\x0f"
    return {
        "bomb.png": b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + ihdr
        + struct.pack(">I", zlib.crc32(ihdr))
        + rest,
        "bomb.jpg": bytes(jpeg),
        "bomb.gif": bytes(gif),
        "bomb.bmp": bytes(bmp),
        "bomb.tif": tiff + bytes(4),
        "bomb.webp": bytes(webp),
        "bomb.ppm": b"P6 50000 50000 255\n",
    } | ({"bomb.avif": avif_bomb()} if HAS_AVIF else {})


def avif_bomb() -> bytes:
    """A header that claims 16384x16384, the largest side that Pillow lets pass."""
    avif = bytearray(FILES["lossy.avif"])
    struct.pack_into(">II", avif, avif.index(b"ispe") + 8, 16384, 16384)
    return bytes(avif)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_before_they_are_decoded(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(errors.ImageError, match=rf"^{name}: .*pixels"):
        images.decode(bombs()[name], name)
    with pytest.raises(errors.ImageError, match=rf"^{name}: .*pixels"):
        images.read_size(io.BytesIO(bombs()[name]), name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000  # KiB; one decoded bomb would take 800,000 at least


def test_webp_takes_more_memory_and_has_fewer_pixels():
    data = encode(PHOTO[:4, :5], "WEBP", lossless=True)
    assert images.decode(data, "x", limits=images.Limits(27)).shape == (4, 5, 3)
    with pytest.raises(errors.ImageError, match=r"^x: 4x5 is more than 19 pixels of WebP$"):
        images.decode(data, "x", limits=images.Limits(26))
    with pytest.raises(errors.ImageError, match=r"^x: 4x5 is more than 19 pixels of WebP$"):
        images.read_size(io.BytesIO(data), "x", images.Limits(26))
    # One colour in 100 bytes; 67,108,863 pixels take 1 GiB.
    data = encode(np.zeros((8200, 8200, 3), np.uint8), "WEBP", lossless=True, method=0)
    with pytest.raises(errors.ImageError, match="8200x8200 is more than 67108863 pixels of WebP"):
        images.decode(data, "x")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP"])
def test_decoding_takes_little_more_than_the_pixels(kind):
    size = 2600
    file = io.BytesIO()
    Image.new("RGB", (size, size), (10, 20, 30)).save(file, kind)
    code = (
        "import resource, sys; from spp_jax.data import images; data = sys.stdin.buffer.read();"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "before = peak(); images.decode(data, 'x'); print(peak() - before)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], input=file.getvalue(), capture_output=True, check=True
    )
    per_pixel = int(child.stdout) * 1024 / size**2
    assert per_pixel < (17 if kind == "WEBP" else 12)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "1", "LA"])
def test_rows_at_once_are_the_whole_image(mode, monkeypatch):
    image = Image.fromarray(PHOTO).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    monkeypatch.setattr(decoding, "_PIXELS_AT_ONCE", 7 * image.width + 1)
    np.testing.assert_array_equal(images.from_pillow(image, "x"), expected)


def test_limits_are_inclusive():
    data = encode(PHOTO[:4, :5], "PNG")
    assert images.decode(data, "x", limits=images.Limits(20, 1.25)).shape == (4, 5, 3)
    with pytest.raises(errors.ImageError, match="x: 4x5 is more than 19 pixels"):
        images.decode(data, "x", limits=images.Limits(19))
    for shape in ((1, 51, 3), (51, 1, 3)):
        for kind in ("PNG", "JPEG"):
            data = encode(np.zeros(shape, np.uint8), kind)
            with pytest.raises(errors.ImageError, match=r"line: \d+x\d+ is narrower than 1:50"):
                images.decode(data, "line")
            assert images.decode(data, "line", limits=images.Limits(aspect=51)).shape == shape


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"wnid\tlabel\n", "not an image of a known format"),
        (bytes(1000), "not an image of a known format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image of a known .* but HEIC, which"),
        (b"\xff\x0a\xfa\x7f\x90", "not an image of a known format .* but JPEG XL, which is not re"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image of a known format"),
        (b"\xff\xd8", "not an image of a known format"),
        (b"\xff\xd8\xff", "cannot be decoded as JPEG"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "cannot be decoded as WebP"),
        (b"BMW drivers", "cannot be decoded as BMP"),
        (b"P1: a note", "cannot be decoded as PPM"),
        (b"II*\0\x08\0\0\0", "cannot be decoded as TIFF"),
    ],
)
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(errors.ImageError, match=rf"^a/b\.jpg: {reason}"):
        images.decode(data, "a/b.jpg")
    with pytest.raises(errors.ImageError, match=rf"^a/b\.jpg: {reason}"):
        images.read_size(io.BytesIO(data), "a/b.jpg")


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(set(FILES) - {"lzw.tif", "deflate.tif", "jpeg.tif"})),
    damage=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_damage_gives_an_image_or_an_image_error(name, damage):
    data = bytearray(FILES[name])
    for where, value in damage:
        position = int(where * (len(data) - 1))
        data[position : position + len(value)] = value
    image = decode_or_reason(bytes(data), name)
    if isinstance(image, str):
        assert image.startswith(f"{name}: ")
    else:
        assert image.ndim == 3
        assert image.shape[2] == 3


def test_errors_are_one_line_whatever_the_name():
    for name, shown in (
        ("a\nb.jpg", r"a\nb.jpg"),
        ("caf\udce9\x1b[1m.jpg", r"caf\udce9\x1b[1m.jpg"),
    ):
        for data in (b"", b"rubbish", FILES["baseline.jpg"][:200], FILES["rgb.png"][:200]):
            reason = decode_or_reason(data, name)
            assert isinstance(reason, str)
            assert reason.startswith(f"{shown}: ")
        with pytest.raises(errors.ImageError) as info:
            images.read_file(name)
        assert str(info.value) == f"{shown}: No such file or directory"


def test_an_image_is_told_by_its_first_bytes():
    for name, data in FILES.items():
        is_weak = name.endswith(("bmp", "ppm", "pgm"))  # two letters, which texts begin with too
        assert formats.is_sure(data[: formats.NUM_BYTES]) is not is_weak
    assert formats.find(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIC"
    for data in (b"", b"RIFF\x24\0\0\0WAVEfmt ", b"II*", b"BMW drivers", b"\0\0\0\x18ftypmp42\0\0"):
        assert not formats.is_sure(data)


def test_any_exception_of_a_decoder_names_the_file(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    with pytest.raises(errors.ImageError, match=r"^a: cannot be decoded as JPEG \(first line\)$"):
        images.decode(FILES["baseline.jpg"], "a")
