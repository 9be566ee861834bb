"""JPEGs with something amiss around whole pixels are read; those of damaged data are not."""

import contextlib
import io
import random
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.images import jpeg
from tests.data import pictures

END = b"\xff\xd9"
TEXT = b"Taken by a camera in 2004"
PHOTO = pictures.photo(120, 150)
encode = pictures.encode


def _bytes(seed: int, count: int) -> bytes:
    """Bytes as of a camera's notes: any but 255, which would begin a marker."""
    rng = random.Random(seed)
    return bytes(rng.randrange(255) for _ in range(count))


FILES = {
    "420": encode(PHOTO, "JPEG", quality=90, subsampling="4:2:0"),
    "444": encode(PHOTO, "JPEG", quality=90, subsampling="4:4:4"),
    "optimized": encode(PHOTO, "JPEG", quality=60, optimize=True),
    "restarts": encode(PHOTO, "JPEG", quality=90, restart_marker_blocks=7),
    "grey": encode(PHOTO[:, :, 0], "JPEG", quality=90),
    "cmyk": encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=90),
    "exif": encode(PHOTO, "JPEG", exif=pictures.exif(6)),
}
PROGRESSIVE = encode(PHOTO, "JPEG", quality=90, progressive=True)


def _with_strays(data: bytes) -> dict[str, bytes]:
    table, body = data.index(b"\xff\xdb"), data[:-2]
    return {
        "no end marker": body,
        "half an end marker": data[:-1],
        "zeros before the end marker": body + bytes(50) + END,
        "zeros in place of the end marker": body + bytes(512),
        "notes before the end marker": body + _bytes(0, 700) + END,
        "a thumbnail in place of the end marker": body + data,
        "zeros before a table": data[:table] + bytes(16) + data[table:],
        "notes before a table": data[:table] + _bytes(1, 40) + data[table:],
        "all of them": data[:table] + _bytes(2, 9) + body[table:] + bytes(99),
    }


@pytest.mark.parametrize("name", FILES)
def test_stray_bytes_cost_no_pixel(name):
    data = FILES[name]
    whole = images.decode(data, name)
    small = images.decode(data, name, shorter_side=30)
    for what, strayed in _with_strays(data).items():
        np.testing.assert_array_equal(images.decode(strayed, name), whole, err_msg=what)
        image = images.decode(strayed, name, shorter_side=30)
        np.testing.assert_array_equal(image, small, err_msg=what)
        assert images.read_size(io.BytesIO(strayed), name) == whole.shape[:2], what


@pytest.mark.parametrize("name", FILES)
def test_what_is_mended_is_the_file_itself(name):
    for strayed in _with_strays(FILES[name]).values():
        assert list(jpeg.mend(strayed))[-1] == FILES[name]


def _is_taken_strictly(data: bytes) -> bool:
    with contextlib.suppress(ValueError):
        return simplejpeg.decode_jpeg(data, "RGB").size > 0
    return False


# The data of "444" ends in five characters, of which one could not tell whose they are.
@pytest.mark.parametrize("name", [*sorted(FILES.keys() - {"444"}), "progressive"])
def test_text_before_the_end_marker_costs_no_pixel(name):
    options = {"progressive": True, "quality": 87} if name == "progressive" else {}
    data = encode(PHOTO, "JPEG", **options) if options else FILES[name]
    if options:  # with a character there, the scan's end could not be told
        assert data[-3] not in range(32, 127)
    image = images.decode(data[:-2] + TEXT + END, name)
    np.testing.assert_array_equal(image, images.decode(data, name))


@pytest.mark.parametrize("last", [0, 1])
def test_stray_bytes_that_repeat_the_last_of_a_flat_corner(last):
    """A flat unit takes 32 bits of the standard's codes: its last byte is 0 or, filled, 1."""
    num_refused = 0
    for shade in range(0, 250, 3):
        pixels = PHOTO.copy()
        pixels[64:], pixels[:, 80:] = shade, shade
        data = encode(pixels, "JPEG", quality=75, subsampling="4:2:0")
        if data[-3] != last:
            continue
        whole = images.decode(data, "flat")
        np.testing.assert_array_equal(
            images.decode(data[:-2] + bytes([last] * 16) + END, ""), whole
        )
        for length in range(len(data) - 8, len(data) - 2):
            cut = data[:length] + bytes([last] * 16) + END
            outcome = pictures.decode_or_reason(cut, "cut")
            if isinstance(outcome, str):
                num_refused += 1
            elif not _is_taken_strictly(cut):
                np.testing.assert_array_equal(outcome, whole)
    assert num_refused > 0


