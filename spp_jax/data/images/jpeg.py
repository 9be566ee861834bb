"""Mends JPEG files that have all of their pixels, but stray bytes or no end marker.

Cameras and programs leave stray bytes before a marker, or no end marker. A decoder reports stray
bytes as well when damaged data made it lose its place, so bytes are taken for stray only where the
file shows that the pixels before them are whole:

- Between the segments of the header any bytes may stand, as each segment states its length.
- The end marker may be missing where every scan of the image is there and none ends too soon.
- Bytes after the last scan are stray if they begin right where the image ends and are no part of an
  image: they repeat one value or are text, and the byte before them is not. Before text, if the
  file has a single scan, that scan must also be one that an encoder writes.
- Where the byte before them looks like them, it may itself be stray, in place of a byte that was
  lost: a zero can stand for the last byte of many images. It belongs to the image if the scan is
  one that an encoder writes (each block has known codes and no 65th coefficient, and ones fill the
  last byte), and if the unit before the last ends in the same way.
- Other bytes, and text after up to four characters, are stray if the scan is one that an encoder
  writes and the bytes do not continue it: unlike the rest of an image that damage made end too
  soon, they cannot be read as blocks to their end.

The last two rules apply to files that are not progressive and have a single scan. One case remains
undecidable: a whole file may be the same, byte for byte, as a file that lost its last byte and has
the first of the zeros after it in its place. Such a file is refused, unless a flat corner of the
image shows what that byte was. Damage goes unnoticed where text, or other bytes that are not all
the same, happen to complete the image.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg

from spp_jax.data.images import jpeg_scan

_END = b"\xff\xd9"
_SCAN = 0xDA
_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
# A marker that ends a scan, unlike the bytes 255 of its data and the restart markers inside it.
_SCAN_STOP = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
# Frames with other codings; such files are not mended.
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}

# Fewer bytes of one value may be the end of an image's own data by chance.
_LEAST_RUN = 8
# One byte in three of an image's data is a character, so that fewer may be its own data.
_TEXT = bytes([*b"\t\n\r", *range(32, 127)])
_LEAST_TEXT = 16
# How many of an image's last bytes may look like the stray bytes after them: by chance, or because
# they are stray themselves, read in place of bytes that the image lost.
_MOST_SAME, _MOST_TEXT = 1, 4


class _Trimmed(NamedTuple):
    """A file without stray bytes before its last scan and with nothing after it.

    `header` ends where the data of the last scan, `scan`, begins; `is_cut`: no marker follows it.
    """

    header: bytes
    scan: bytes
    is_cut: bool

    def file(self, length: int | None = None) -> bytes:
        """Returns the whole file, of the last scan no more than `length` bytes."""
        return self.header + self.scan[:length] + _END


def header(data: bytes) -> bytes:
    """Returns the segments before the first scan, without the stray bytes between them."""
    parts = [data[:2]]
    for start, stop in _segments(data, 2):
        parts.append(data[start:stop])
        if data[start + 1] == _SCAN:
            break
    return b"".join(parts)


def mend(data: bytes) -> Iterator[bytes]:
    """Yields mended versions of a file that a strict decoder refused, if there are any.

    Try them in order: the first version that the decoder accepts has the pixels of the file.
    """
    trimmed = _trim(data)
    if trimmed is None:
        return
    yield trimmed.file()
    length = _find_length(trimmed)
    if length is not None and _ends_at(trimmed, length):
        yield trimmed.file(length)


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of each segment from a position to the end marker or a damaged one."""
    while marker := _MARKER.search(data, position):
        start = marker.end() - 2
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        stop = start + 2 + length
        is_segment = not 0xD0 <= data[start + 1] <= 0xD9 and length >= 2
        if not is_segment or stop > len(data):
            return
        yield start, stop
        position = stop


