"""JPEG files with something amiss around pixels that are all there.

Cameras and programs leave stray bytes before a marker, or no end marker. A decoder reports stray
bytes as well when damaged data made it lose its place, so bytes are taken for stray only where the
pixels before them are proved whole:

- Between the segments of the header anything may stand: each table has a length of its own.
- The end marker may be missing where every scan of the image is there and none ends too soon.
- Bytes after the last scan are stray if they repeat one value and begin right where the image
  ends. Or if the scan is what an encoder writes, and they are not more of it: each block has known
  codes and no 65th coefficient, the last byte is filled with ones, and the bytes after it cannot
  be read as blocks to their end, as the rest of an image can that damage made end too soon.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import simplejpeg

_END = b"\xff\xd9"
_SCAN = 0xDA
_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
# A marker that ends a scan: no byte 255 of its data, nor one of the restarts inside it.
_SCAN_STOP = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
# Frames with other codings, which are not looked into.
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}

# For the next 16 bits the length of the code times 256 plus its symbol, 0 for no code: of the mean
# of a block and of its other coefficients.
_Tables = tuple[list[int], list[int]]

# Fewer bytes of one value may be the end of an image's own data by chance.
_LEAST_RUN = 8
_MOST_BITS = 11  # of the difference of two means, of 8-bit pixels


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
    kept = [data[:2]]
    for start, stop in _segments(data, 2):
        kept.append(data[start:stop])
        if data[start + 1] == _SCAN:
            break
    return b"".join(kept)


def mend(data: bytes) -> Iterator[bytes]:
    """Yields what to try in place of a file that a strict decoder refused, if there is anything.

    What the decoder takes then has the pixels of the file; each is tried where the one before it
    was refused.
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
    while found := _MARKER.search(data, position):
        start = found.end() - 2
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        stop = start + 2 + length
        is_segment = not 0xD0 <= data[start + 1] <= 0xD9 and length >= 2
        if not is_segment or stop > len(data):
            return
        yield start, stop
        position = stop


def _trim(data: bytes) -> _Trimmed | None:
    """Returns the file up to its last scan; None where scans are missing or it is of a rare kind.

    After the last scan means after every bit of every coefficient.
    """
    kept, position = [data[:2]], 2
    missing: dict[int, set[int]] = {}  # coefficients of each component
    is_progressive = False
    while True:
        found = next(_segments(data, position), None)
        if found is None:
            return None
        segment = data[slice(*found)]
        kept.append(segment)
        position, marker = found[1], segment[1]
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
            return _Trimmed(b"".join(kept), scan, end is None)
        kept.append(scan)
        position += len(scan)


def _find_length(trimmed: _Trimmed) -> int | None:
    """Returns how many bytes of the last scan the image needs; None if it needs more."""
    length = len(trimmed.scan)
    complaint = _complaint(trimmed.file())
    counted = re.search(r"(\d+) extraneous bytes before marker 0xd9", complaint)
    if not counted:
        return None
    # The decoder does not count what it had fetched, at most 8 bytes of data.
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
    """Returns what the decoder says of a file, "" if nothing; at an eighth of its size."""
    try:
        simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    return ""


def _ends_at(trimmed: _Trimmed, length: int) -> bool:
    """Whether the image ends there, and what follows in its last scan is stray."""
    scan, stray = trimmed.scan[:length], trimmed.scan[length:]
    last = 0xFF if scan.endswith(b"\xff\x00") else scan[-1]
    if len(stray) >= _LEAST_RUN and len(set(stray)) == 1:
        # Zeros in place of lost data are read as part of the image: its end is among them.
        return last != stray[0]
    return _is_sound(trimmed.header, scan, stray, trimmed.is_cut)


