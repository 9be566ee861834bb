import io
import pathlib
import resource
import struct
import subprocess
import sys
import zlib
from concurrent import futures

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.canvas import arithmetic
from spp_jax.data import images
from spp_jax.data.images import decoding, formats
from spp_jax.data.loading import views
from spp_jax.evaluation import protocols

ODD_IMAGES = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "odd_images"

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


@pytest.mark.parametrize("name", FILES)
def test_every_format_agrees_with_pillow(name):
    # OpenCV wrote sixteen.png, as BGR; Pillow cannot make 8 bits of it.
    expected = PHOTO[:, :, ::-1] if name == "sixteen.png" else peer(FILES[name])
    image = images.decode(FILES[name], name)
    assert images.read_size(io.BytesIO(FILES[name]), name) == image.shape[:2]
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    # CMYK: simplejpeg and Pillow round the product of ink and black differently.
    assert max_difference(image, expected) <= (2 if name == "cmyk.jpg" else 0)


@pytest.mark.parametrize("name", FILES)
def test_content_decides_the_format(name):
    np.testing.assert_array_equal(
        images.decode(FILES[name], "anything.txt"), images.decode(FILES[name], name)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("JPEG", {})]
)
def test_exif_orientation(kind, options, orientation):
    if kind == "TIFF":
        data = encode(PHOTO, kind, tiffinfo={274: orientation})
    else:
        data = encode(PHOTO, kind, exif=exif(orientation), **options)
    image = images.decode(data, "turned")
    assert images.read_size(io.BytesIO(data), "turned") == image.shape[:2]
    np.testing.assert_array_equal(image, peer(data))
    if kind not in ("JPEG", "AVIF"):
        np.testing.assert_array_equal(image, UPRIGHT[orientation](PHOTO))
    assert image.flags.c_contiguous


def test_png_exif_behind_the_pixels():
    data = encode(PHOTO, "PNG", exif=exif(6))
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    end = data.index(b"IEND") - 4
    late = data[:start] + data[stop:end] + data[start:stop] + data[end:]
    image = images.decode(late, "late.png")
    np.testing.assert_array_equal(image, images.decode(data, "early.png"))
    assert images.read_size(io.BytesIO(late), "late.png") == image.shape[:2] != PHOTO.shape[:2]