def _trim(data: bytes) -> _Trimmed | None:
    """Returns the file up to its last scan; None where scans are missing or it is of a rare kind.

    The last scan is the one that completes every bit of every coefficient.
    """
    parts, position = [data[:2]], 2
    missing: dict[int, set[int]] = {}  # the incomplete coefficients of each component
    is_progressive = False
    while True:
        span = next(_segments(data, position), None)
        if span is None:
            return None
        segment = data[slice(*span)]
        parts.append(segment)
        position, marker = span[1], segment[1]
        if marker in _OTHER_FRAMES or (marker in (*_BASELINE, _PROGRESSIVE) and missing):
            return None
        if marker in (*_BASELINE, _PROGRESSIVE):
            is_progressive = marker == _PROGRESSIVE
            missing = {name: set(range(64)) for name in segment[10::3]}
        if marker != _SCAN:
            continue
        num_components = segment[4] if len(segment) > 4 else 0
        if len(segment) != 8 + 2 * num_components or not missing:
            return None
        first, last, bits = segment[-3:]
        end = _SCAN_STOP.search(data, position)
        scan = data[position : end.start()] if end else data[position:].rstrip(b"\xff")
        for name in segment[5:-3:2]:
            if not is_progressive:
                missing[name] = set()
            elif bits & 15 == 0:
                missing.get(name, set()).difference_update(range(first, last + 1))
        if not any(missing.values()):
            return _Trimmed(b"".join(parts), scan, end is None)
        parts.append(scan)
        position += len(scan)


def _find_length(trimmed: _Trimmed) -> int | None:
    """Returns how many bytes of the last scan the image needs; None if it needs more."""
    length = len(trimmed.scan)
    complaint = _complaint(trimmed.file())
    counted = re.search(r"(\d+) extraneous bytes before marker 0xd9", complaint)
    if not counted:
        return None
    # The decoder does not count the bytes that it had fetched, at most 8 bytes of data.
    enough = length - int(counted[1])
    too_few = max(0, enough - 17)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if "premature" in _complaint(trimmed.file(middle)).lower():
            too_few = middle
        else:
            enough = middle
    return enough


def _complaint(data: bytes) -> str:
    """Returns the decoder's complaint about a file, "" if it has none, at an eighth of its size."""
    try:
        simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    return ""


def _ends_at(trimmed: _Trimmed, length: int) -> bool:
    """Whether the image ends after `length` bytes of its last scan, and the others are stray."""
    scan, stray = trimmed.scan[:length], trimmed.scan[length:]
    data = scan.replace(b"\xff\x00", b"\xff")
    head = stray[:_LEAST_TEXT]
    is_same, is_text = len(set(stray)) == 1, not head.strip(_TEXT)
    num_same = len(data) - len(data.rstrip(stray[:1]))
    num_text = len(data) - len(data.rstrip(_TEXT)) if is_text else 0
    if num_same > _MOST_SAME or num_text > _MOST_TEXT:
        return False  # lost data, in place of which stray bytes were read
    is_text &= len(head) == _LEAST_TEXT and len(set(head)) >= _LEAST_RUN
    if is_same and len(stray) >= _LEAST_RUN and not num_same:
        return True
    layout = jpeg_scan.read_layout(
        (trimmed.header[start + 1], trimmed.header[start + 4 : stop])
        for start, stop in _segments(trimmed.header, 2)
    )
    end = None if layout is None else jpeg_scan.find_end(layout, scan)
    if is_text and not num_text:
        return layout is None or end is not None
    if layout is None or end is None:
        return False
    if is_same and num_same:
        return end.is_repeated
    return not any(
        jpeg_scan.reads_on(layout, scan, end, rest, trimmed.is_cut) for rest in _rests(stray)
    )


def _rests(stray: bytes) -> set[bytes]:
    """Returns the bytes that may be the rest of an image, should it have ended too soon.

    They are `stray` itself; `stray` without the last byte and its repetitions; and `stray` without
    the text at its end, of which some first characters may belong to the rest.
    """
    rests = {stray, stray.rstrip(stray[-1:])}
    start = len(stray.rstrip(_TEXT))
    if 0 < start <= len(stray) - _LEAST_RUN:
        rests |= {stray[: start + i] for i in range(_LEAST_TEXT)}
    return rests - {b""}
