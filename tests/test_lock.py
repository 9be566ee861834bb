"""One run at a time in a folder, whatever ended the run before."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from spp_jax import errors
from spp_jax.runs import lock

HOLD = """
import sys, time
from spp_jax.runs import lock
with lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    folder = tmp_path / "work"
    process = _holder(folder)
    sentence = (
        rf"{re.escape(str(folder))} is in use by process {process.pid} of \S+ since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d; wait for it, or take another folder"
    )
    with process:
        with pytest.raises(errors.InputError, match=sentence):
            lock.hold(str(folder)).__enter__()
        process.send_signal(signal.SIGKILL)
    with lock.hold(str(folder)):
        assert json.loads((folder / lock.LOCK_FILE).read_text())["process"] == os.getpid()


def test_who_has_waited_is_named_as_the_holder(tmp_path):
    process, said = _holder(tmp_path), []

    def end(sentence):
        said.append(sentence)
        process.kill()

    with process, lock.hold(str(tmp_path), on_wait=end) as is_locked:
        assert is_locked
        assert json.loads((tmp_path / lock.LOCK_FILE).read_text())["process"] == os.getpid()
    assert len(said) == 1
    assert said[0].endswith("; waiting for it")


def test_what_killed_runs_left_is_removed(tmp_path):
    new = "ab" * 16
    names = {f"config.json.{new}": 4000, f"eval.json.{new}": 10, "model.json": 4000, new: 4000}
    for name, age in names.items():
        (tmp_path / name).touch()
        then = time.time() - age
        os.utime(tmp_path / name, (then, then))
    with lock.hold(str(tmp_path)):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"eval.json.{new}", "model.json", new, lock.LOCK_FILE}


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / lock.LOCK_FILE).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(errors.InputError, match=r"lock.json cannot be written"):
        lock.hold(str(tmp_path)).__enter__()
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(errors.InputError, match=r"x/lock.json cannot be written: "):
        lock.hold(str(tmp_path / "x")).__enter__()
