"""Decoding of every format: pixels, modes, orientation, scale and limits."""

import io
import pathlib
import struct
from concurrent import futures

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.loading import views
from spp_jax.evaluation import protocols
from tests.data.pictures import (
    FILES,
    PHOTO,
    UPRIGHT,
    decode_or_reason,
    encode,
    encode_cv,
    exif,
    max_difference,
    peer,
    photo,
    sof_position,
)

ODD_IMAGES = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "odd_images"


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
