"""Signals end a command wherever it is, as one exception."""

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
