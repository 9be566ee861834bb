"""Detections of an interrupted evaluation: all before the first damaged line are taken."""

import contextlib
import json
import pathlib
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.detection import detector
from spp_jax.detection.scoring import testing

_FACTS = {"test": {"min_score": -1.5}}
_DETECTIONS = [
    detector.ImageDetections(
        np.arange(i) % 2,
        np.linspace(0.1, 0.7, i, dtype=np.float32),
        np.full((i, 4), i / 3, np.float32),
    )
    for i in range(5)
]


def _open(path: pathlib.Path) -> testing._Unfinished:
    return testing._Unfinished(str(path), _FACTS, frozenset(range(5)), 2)


@pytest.fixture(name="path")
def _path(tmp_path):
    """A file of all five images."""
    path = tmp_path / "test.jsonl"
    with _open(path) as unfinished:
        for i, detections in enumerate(_DETECTIONS):
            unfinished.write(i, detections)
    return path


def _check(path: pathlib.Path, count: int, warning: str = "") -> None:
    """Checks that the first `count` images are taken, and no line of others stays."""
    lines = path.read_bytes().splitlines(keepends=True)
    heard = pytest.warns(errors.InputWarning) if warning else contextlib.nullcontext([])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with heard as messages, _open(path) as unfinished:
            by_image = unfinished.by_image
    assert [str(m.message) for m in messages] == ([f"{path} {warning}"] if warning else [])
    assert sorted(by_image) == list(range(count))
    for i, detections in by_image.items():
        for x, y in zip(detections, _DETECTIONS[i]):
            np.testing.assert_array_equal(x, y)
    assert path.read_bytes() == b"".join(lines[: count + 1])


def test_all_lines_come_back(path):
    for line in path.read_text().splitlines()[1:]:
        *stored, checksum = json.loads(line)
        assert checksum == zlib.crc32(json.dumps(stored).encode())
    _check(path, 5)


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a digit": lambda line: line.replace(b"1.0", b"1.1", 1),
    "no text": lambda line: b"\xff\xfe" + line,
    "no JSON": lambda line: line[:-4] + b"\n",
    "nested": lambda line: b"[" * 100_000 + b"\n",
    "an object": lambda line: b"{}\n",
    "a number": lambda line: b"5\n",
    "another image": lambda line: b"[9, [], [], []]\n",
    "twice": lambda line: b"[0, [], [], []]\n",
    "an image of lists": lambda line: b"[[], [], [], []]\n",
    "a class": lambda line: b"[3, [7], [1.0], [[0, 0, 1, 1]]]\n",
    "a large class": lambda line: b"[3, [" + b"9" * 30 + b"], [1.0], [[0, 0, 1, 1]]]\n",
    "counts": lambda line: b"[3, [0], [], []]\n",
    "more": lambda line: line[:-2] + b", 1]\n",
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_lines_before_a_damaged_one_are_taken(path, damage):
    lines = path.read_bytes().splitlines(keepends=True)
    changed = _DAMAGE[damage](lines[4])
    assert changed != lines[4]
    path.write_bytes(b"".join([*lines[:4], changed, *lines[5:]]))
    _check(path, 3, "is damaged from line 5 on: the images from there are detected again")


def test_a_line_cut_short_is_cut_off(path):
    path.write_bytes(path.read_bytes()[:-3])
    _check(path, 4)


def test_lines_of_an_older_version_are_taken_unchecked(path):
    head, *lines = path.read_text().splitlines()
    lines = [json.dumps(json.loads(line)[:4]) for line in lines[:3]] + lines[3:]
    path.write_text("\n".join([head, *lines]) + "\n")
    _check(path, 5, "is of a version without checksums: damage cannot be seen")


def test_lines_of_another_evaluation_are_not_taken(path):
    path.write_bytes(path.read_bytes().replace(b"-1.5", b"-1.6", 1))
    with _open(path) as unfinished:
        assert not unfinished.by_image
    assert path.read_text() == json.dumps(_FACTS) + "\n"
