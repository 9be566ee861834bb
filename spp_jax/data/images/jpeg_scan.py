"""The Huffman codes of a baseline JPEG's only scan: where its blocks end, without any pixel.

Decodes codes, not pixels: about a megabyte in a third of a second.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_MOST_BITS = 11  # of the difference of two means, of 8-bit pixels
# Zeros behind the data, more than the codes of one block take.
_SPARE = 300

_ALIKE = 24  # bits: the last byte's and twice as many


class _Table(NamedTuple):
    """For the next 16 bits, read as a number, what they begin with.

    `codes`: the length of the first code times 256 plus its symbol, 0 for no code.
    `steps`: of all the coefficients whose codes are among the 16 bits, how many bits they take,
    plus 128 if they end the block, plus 256 times the places they take; 0 where an encoder writes
    no such code.
    """

    codes: list[int]
    steps: list[int]


class Layout(NamedTuple):
    """What a scan is made of: the tables of the blocks of a unit, in order, for mean and rest."""

    blocks: list[tuple[_Table, _Table]]
    num_units: int
    interval: int  # units between two restart markers, 0 without any


class End(NamedTuple):
    """The bit after a scan's last block, and whether the unit before ends in the same 24 bits.

    Bits count from the last restart marker, zeros for the markers' sake left out.
    """

    bit: int
    is_repeated: bool


class _Bits(NamedTuple):
    """`words[i]` holds the bytes i, i + 1 and i + 2 of the data, which has `size` bits."""

    words: list[int]
    size: int


def read_layout(segments: Iterable[tuple[int, bytes]]) -> Layout | None:
    """Returns the layout of a scan; None for a progressive file or one of several scans.

    Args:
        segments: marker and body, without its length, of each segment up to the scan's data.
    """
    tables: dict[int, _Table] = {}
    sampling: dict[int, tuple[int, int]] = {}
    height = width = interval = 0
    order: list[tuple[int, int]] = []
    for marker, body in segments:
        if marker == 0xC4:
            tables |= _read_tables(body)
        elif marker == 0xDD:
            interval = int.from_bytes(body[:2], "big")
        elif marker in (0xC0, 0xC1):
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            sampling = {
                body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, len(body), 3)
            }
        elif marker == 0xDA:
            order += [(body[i], body[i + 1]) for i in range(1, len(body) - 3, 2)]
    if not sampling or [name for name, _ in order] != list(sampling):
        return None
    if len(sampling) == 1:
        sampling = dict.fromkeys(sampling, (1, 1))
    across, down = (8 * max(s[i] for s in sampling.values()) for i in range(2))
    blocks: list[tuple[_Table, _Table]] = []
    for name, which in order:
        mean, rest = tables.get(which >> 4), tables.get(16 + (which & 15))
        if mean is None or rest is None:
            return None
        blocks += [(mean, rest)] * (sampling[name][0] * sampling[name][1])
    return Layout(blocks, -(-width // across) * -(-height // down), interval)


def find_end(layout: Layout, scan: bytes) -> End | None:
    """Returns where the last block ends; None unless the scan is what an encoder writes, whole.

    That is: each block has known codes and no 65th coefficient, and ones fill the last byte.
    """
    left, end = layout.num_units, None
    for part in _RESTART.split(scan):
        count = min(left, layout.interval or left)
        data = _unstuff(part)
        bits = _to_bits(data)
        before = _read_blocks(bits, 0, layout.blocks * max(count - 1, 0))
        last = before
        if count and 0 <= before <= bits.size:
            last = _read_blocks(bits, before, layout.blocks)
        if not _is_filled(data, last):
            return None
        is_repeated = _ALIKE <= before <= last - 8
        is_repeated &= _last_bits(data, before) == _last_bits(data, last)
        end = End(last, is_repeated)
        left -= count
    return end if left == 0 else None


def reads_on(layout: Layout, scan: bytes, end: End, rest: bytes, is_cut: bool) -> bool:
    """Whether the bytes `rest` after a scan with such an end can all be read as its blocks.

    Where the file `is_cut` the last of them need not be whole. Data that was read out of place may
    be in step again there at any block of a unit.
    """
    data = _unstuff(_RESTART.split(scan)[-1] + rest)[end.bit // 8 :]
    bits = _to_bits(data)
    return any(
        _reads_to_its_end(data, bits, end.bit % 8, layout.blocks[i:] + layout.blocks[:i], is_cut)
        for i in range(len(layout.blocks))
    )


def _read_tables(body: bytes) -> dict[int, _Table]:
    """Returns {class * 16 + number: table} of a segment of Huffman tables."""
    found = {}
    position = 0
    while position + 17 <= len(body):
        counts = body[position + 1 : position + 17]
        stop = position + 17 + sum(counts)
        found[body[position]] = _make_table(counts, body[position + 17 : stop])
        position = stop
    return found


@functools.lru_cache(maxsize=16)  # most files have the tables of the standard
def _make_table(counts: bytes, symbols: bytes) -> _Table:
    codes: list[int] = []
    left = iter(symbols)
    for length, count in enumerate(counts, start=1):
        for _, symbol in zip(range(count), left):
            codes += [256 * length + symbol] * (1 << 16 - length)
    codes = (codes + [0] * (1 << 16))[: 1 << 16]
    return _Table(codes, _find_steps(np.array(codes)).tolist())


def _find_steps(codes: np.ndarray) -> np.ndarray:
    """Returns the steps of a table of coefficients, see `_Table`."""
    length, run, size = codes >> 8, codes >> 4 & 15, codes & 15
    is_known = (codes > 0) & ((size > 0) | (run == 0) | (run == 15))
    is_end = is_known & (codes & 255 == 0)
    num_bits = np.where(is_known, length + size, 0)
    places = np.where(is_known & ~is_end, run + 1, 0)
    one = num_bits + 128 * is_end + 256 * places
    steps = one.copy()
    while True:
        used = np.minimum(steps & 127, 16)
        following = np.arange(1 << 16) << used & 0xFFFF
        is_seen = is_known & (steps & 128 == 0) & is_known[following]
        is_seen &= length[following] <= 16 - used
        if not is_seen.any():
            return steps
        steps += np.where(is_seen, one[following], 0)


def _unstuff(scan: bytes) -> bytes:
    """Returns the data without the zero that follows each byte 255, for its markers' sake."""
    return scan.replace(b"\xff\x00", b"\xff")