def test_only_exif_turns_an_image():
    """Pillow takes an orientation in XMP for EXIF's; decoding does not, nor does its reader."""
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-\
rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>\
</rdf:RDF></x:xmpmeta>"""
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG", xmp=xmp)
    assert Image.open(file).getexif()[0x0112] == 6
    file.seek(0)
    assert images.read_orientation(file, "xmp") == 1
    assert images.decode(file.getvalue(), "xmp").shape == (30, 40, 3)
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = io.BytesIO()
    Image.new("RGB", (40, 30)).save(turned, "JPEG", exif=exif)
    turned.seek(0)
    assert images.read_orientation(turned, "exif") == 8


def test_exif_of_either_byte_order_and_behind_other_segments():
    data = FILES["baseline.jpg"]
    app1 = b"\xff\xe1" + struct.pack(">H", len(exif(6)) + 2) + exif(6, ">")
    xmp = b"http://ns.adobe.com/xap/1.0/\0"
    other = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    turned = data[:2] + other + b"\xff" + app1 + data[2:]  # with one fill byte
    expected = np.rot90(images.decode(data, "upright"), -1)
    np.testing.assert_array_equal(images.decode(turned, "turned"), expected)


def test_exif_after_the_image_is_not_this_image():
    data = FILES["baseline.jpg"]
    second = encode(PHOTO, "JPEG", exif=exif(6))
    np.testing.assert_array_equal(images.decode(data + second, "two"), images.decode(data, "one"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_malformed_exif_counts_as_upright(kind):
    expected = images.decode(encode(PHOTO, kind, quality=75), "plain")
    whole = exif(6)
    blocks = [whole[:length] for length in range(7, 36)]
    blocks += [exif(value) for value in (0, 9, 65535)]
    blocks += [b"Exif\0\0XX*\0" + whole[10:], whole[:10] + b"\xff" * 4 + whole[14:]]
    for block in blocks:
        image = images.decode(encode(PHOTO, kind, exif=block), "malformed")
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("mode", "pixel", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("LA", (7, 0), (7, 7, 7)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 128), (1, 2, 3)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 0x1234, (0x12, 0x12, 0x12)),
        ("I;16", 255, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pixel_modes(kind, mode, pixel, rgb):
    image = images.decode(encode(Image.new(mode, (2, 1), pixel), kind), "mode")
    assert image.tolist() == [[list(rgb), list(rgb)]]


def test_sixteen_bit_colour_and_grey_agree():
    values = np.array([[0, 255, 256, 1000], [32767, 32768, 65279, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 3], [127, 128, 254, 255]])
    colour = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    pgm = b"P5 4 2 65535\n" + values.astype(">u2").tobytes()
    files = [encode_cv(a, suffix) for a in (values, colour) for suffix in (".png", ".tif")]
    for data in [*files, pgm]:
        image = images.decode(data, "sixteen")
        for channel in range(3):
            np.testing.assert_array_equal(image[:, :, channel], expected)


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    expected = [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    for transparency in (1, bytes([0, 128, 255])):
        data = encode(image, "PNG", transparency=transparency)
        assert images.decode(data, "palette").tolist() == expected


def test_cmyk_without_adobe_marker():
    data = FILES["cmyk.jpg"]
    start = data.index(b"\xff\xee")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    bare = data[:start] + data[end:]
    assert max_difference(images.decode(bare, "bare"), peer(bare)) <= 2


def test_cmyk_colours():
    inks = {(0, 0, 0, 0): 255, (0, 0, 0, 255): 0, (255, 0, 0, 0): (0, 255, 255)}
    for ink, rgb in inks.items():
        data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        image = images.decode(data, "ink")
        assert max_difference(image, np.broadcast_to(rgb, image.shape)) <= 2  # JPEG


def test_animations_give_the_first_frame():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        image = images.decode(data, "animation")
        np.testing.assert_array_equal(image, np.broadcast_to((255, 0, 0), (6, 8, 3)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_one_pixel(kind):
    image = images.decode(encode(np.full((1, 1, 3), 255, np.uint8), kind), "dot", shorter_side=256)
    assert image.tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(dtype):
    data = encode(np.ones((4, 5), dtype), "TIFF")
    with pytest.raises(errors.ImageError, match=r"^depth\.tif: 32-bit pixels"):
        images.decode(data, "depth.tif")


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


def sof_position(jpeg: bytearray) -> int:
    """Where height (2 bytes), width (2), number of components and their samplings stand."""
    return jpeg.index(b"\xff\xc0") + 5


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


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (301, 977)])
@pytest.mark.parametrize("side", [1, 64, 75, 76, 150, 200, 299, 300, 500])
def test_jpeg_is_decoded_at_the_smallest_sufficient_scale(shape, side):
    data = encode(photo(*shape), "JPEG", quality=95)
    image = images.decode(data, "scaled", shorter_side=side)
    shorter = min(shape)
    sufficient = [n for n in range(1, 8) if -(-shorter * n // 8) >= side]
    scale = min(sufficient, default=8)
    assert image.shape[:2] == tuple(-(-length * scale // 8) for length in shape)
    assert min(image.shape[:2]) >= min(side, shorter)
    full = images.resize(images.decode(data, "full"), *image.shape[:2])
    # The scaled transform keeps low frequencies, nearly the area mean of a smooth picture; where
    # sides round up it is shifted by part of a pixel. Unrelated images differ by 80.
    assert np.abs(image.astype(int) - full.astype(int)).mean() < 5


def test_scaled_jpeg_is_turned_after_scaling():
    data = encode(photo(300, 400), "JPEG", exif=exif(6))
    # 300 at 3/8 is 113, at 2/8 only 75.
    assert images.decode(data, "turned", shorter_side=100).shape == (150, 113, 3)


def test_other_formats_keep_their_size():
    assert images.decode(FILES["rgb.png"], "x", shorter_side=10).shape == PHOTO.shape


def test_shorter_side_must_be_positive():
    with pytest.raises(ValueError, match="shorter_side must be at least 1, got 0"):
        images.decode(FILES["rgb.png"], "x", shorter_side=0)


def test_jpeg_of_a_sampling_that_turbojpeg_does_not_know():
    jpeg = bytearray(encode(np.full((8, 8, 3), 128, np.uint8), "JPEG", subsampling=0))
    frame = sof_position(jpeg)
    struct.pack_into(">HH", jpeg, frame, 8, 24)
    jpeg[frame + 6] = 0x31  # three luma blocks to one of each chroma
    scan = jpeg.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    # Standard Huffman codes of a block equal to the last: 00 1010 for luma, 00 00 for chroma.
    bits = "001010" * 3 + "0000" * 2
    bits = bits.ljust(32, "1")
    data = bytes(jpeg[:start]) + int(bits, 2).to_bytes(4, "big") + b"\xff\xd9"
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg_header(data)
    np.testing.assert_array_equal(images.decode(data, "odd"), np.full((8, 24, 3), 128))
    with pytest.raises(errors.ImageError, match="odd: 8x24 is more than 100 pixels"):
        images.decode(data, "odd", limits=images.Limits(100))
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif(6)) + 2) + exif(6) + data[2:]
    assert images.decode(turned, "odd").shape == (24, 8, 3)
    with pytest.raises(errors.ImageError, match="odd: "):
        images.decode(data[:-4], "odd")


def test_jpeg_with_a_harmless_warning_is_decoded():
    jpeg = bytearray(FILES["baseline.jpg"])
    scan = jpeg.index(b"\xff\xda")
    jpeg[scan + 5 + 2 * jpeg[scan + 4] + 1] = 0  # end of the spectrum: baseline ignores it
    with pytest.raises(ValueError, match="Invalid SOS"):
        simplejpeg.decode_jpeg(bytes(jpeg))
    np.testing.assert_array_equal(images.decode(bytes(jpeg), "sos"), peer(FILES["baseline.jpg"]))
    with pytest.raises(errors.ImageError, match="sos: "):
        images.decode(bytes(jpeg[:-40]), "sos")


def test_threads_decode_as_one_does():
    names = [name for name in FILES for _ in range(4)]
    with futures.ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda name: images.decode(FILES[name], name), names)
        for name, image in zip(names, results):
            np.testing.assert_array_equal(image, images.decode(FILES[name], name))


def rows(*values: list[int]) -> np.ndarray:
    """Grey pixels as an RGB image."""
    return np.repeat(np.array(values, np.uint8)[:, :, np.newaxis], 3, axis=2)


def test_resize_literals():
    square = rows([0, 100, 10, 20], [100, 200, 30, 40])
    np.testing.assert_array_equal(images.resize(square, 1, 2), rows([100, 25]))
    np.testing.assert_array_equal(images.resize(square, 2, 2), rows([50, 15], [150, 35]))
    # Linear, pixel centres aligned: the new centres lie at -1/4, 1/4, 3/4, 5/4.
    np.testing.assert_array_equal(images.resize(rows([0, 100]), 1, 4), rows([0, 25, 75, 100]))
    # One side shrinks by areas, then the other grows.
    np.testing.assert_array_equal(
        images.resize(rows([0, 100, 200, 100]), 2, 2), rows([50, 150], [50, 150])
    )
    np.testing.assert_array_equal(
        images.resize(rows([0], [100], [200], [100]), 2, 2), rows([50, 50], [150, 150])
    )


def test_resize_to_the_same_size_is_the_image():
    assert images.resize(PHOTO, 60, 90) is PHOTO
    assert images.resize_shorter(PHOTO, 60) is PHOTO


def test_resize_does_not_alias():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for height in (16, 64, 100):
        small = images.resize(stripes, height, 16)
        assert max_difference(small, np.full((height, 16, 3), 128)) <= 1


@settings(max_examples=50, deadline=None)
@given(
    factors=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_shrinking_by_whole_factors_is_the_block_mean(factors, shape, seed):
    (fy, fx), (height, width) = factors, shape
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height * fy, width * fx, 3), dtype=np.uint8)
    mean = image.reshape(height, fy, width, fx, 3).mean(axis=(1, 3))
    # Half a level of rounding, and up to one more where OpenCV rounds halves otherwise.
    assert np.abs(images.resize(image, height, width) - mean).max() <= 1


@settings(max_examples=50, deadline=None)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    level=st.integers(0, 255),
)
def test_resize_keeps_a_flat_image_flat(old, new, level):
    image = images.resize(np.full((*old, 3), level, np.uint8), *new)
    np.testing.assert_array_equal(image, np.full((*new, 3), level))


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((300, 400), 150, (150, 200)),
        ((400, 300), 150, (200, 150)),
        ((500, 375), 256, (341, 256)),  # 341.33
        ((375, 500), 224, (224, 299)),  # 298.67
        ((2, 5), 1, (1, 3)),  # 2.5
        ((2, 3), 256, (256, 384)),
        ((7, 7), 5, (5, 5)),
    ],
)
def test_resize_shorter_literals(shape, side, expected):
    image = images.resize_shorter(np.zeros((*shape, 3), np.uint8), side)
    assert image.shape == (*expected, 3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40))
def test_resize_shorter_keeps_the_aspect(height, width, side):
    new = images.resize_shorter(np.zeros((height, width, 3), np.uint8), side).shape[:2]
    assert min(new) == side
    for now, before in zip(new, (height, width)):
        assert abs(now - before * side / min(height, width)) <= 0.5


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_resize_refuses_empty_sizes(size):
    with pytest.raises(ValueError, match=f"got {size[0]}x{size[1]}"):
        images.resize(PHOTO, *size)
    with pytest.raises(ValueError, match="at least 1"):
        images.resize_shorter(PHOTO, 0)


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 1), (5, 5, 4), (1, 5, 5, 3), (0, 5, 3)])
def test_functions_refuse_what_is_no_image(shape):
    array = np.zeros(shape, np.uint8)
    for function in (
        lambda: images.resize(array, 2, 2),
        lambda: images.resize_shorter(array, 2),
        lambda: images.crop(array, 0, 0, 1, 1),
        lambda: images.center_crop(array, 1),
    ):
        with pytest.raises(ValueError, match=r"\(H, W, 3\), got"):
            function()


def test_crop_literals():
    grid = rows(*np.arange(20).reshape(4, 5).tolist())
    np.testing.assert_array_equal(images.crop(grid, 1, 2, 2, 3), rows([7, 8, 9], [12, 13, 14]))
    np.testing.assert_array_equal(images.center_crop(grid, 2), rows([6, 7], [11, 12]))
    np.testing.assert_array_equal(images.crop(grid, 0, 0, 4, 5), grid)
    assert np.shares_memory(images.crop(grid, 1, 2, 2, 3), grid)


@pytest.mark.parametrize(
    "box", [(-1, 0, 2, 2), (0, -1, 2, 2), (3, 0, 2, 2), (0, 4, 2, 2), (0, 0, 0, 2), (0, 0, 2, -1)]
)
def test_crop_never_pads(box):
    with pytest.raises(ValueError, match="does not fit an image of 4x5"):
        images.crop(np.zeros((4, 5, 3), np.uint8), *box)


def test_center_crop_never_pads():
    with pytest.raises(ValueError, match="a 5x5 crop does not fit an image of 4x5"):
        images.center_crop(np.zeros((4, 5, 3), np.uint8), 5)


def test_five_crops():
    origins = [arithmetic.five_crop_origin(5, 8, 3, position) for position in range(5)]
    assert origins == [(1, 2), (0, 0), (0, 5), (2, 0), (2, 5)]
    # The corners are the whole image's: the far ones touch both its far edges.
    assert arithmetic.five_crop_origin(256, 341, 224, 4) == (32, 117)
    assert {arithmetic.five_crop_origin(7, 7, 7, position) for position in range(5)} == {(0, 0)}
    with pytest.raises(ValueError, match="got 5"):
        arithmetic.five_crop_origin(5, 8, 3, 5)
    with pytest.raises(ValueError, match="got -1"):
        arithmetic.five_crop_origin(5, 8, 3, -1)
    with pytest.raises(ValueError, match="a 6x6 crop does not fit an image of 5x8"):
        arithmetic.five_crop_origin(5, 8, 6, 0)
    with pytest.raises(ValueError, match="a 0x0 crop"):
        arithmetic.five_crop_origin(5, 8, 0, 0)


def test_odd_images():
    if not ODD_IMAGES.is_dir():
        pytest.skip(f"{ODD_IMAGES} is not there")
    results = {p.name: decode_or_reason(p.read_bytes(), p.name) for p in ODD_IMAGES.iterdir()}
    refused = {name: reason for name, reason in results.items() if isinstance(reason, str)}
    decoded = {name: image for name, image in results.items() if not isinstance(image, str)}
    reasons = {
        "broken.png": "broken PNG file",
        "png_decompression_dos.png": "Decompressed data too large",
        "truncated_image.png": "image file is truncated",
    }
    assert set(refused) == set(reasons)
    for name, reason in refused.items():
        assert reason.startswith(f"{name}: cannot be decoded as ")
        assert reasons[name] in reason
    assert len(decoded) == 13
    for name, image in decoded.items():
        data = (ODD_IMAGES / name).read_bytes()
        assert images.read_size(io.BytesIO(data), name) == image.shape[:2]
        if Image.open(io.BytesIO(data)).mode == "I;16":
            expected = np.asarray(Image.open(io.BytesIO(data)))[:, :, np.newaxis] // 256
            expected = np.broadcast_to(expected, image.shape)
        elif name == "truncated_jpeg.jpg":
            expected = peer(data + b"\xd9")  # half of its end marker is missing, and no pixel
        else:
            expected = peer(data)
        # CMYK rounds differently, see above.
        assert max_difference(image, expected) <= (2 if name == "pil_sample_cmyk.jpg" else 0), name
    small = [images.resize(decoded[f"Landscape_{n}.jpg"], 40, 60) for n in (1, 3, 6, 8)]
    for image in small[1:]:
        # Each is its own JPEG of one picture: they differ by 0.5, or by 67 and more if misturned.
        assert np.abs(image.astype(int) - small[0].astype(int)).mean() < 1


def test_the_configs_limits_reach_training_and_evaluation():
    config = config_lib.Config()
    config.data.max_megapixels, config.data.max_side_ratio = 20e-6, 2.0
    view, protocol = views.TrainView(config.data), protocols.make_protocol(config, "full")
    for shape, message in (((3, 7, 3), "more than 20 pixels"), ((2, 5, 3), "narrower than 1:2")):
        data = encode(np.zeros(shape, np.uint8), "PNG")
        for read in (view.read, protocol):
            with pytest.raises(errors.ImageError, match=message):
                read(data, "x")
    assert view.read(encode(np.zeros((4, 5, 3), np.uint8), "PNG"), "x").shape == (256, 320, 3)