def test_progressive_files_need_every_scan():
    whole = images.decode(PROGRESSIVE, "whole")
    for what, strayed in _with_strays(PROGRESSIVE).items():
        if what == "notes before the end marker":
            with pytest.raises(errors.ImageError):  # no proof that these are not of the image
                images.decode(strayed, what)
        else:
            np.testing.assert_array_equal(images.decode(strayed, what), whole)
    scans = [i for i in range(len(PROGRESSIVE)) if PROGRESSIVE[i : i + 2] == b"\xff\xda"]
    assert len(scans) == 10
    for start in scans[1:]:
        # With its end marker such a file is one of few scans, which is allowed.
        cut = PROGRESSIVE[:start]
        assert images.decode(cut + END, "few scans").shape == whole.shape
        with pytest.raises(errors.ImageError, match="Premature end"):
            images.decode(cut, "cut between scans")


def test_text_is_refused_where_it_may_stand_for_lost_data():
    whole, cut = FILES["444"][:-2], FILES["420"][:-12]
    assert whole.endswith(b"Wv<{#")
    for data in (whole, cut):
        with pytest.raises(errors.ImageError, match="Corrupt"):
            images.decode(data + TEXT + END, "text")


def _damage(data: bytes, rng: random.Random) -> bytes:
    """Bits turned, bytes lost, doubled or zeroed in the data of the scan."""
    start = data.index(b"\xff\xda") + 14
    place, damaged = rng.randrange(start, len(data) - 8), bytearray(data)
    kind = rng.randrange(5)
    if kind == 0:
        damaged[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del damaged[place : min(place + rng.choice((1, 2, 60)), len(data) - 2)]
    elif kind == 2:
        damaged[place:place] = damaged[place : place + rng.choice((1, 7, 100))]
    elif kind == 3:
        damaged[place : len(data) - 2] = bytes(min(300, len(data) - 2 - place))
    else:
        damaged[place : len(data) - 2] = bytes(rng.choice((9, 99, 4000)))
    return bytes(damaged)


@pytest.mark.parametrize("name", ["420", "444", "restarts", "grey"])
def test_damaged_data_is_refused_as_a_strict_decoder_does(name):
    rng = random.Random(0)
    num_out_of_place = num_taken = 0
    for _ in range(60):
        damaged = _damage(FILES[name], rng)
        try:
            simplejpeg.decode_jpeg(damaged, "RGB")
            continue
        except ValueError as e:
            num_out_of_place += "before marker 0xd9" in str(e)
        for file in (damaged, damaged[:-2], damaged[:-2] + bytes(20)):
            with pytest.raises(errors.ImageError):
                images.decode(file, name)
        for stray in (bytes(16), b"\1" * 16, TEXT):
            file = damaged[:-2] + stray + END
            if not _is_taken_strictly(file):
                outcome = pictures.decode_or_reason(file, name)
                num_taken += not isinstance(outcome, str)
                assert isinstance(outcome, str) or stray == TEXT
    # Of text up to four characters may have been read in place of as many bytes that are missing.
    assert num_taken <= 2
    assert num_out_of_place >= 5  # which looks as if bytes were stray


def test_a_file_cut_anywhere_is_refused_or_exact():
    data = FILES["420"]
    whole = images.decode(data, "whole")
    start = data.index(b"\xff\xda") + 14
    for length in [*range(start, len(data) - 20, 211), *range(len(data) - 20, len(data))]:
        for tail in (b"", END, bytes(30), bytes(3000), bytes(30) + END):
            outcome = pictures.decode_or_reason(data[:length] + tail, "cut")
            if not isinstance(outcome, str):
                assert length >= len(data) - 2
                np.testing.assert_array_equal(outcome, whole)


def test_size_is_checked_before_strays_are_looked_for():
    for side in (20000, 50000):
        bomb = bytearray(FILES["420"])
        struct.pack_into(">HH", bomb, pictures.sof_position(bomb), side, side)
        for what, strayed in _with_strays(bytes(bomb)).items():
            with pytest.raises(errors.ImageError, match=f"{side}x{side} is more than"):
                images.decode(strayed, what)
            with pytest.raises(errors.ImageError, match=f"{side}x{side} is more than"):
                images.read_size(io.BytesIO(strayed), what)


def test_several_pictures_in_a_file_give_the_first():
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    for options in ({"exif": exif}, {}):
        data = encode(pictures[0], "MPO", save_all=True, append_images=pictures[1:], **options)
        alone = encode(pictures[0], "JPEG", **options)
        np.testing.assert_array_equal(images.decode(data, "mpo"), images.decode(alone, "jpg"))
        assert images.read_size(io.BytesIO(data), "mpo") == ((150, 120) if options else (120, 150))
