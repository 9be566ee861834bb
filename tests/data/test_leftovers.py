"""Preparations that were killed: the next one removes what they left, and nothing of the living."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data import leftovers, stock
from spp_jax.data.embedded import digits
from spp_jax.data.imagenet import preparing
from spp_jax.data.sources import opening, tfds_builders
from spp_jax.runs import lock
from tests.support import said

# Makes the digit scenes, 40 and 20 of them, and stops before the 30th.
MAKE = """
import sys, time
from spp_jax.data.embedded import digits
digits.NUM_SCENES = {"train": 40, "test": 20}
make_scene, seconds, calls = digits.make_scene, float(sys.argv[2]), []

def make(*arguments):
    calls.append(arguments)
    if len(calls) == 30:
        print("under way", file=sys.__stdout__, flush=True)  # TFDS is kept quiet
        time.sleep(seconds)
    return make_scene(*arguments)

digits.make_scene = make
digits.prepare(sys.argv[1])
print("made", flush=True)
"""
# The same by the way of TFDS's own sets, which needs no TensorFlow for this one.
MAKE_STOCK = MAKE.replace(
    "digits.prepare(sys.argv[1])",
    """
from spp_jax.data import stock
stock.importlib.util.find_spec = lambda name: name
print(stock.prepare("digit_scenes", "", sys.argv[1]))""",
)


def _start(code: str, *arguments: object, temporary: pathlib.Path | None = None) -> Any:
    variables = {"TMPDIR": str(temporary)} if temporary else {}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | variables,
    )


def _wait_for_work(process: Any) -> None:
    lines = iter(process.stdout.readline, "")  # TFDS says something of its own sets before
    assert "under way\n" in lines


def _kill(process: Any) -> None:
    _wait_for_work(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(digits, "NUM_SCENES", {"train": 40, "test": 20})


@pytest.mark.usefixtures("few")
def test_a_killed_preparation_leaves_nothing_that_grows(tmp_path):
    folder, temporary = tmp_path / "data" / "digit_scenes", tmp_path / "temporary"
    temporary.mkdir()
    names = []
    for _ in range(2):
        _kill(_start(MAKE, tmp_path / "data", 60, temporary=temporary))
        (name,) = (n for n in os.listdir(folder) if n != lock.LOCK_FILE)
        assert name.startswith("incomplete.")
        names.append(name)
    assert names[0] != names[1]
    assert not list(temporary.iterdir())
    (folder / "incomplete.mine").mkdir()  # none of TFDS's names
    (folder / "incomplete.ABCDEF_2.0.0").mkdir()  # of another version
    digits.prepare(tmp_path / "data")
    assert sorted(os.listdir(folder)) == [
        "1.0.0",
        "incomplete.ABCDEF_2.0.0",
        "incomplete.mine",
        lock.LOCK_FILE,
    ]
    assert len(tfds.data_source("digit_scenes", split="train", data_dir=tmp_path / "data")) == 40


def test_a_second_preparation_waits_for_the_first(tmp_path, monkeypatch):
    process = _start(MAKE, tmp_path, 2)
    _wait_for_work(process)
    monkeypatch.setattr(digits, "make_scene", None)  # making a scene would raise TypeError
    heard = said.Recorder()
    digits.prepare(tmp_path, heard)
    assert process.communicate()[0] == "made\n"
    assert len(heard.lines) == 1
    folder = re.escape(str(tmp_path / "digit_scenes"))
    assert re.fullmatch(
        rf"{folder} is in use by process {process.pid} of \S+ since .*; waiting for it", heard.text
    )


def test_of_tfds_own_sets_only_what_is_marked_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "digit_scenes"
    _kill(_start(MAKE_STOCK, tmp_path, 60))
    (name,) = (n for n in os.listdir(folder) if n != lock.LOCK_FILE)
    living = folder / "incomplete.ABCDEF_1.0.0"  # of a process of TFDS's own, that may be at it
    living.mkdir()
    process = _start(MAKE_STOCK, tmp_path, 2)
    _wait_for_work(process)
    assert not (folder / name).exists()
    with monkeypatch.context() as patch:
        patch.setattr(stock.importlib.util, "find_spec", lambda name: name)
        with pytest.raises(errors.InputError, match=rf"in use by process {process.pid} of "):
            stock.prepare("digit_scenes", "", str(tmp_path))
    assert f"digit_scenes is prepared under {folder / '1.0.0'}\n" in process.communicate()[0]
    assert sorted(os.listdir(folder)) == ["1.0.0", living.name, lock.LOCK_FILE]
    assert not (folder / "1.0.0" / leftovers.MARK).exists()
    builder: Any = tfds_builders.open_builder("digit_scenes", str(tmp_path))
    assert builder.info.splits["train"].num_examples == 40


# Stops when all is written, before TFDS gives the folder its name; or right after that.
STOP = """
import sys, time
import etils.epath.gpath
rename, is_before = etils.epath.gpath.PosixGPath.rename, {is_before}

def stop(*arguments):
    if not is_before:
        rename(*arguments)
    print("under way", file=sys.__stdout__, flush=True)
    time.sleep(60)

etils.epath.gpath.PosixGPath.rename = stop
"""


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("is_before", [True, False])
def test_a_set_stays_marked_until_it_has_its_name(tmp_path, monkeypatch, is_before):
    make = MAKE_STOCK.replace("== 30", "== 0")
    _kill(_start(STOP.format(is_before=is_before) + make, tmp_path, 0))
    folder = tmp_path / "digit_scenes"
    (name,) = (n for n in os.listdir(folder) if n != lock.LOCK_FILE)
    assert name.startswith("incomplete." if is_before else "1.0.0")
    assert (folder / name / leftovers.MARK).exists()
    monkeypatch.setattr(stock.importlib.util, "find_spec", lambda name: name)
    words = "is prepared under" if is_before else "is prepared already under"
    assert words in stock.prepare("digit_scenes", "", str(tmp_path))
    assert sorted(os.listdir(folder)) == ["1.0.0", lock.LOCK_FILE]
    assert (folder / "1.0.0" / leftovers.MARK).exists() == (not is_before)
    assert len(tfds.data_source("digit_scenes", split="train", data_dir=tmp_path)) == 40
    source = opening.TfdsSource("digit_scenes", "train", str(tmp_path))
    assert len(source) == 40
    assert source[39].data


def _write_tars(folder: pathlib.Path) -> str:
    """Writes empty tars of the official names."""
    folder.mkdir()
    for name in ("train", "val"):
        with tarfile.open(folder / f"ILSVRC2012_img_{name}.tar", "w"):
            pass
    return str(folder)


def test_imagenet_removes_unfinished_shards_and_is_prepared_once_at_a_time(tmp_path):
    tar_folder, parent = _write_tars(tmp_path / "tars"), tmp_path / "data" / preparing.NAME
    progress = parent / f"{preparing.VERSION}.incomplete" / "progress"
    progress.mkdir(parents=True)
    shard = progress / ("0a" * 16)
    shard.write_bytes(np.zeros(100, np.uint8).tobytes())
    (progress / f"train-00000.json.{'0b' * 16}").write_text("{")
    (progress / "train-00000.json").write_text("{}")

    def prepare() -> str:
        with pytest.raises(errors.InputError) as info:  # the tars hold no images
            preparing.prepare(tar_folder, str(tmp_path / "data"), num_workers=1)
        return str(info.value)

    with lock.hold(str(parent)):
        assert f"{parent} is in use by process {os.getpid()} of" in prepare()
    assert shard.exists()
    prepare()
    assert sorted(os.listdir(progress)) == ["train-00000.json"]
