"""Finds the EXIF block of an encoded image, and in it the orientation."""

import struct
from typing import BinaryIO

_ORIENTATION_TAG = 0x0112  # TIFF 6.0 and EXIF 2.3


def find_in_jpeg(data: bytes) -> bytes:
    """Finds the EXIF block before the image data; empty if there is none."""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # any marker may be preceded by fill bytes
            position += 1
            continue
        if marker == 0xDA:  # start of scan
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return data[position + 4 : end]
        position = end
    return b""


def find_in_png(file: BinaryIO) -> bytes:
    """Finds the EXIF chunk of a PNG, which may stand behind the pixels; empty if there is none."""
    position = 8
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return b""
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return file.read(length)
        position += 12 + length  # with its checksum


def orientation(exif: bytes) -> int:
    """Reads the orientation, 1..8, from an EXIF block; 1 if it is absent or malformed.

    Pillow's own reader warns about malformed blocks and takes ten times as long.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * num_entries, 12):
            tag, value = struct.unpack_from(order + "H6xH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
