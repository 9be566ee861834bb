"""One run at a time in a folder, whatever ended the run before."""

import json
import os
import re
import signal
import subprocess
import sys

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