def _is_sound(head: bytes, scan: bytes, stray: bytes, is_cut: bool) -> bool:
    """Whether the data of a baseline file's only scan is what an encoder writes, `stray` not.

    Decodes the codes, not the pixels: about a megabyte in two seconds.
    """
    tables: dict[int, list[int]] = {}
    sampling: dict[int, tuple[int, int]] = {}
    height = width = interval = 0
    order: list[tuple[int, int]] = []
    for start, stop in _segments(head, 2):
        marker, body = head[start + 1], head[start + 4 : stop]
        if marker == 0xC4:
            tables |= _read_tables(body)
        elif marker == 0xDD:
            interval = int.from_bytes(body[:2], "big")
        elif marker in _BASELINE:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            sampling = {
                body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, len(body), 3)
            }
        elif marker == _SCAN:
            order += [(body[i], body[i + 1]) for i in range(1, len(body) - 3, 2)]
    if not sampling or [name for name, _ in order] != list(sampling):
        return False  # progressive, or several scans
    if len(sampling) == 1:
        sampling = dict.fromkeys(sampling, (1, 1))
    across, down = (8 * max(s[i] for s in sampling.values()) for i in range(2))
    blocks = []
    for name, which in order:
        pair = tables.get(which >> 4), tables.get(16 + (which & 15))
        if pair[0] is None or pair[1] is None:
            return False
        blocks += [pair] * (sampling[name][0] * sampling[name][1])
    left = -(-width // across) * -(-height // down)
    end = 0
    parts = _RESTART.split(scan)
    for part in parts:
        count = min(left, interval or left)
        end = _read_blocks(_unstuff(part), 0, blocks * count)
        if not _is_filled(_unstuff(part), end):
            return False
        left -= count
    # Data that was read out of place may be in step again here, at any block of the order; and
    # behind it there may be zeros.
    return left == 0 and not any(
        _reads_to_its_end(_unstuff(parts[-1] + rest), end, blocks[i:] + blocks[:i], is_cut)
        for rest in {stray, stray.rstrip(stray[-1:])}
        for i in range(len(blocks))
    )


def _read_tables(body: bytes) -> dict[int, list[int]]:
    """Returns {class * 16 + number: table, as of `_Tables`} of a segment of Huffman tables."""
    found = {}
    position = 0
    while position + 17 <= len(body):
        counts = body[position + 1 : position + 17]
        symbols = iter(body[position + 17 : position + 17 + sum(counts)])
        table: list[int] = []
        for length, count in enumerate(counts, start=1):
            for _, symbol in zip(range(count), symbols):
                table += [256 * length + symbol] * (1 << 16 - length)
        found[body[position]] = (table + [0] * (1 << 16))[: 1 << 16]
        position += 17 + sum(counts)
    return found


def _unstuff(scan: bytes) -> bytes:
    """Returns the data without the zero that follows each byte 255, for its markers' sake."""
    return scan.replace(b"\xff\x00", b"\xff")


def _is_filled(data: bytes, end: int) -> bool:
    """Whether the data ends within a byte after bit `end`, with ones; not for a negative one."""
    num_left = 8 * len(data) - end
    ones = (1 << num_left) - 1 if 0 <= num_left < 8 else 0
    return 0 <= num_left < 8 and end >= 0 and data[-1] & ones == ones


def _reads_to_its_end(data: bytes, position: int, order: Sequence[_Tables], is_cut: bool) -> bool:
    """Whether all that is left of the data, some bytes, can be read as blocks.

    Where the file is cut the last of them need not be whole.
    """
    for tables in itertools.cycle(order):
        position = _read_blocks(data, position, [tables])
        if position > 8 * len(data):
            return is_cut
        if position < 0 or _is_filled(data, position):
            return position >= 0
    return False


def _read_blocks(data: bytes, start: int, blocks: Sequence[_Tables]) -> int:
    """Returns the bit after as many blocks, each of its tables; -1 where an encoder writes none.

    Beyond the last bit where the data does not suffice.
    """
    position = start // 8  # of the next byte to fetch
    held = -(start % 8)  # bits of those fetched that are not used yet
    window = 0
    for dc, ac in blocks:
        k = 0
        while k < 64:
            if held < 32:
                window = (window & ((1 << max(held, 0)) - 1)) << 64
                window |= int.from_bytes(data[position : position + 8].ljust(8, b"\0"), "big")
                position, held = position + 8, held + 64
            code = (ac if k else dc)[window >> held - 16 & 0xFFFF]
            run, size = code >> 4 & 15, code & 15
            held -= (code >> 8) + size
            if 8 * position - held + (0 if code else 16) > 8 * len(data):
                return 8 * len(data) + 1
            if not code or (
                (size == 0 and run not in (0, 15)) if k else (run or size > _MOST_BITS)
            ):
                return -1
            if k and not run and not size:
                break  # the rest is zeros
            k += run + 1
            # Sixteen zeros are written only where another coefficient follows.
            if k > (64 if size or k == 1 else 63):
                return -1
    return 8 * position - held
