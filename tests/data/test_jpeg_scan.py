"""The codes of a scan, read many at a time, against one bit at a time."""

import random

import pytest

from spp_jax.data.images import jpeg_scan

# A table of the coefficients: lengths 1 to 16 of so many codes, and their symbols (run, size).
COUNTS = bytes([0, 2, 1, 2, 1, 1] + [0] * 9 + [1])
SYMBOLS = bytes([0x01, 0x00, 0x02, 0x11, 0xF0, 0xE3, 0x20, 0x5A])
MEANS = bytes([0, 3, 1] + [0] * 13), bytes([0, 2, 5, 12])
NUM_PLACES = 64


def _read_slowly(data: bytes, num_blocks: int) -> int:
    """As `_read_blocks` from bit 0, by the text of the standard (T.81, F.2.2)."""
    bits = "".join(f"{byte:08b}" for byte in data)

    def read_code(position: int, counts: bytes, symbols: bytes) -> tuple[int, int]:
        code, first = 0, 0
        for length in range(1, 17):
            code += sum(counts[length - 2 : length - 1])
            code *= 2
            if position + length > len(bits):
                return len(bits) + 1, 0
            offset = int(bits[position : position + length], 2) - code
            if 0 <= offset < counts[length - 1]:
                return position + length, symbols[first + offset]
            first += counts[length - 1]
        return -1, 0

    position = 0
    for _ in range(num_blocks):
        k = 0
        while k < NUM_PLACES:
            position, symbol = read_code(position, *(MEANS if k == 0 else (COUNTS, SYMBOLS)))
            run, size = symbol >> 4, symbol & 15
            position += size
            if position > len(bits):
                return len(bits) + 1
            if position - size < 0 or (k == 0 and size > 11) or symbol == 0x20:
                return -1
            if k and symbol == 0:
                break
            k += run + 1
            if k > NUM_PLACES or (symbol == 0xF0 and k == NUM_PLACES):
                return -1
    return position


@pytest.mark.parametrize("seed", range(4))
def test_blocks_end_where_a_slow_reader_says(seed):
    rng = random.Random(seed)
    table = jpeg_scan._make_table(COUNTS, SYMBOLS)
    mean = jpeg_scan._make_table(*MEANS)
    kinds = []
    for _ in range(300):
        # More bits of zero and fewer codes of 16 bits than by chance, for blocks of 63 codes.
        data = bytes(rng.randrange(256) & rng.randrange(256) for _ in range(rng.randrange(1, 90)))
        num_blocks = rng.randrange(1, 4)
        expected = _read_slowly(data, num_blocks)
        kinds.append("bad" if expected < 0 else "short" if expected > 8 * len(data) else "whole")
        bits = jpeg_scan._to_bits(data)
        assert jpeg_scan._read_blocks(bits, 0, [(mean, table)] * num_blocks) == expected
    assert min(kinds.count(kind) for kind in ("bad", "short", "whole")) >= 5