def _to_bits(data: bytes) -> _Bits:
    padded = np.frombuffer(data + bytes(_SPARE), np.uint8).astype(np.int32)
    words = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    return _Bits(words.tolist(), 8 * len(data))


def _last_bits(data: bytes, stop: int) -> int:
    """Returns the value of the bits before `stop` that two units are compared by."""
    some = data[max(0, stop - _ALIKE) // 8 : -(-stop // 8)]
    return (int.from_bytes(some, "big") >> -stop % 8) & ((1 << _ALIKE) - 1)


def _is_filled(data: bytes, end: int) -> bool:
    """Whether the data ends within a byte after bit `end`, with ones; not for a negative one."""
    num_left = 8 * len(data) - end
    ones = (1 << num_left) - 1 if 0 <= num_left < 8 else 0
    return 0 <= num_left < 8 and end >= 0 and (not ones or data[-1] & ones == ones)


def _reads_to_its_end(
    data: bytes, bits: _Bits, position: int, order: Sequence[tuple[_Table, _Table]], is_cut: bool
) -> bool:
    """Whether all that is left of the data, some bytes, can be read as blocks."""
    for tables in itertools.cycle(order):
        position = _read_blocks(bits, position, [tables])
        if position > bits.size:
            return is_cut
        if position < 0 or _is_filled(data, position):
            return position >= 0
    return False


def _read_blocks(bits: _Bits, start: int, blocks: Sequence[tuple[_Table, _Table]]) -> int:
    """Returns the bit after as many blocks, each of its tables; -1 where an encoder writes none.

    Beyond the last bit where the data does not suffice.
    """
    words, size = bits
    position = start
    for mean, rest in blocks:
        code = mean.codes[words[position >> 3] >> 8 - (position & 7) & 0xFFFF]
        if not code or code & 255 > _MOST_BITS:
            return -1 if position + 16 <= size else size + 1
        position += (code >> 8) + (code & 255)
        first, k = position, 1
        steps = rest.steps
        while True:
            step = steps[words[position >> 3] >> 8 - (position & 7) & 0xFFFF]
            position += step & 127
            k += step >> 8
            if k > 63 or not step:
                # A full block has no code for its end: of the codes seen some are not its own.
                position = _read_codes(bits, first, rest.codes)
                break
            if step & 128:
                break
        if position < 0 or position > size:
            return min(position, size + 1)
    return position


def _read_codes(bits: _Bits, position: int, codes: list[int]) -> int:
    """Returns the bit after the coefficients of a block but the mean, as `_read_blocks` does."""
    k = 1
    while k < 64:
        code = codes[bits.words[position >> 3] >> 8 - (position & 7) & 0xFFFF]
        run, size = code >> 4 & 15, code & 15
        position += (code >> 8) + size
        if position + (0 if code else 16) > bits.size:
            return bits.size + 1
        if not code or (size == 0 and run not in (0, 15)):
            return -1
        if not run and not size:
            break  # the rest is zeros
        k += run + 1
        # Sixteen zeros are written only where another coefficient follows.
        if k > (64 if size else 63):
            return -1
    return position
