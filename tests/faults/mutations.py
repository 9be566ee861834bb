"""Damage to bytes, texts and files, drawn at random."""

import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]


def _span(data: bytes, rng: np.random.Generator, longest: int) -> tuple[int, int]:
    """Returns where a part of the data begins and ends."""
    start = int(rng.integers(0, max(1, len(data))))
    return start, min(len(data), start + int(rng.integers(1, longest + 1)))


def flip_bit(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with one to four bits turned over."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5)) if data else 0):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def change_byte(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with a byte replaced by another."""
    at = int(rng.integers(0, max(1, len(data))))
    return data[:at] + bytes([(data[at] + int(rng.integers(1, 256))) % 256]) + data[at + 1 :]


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the beginning of the data."""
    return data[: int(rng.integers(0, max(1, len(data))))]


def zero_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with zeros in place of a part."""
    start, stop = _span(data, rng, 512)
    return data[:start] + bytes(stop - start) + data[stop:]


def fill_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with random bytes in place of a part."""
    start, stop = _span(data, rng, 64)
    return data[:start] + rng.bytes(stop - start) + data[stop:]


def append(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with random bytes behind it."""
    return data + rng.bytes(int(rng.integers(1, 200)))


def insert_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with a part of it there twice, or with random bytes within it."""
    start, stop = _span(data, rng, 64)
    part = data[start:stop] if rng.integers(2) else rng.bytes(stop - start)
    return data[:start] + part + data[start:]


def delete_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data without a part."""
    start, stop = _span(data, rng, 64)
    return data[:start] + data[stop:]


def header_field(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with 1, 2 or 4 bytes of its first 256 set to all zeros or all ones."""
    size = int(rng.choice([1, 2, 4]))
    at = int(rng.integers(0, max(1, min(256, len(data) - size))))
    value = [b"\0", b"\xff", b"\x7f"][int(rng.integers(3))]
    return data[:at] + value + data[at + 1 : at + size].translate(value * 256) + data[at + size :]


BYTES: tuple[Mutation, ...] = (
    flip_bit,
    change_byte,
    truncate,
    zero_block,
    fill_block,
    append,
    insert_block,
    delete_block,
    header_field,
)

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_ODD = (
    *(b"nan", b"NaN", b"Infinity", b"-inf", b"1e999", b"-1", b"0", b"1e-400", b"0x10", b"1_000"),
    *(b"9" * 30, b"9" * 5000, b"-" + b"9" * 400, b"true", b"null", b'""', b'"a\\nb"', b"[]", b"{}"),
    *("\u0661\u0662".encode(), b"\xff\xfe", b"a\0b", b"'", b"2147483648", b"18446744073709551616"),
)


def replace_number(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns a text with something odd in place of one of its numbers."""
    spans = [match.span() for match in _NUMBER.finditer(data)]
    if not spans:
        return append(data, rng)
    start, stop = spans[int(rng.integers(len(spans)))]
    return data[:start] + _ODD[int(rng.integers(len(_ODD)))] + data[stop:]


def change_line(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns a text with a line left out, there twice, swapped with another, or odd."""
    lines = data.splitlines(keepends=True) or [b""]
    i, j = (int(rng.integers(len(lines))) for _ in range(2))
    kind = int(rng.integers(5))
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines.insert(j, lines[i])
    elif kind == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 3:
        lines[i] = _ODD[int(rng.integers(len(_ODD)))] + b"\n"
    else:
        words = lines[i].split(b" ")
        words.insert(int(rng.integers(len(words) + 1)), _ODD[int(rng.integers(len(_ODD)))])
        lines[i] = b" ".join(words)
    return b"".join(lines)


TEXT: tuple[Mutation, ...] = (*BYTES, replace_number, replace_number, change_line, change_line)

_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 2**64, -(2**31), 10**400, 0.5, 1e308, -0.0),
    *(float("nan"), float("inf"), "", "a", "a\nb", "a\0b", "\udcff", "1", "x" * 10_000),
    *([], {}, [[]], [None], [1, "a"], {"a": 1}, [[1, 2, 3]], [[0, 0, 1, 1]] * 3, ["a", "a"]),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the path of every value in a value of JSON, itself not counted."""
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, list) else []
    return [p for key, v in items for p in ((*path, key), *_places(v, (*path, key)))]


def change_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns JSON with one value changed, removed, named otherwise, there twice or nested."""
    value = json.loads(data)
    places = _places(value)
    *path, last = places[int(rng.integers(len(places)))]
    inner = value
    for key in path:
        inner = inner[key]
    kind = int(rng.integers(8))
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(inner, dict):
        inner[str(last) + "x"] = inner.pop(last)
    elif kind == 2 and isinstance(inner, list):
        inner.insert(last, inner[last])
    elif kind == 3:
        inner[last] = "NEST"
        depth = int(rng.choice([100, 300, 600, 900, 1_500, 10_000]))
        opening, closing = [("[", "]"), ('{"a":', "}")][int(rng.integers(2))]
        nested = opening * depth + "0" + closing * depth
        return json.dumps(value).replace('"NEST"', nested).encode()
    elif kind == 4 and isinstance(inner, dict):
        inner[last + "TWICE"] = _VALUES[int(rng.integers(len(_VALUES)))]
        return _dump(value).replace(b"TWICE", b"")
    else:
        inner[last] = _VALUES[int(rng.integers(len(_VALUES)))]
    return _dump(value)


def _dump(value: Any) -> bytes:
    text = json.dumps(value)
    return text.encode()


JSON: tuple[Mutation, ...] = (*TEXT, *[change_json] * 8)


def mutate(data: bytes, rng: np.random.Generator, mutations: Sequence[Mutation] = BYTES) -> bytes:
    """Returns data changed by one to three mutations, of which later ones are of bytes."""
    changed = mutations[int(rng.integers(len(mutations)))](data, rng)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        changed = BYTES[int(rng.integers(len(BYTES)))](changed, rng) if changed else changed
    return changed


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files below a folder at all depths, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
