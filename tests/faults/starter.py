"""Starts commands quickly: a process that has imported the libraries, and forks for each.

    python -m tests.faults.starter

It reads orders, a JSON per line, on standard input, and answers {"started": PID}, later {"ended":
PID, "code": CODE}. A started process runs train.py and the others as Python would, five seconds
earlier; it leads a session of its own. No library has begun anything, threads least of all, when it
is forked.
"""

import faulthandler
import json
import os
import resource
import runpy
import select
import signal
import sys
import warnings
from typing import Any

import cv2  # noqa: F401
import flax  # noqa: F401
import grain  # noqa: F401
import jax  # noqa: F401
import orbax.checkpoint  # noqa: F401
import rich.progress  # noqa: F401

import spp_jax.evaluation.extraction
import spp_jax.training.loop  # noqa: F401


def serve() -> dict[str, Any] | None:
    """Answers orders until there are no more; returns the order in the process that runs it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    orders = b""
    while True:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            os.read(reader, 1000)
            _tell_ended()
        if 0 in ready:
            more = os.read(0, 100_000)
            if not more:
                return None
            orders += more
            while b"\n" in orders:
                line, _, orders = orders.partition(b"\n")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # forks are told of wherever JAX is imported
                    pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    os.close(reader)
                    os.close(writer)
                    return json.loads(line)
                _tell({"started": pid})


def _tell(answer: dict[str, int]) -> None:
    os.write(1, (json.dumps(answer) + "\n").encode())


def _tell_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def become(order: dict[str, Any]) -> None:
    """Makes this process the one that an order asks for, and runs its command."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output, errors = (
        os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for name in ("output", "errors")
    )
    for number, opened in ((0, nothing), (1, output), (2, errors)):
        os.dup2(opened, number)
    os.chdir(order["folder"])
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # asks a process that hangs
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):  # ignored under nohup
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if order["max_file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["max_file_bytes"],) * 2)
    os.environ.update(order["environment"])
    script, *arguments = order["command"]
    if script == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    given = serve()
    if given is not None:
        become(given)
