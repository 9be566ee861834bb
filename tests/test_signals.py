"""Signals end a command wherever it is, as one exception."""

import os
import signal
import subprocess
import sys

import pytest

# Python drops what a callback of its garbage collector raises.
IN_A_CALLBACK = """
import gc, os, sys, time
from spp_jax.runs import signals

number, sent = int(sys.argv[1]), []

def send(*_):
    if not sent:
        sent.append(True)
        os.kill(os.getpid(), number)
        for _ in range(1000):  # where Python looks for signals
            pass

signals.end_like_interrupts()
gc.callbacks.append(send)
try:
    gc.collect()
    time.sleep(30)
except KeyboardInterrupt as e:
    print("ended by", signals.number_of(e))
"""


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_is_not_lost_in_a_callback(number):
    command = [sys.executable, "-c", IN_A_CALLBACK, str(number)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (process.stdout, process.stderr) == (f"ended by {number}\n", "")
    assert process.returncode == 0


# A library written in C that is being loaded makes an error of its own of what a signal raises.
WHILE_LOADING = """
import os, sys, types
from spp_jax.commands import cli
from spp_jax.runs import signals

def load(_):
    try:
        os.kill(os.getpid(), int(number))
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None

number = sys.argv.pop()
nothing = lambda: None
command = types.SimpleNamespace(define_flags=nothing, main=load, EXAMPLES=("",), KIND="Config")
cli.run(command, sys.argv)
"""


@pytest.mark.parametrize("number", [1, 2, 15])
def test_an_error_that_comes_of_a_signal_is_an_interruption(number):
    command = [sys.executable, "-c", WHILE_LOADING, str(number)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (process.stdout, process.stderr) == ("", "interrupted\n")
    assert process.returncode == 128 + number


# TensorStore's callbacks into the event loop that Orbax has closed end so, in its threads.
LATE = """
import sys, types
from spp_jax.commands import cli

class Late:
    def __init__(self, sentence):
        self.sentence = sentence
    def __del__(self):
        raise RuntimeError(self.sentence)

def main(_):
    Late("Event loop is closed")
    Late("something else")
    return 0

nothing = lambda: None
cli.run(types.SimpleNamespace(define_flags=nothing, main=main, EXAMPLES=("",), KIND=""), sys.argv)
"""


def test_callbacks_of_a_write_that_failed_print_nothing():
    process = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stdout) == (0, "")
    assert "something else" in process.stderr
    assert "Event loop is closed" not in process.stderr


def test_a_closed_pipe_is_no_file_that_cannot_be_written(tmp_path):
    (tmp_path / "imagenet2012_256" / "1.0.0").mkdir(parents=True)
    arguments = ["spp_jax.data.prepare", "imagenet2012_256", f"--data_dir={tmp_path}"]
    reader, writer = os.pipe()
    os.close(reader)  # as `| true` does
    command = [sys.executable, "-m", *arguments]
    process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (process.returncode, process.stderr) == (128 + signal.SIGPIPE, b"")
