"""Runs train, eval or extract as several processes on this machine: spp launch -n 4 train ...

Each process has the CPU, or of several GPUs one of its own. Ctrl-C, SIGTERM and SIGHUP go to all of
them. When one fails the others are ended. docs/cluster.md has more, also of clusters.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from spp_jax.commands import cli, console
from spp_jax.runs import signals, workers

Process = subprocess.Popen[Any]

EXAMPLES = (
    "-n 2 train --config=digits_multisize --workdir=runs/digits",
    "-n 2 eval --workdir=runs/digits --protocol=full",
    "-n 2 extract --checkpoint=runs/digits --images=PHOTOGRAPHS --layer=conv5 --output=conv5.npz",
)
# The commands that may be of several processes.
COMMANDS = ("train", "eval", "extract")
# What the others get to end by themselves once one has failed.
_GRACE_SECONDS = 10.0


def start(argv: list[str]) -> NoReturn:
    """Runs `launch -n COUNT COMMAND ...`; the exit code is that of the first process to fail."""
    if cli.HELP & set(argv[1:2]):
        print((__doc__ or "").strip(), "", "Examples:", sep="\n")
        print("\n".join(f"  {argv[0]} {example}" for example in EXAMPLES))
        sys.exit(0)
    count, command = _parse(argv[1:])
    console.guard_streams()
    signals.end_like_interrupts()
    processes = []
    try:
        processes = _start(count, command)
        sys.exit(_wait(processes))
    except KeyboardInterrupt as e:
        number = signals.number_of(e)
        for process in processes:
            process.send_signal(number)
        for process in processes:
            process.wait()
        sys.exit(_worst(processes) or 128 + number)
    finally:
        for process in processes:
            process.kill()


def _parse(arguments: Sequence[str]) -> tuple[int, Sequence[str]]:
    """Returns the number of processes and the command."""
    first = " ".join(arguments[:2])
    text = arguments[1] if arguments[:1] == ["-n"] and len(arguments) > 1 else ""
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        cli.fail(f"launch begins with -n COUNT, from 1 to 1024 processes, got {first!r}")
    command = arguments[2:]
    if not command or command[0] not in COMMANDS:
        given = command[0] if command else ""
        cli.fail(f"launch starts one of {', '.join(COMMANDS)}, got {given!r}")
    return int(text), command


def _start(count: int, command: Sequence[str]) -> list[Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A child has just this process to hear of Ctrl-C from, and dies with it.
    options: Any = {"start_new_session": True, "preexec_fn": workers.terminate_with_parent}
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "spp_jax", *command),
                *(f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"),
                f"--process_id={i}",
            ],
            # What JAX takes of several GPUs; CPUs have no numbers.
            env={**os.environ, "JAX_LOCAL_DEVICE_IDS": str(i)} if count > 1 else None,
            **options,
        )
        for i in range(count)
    ]


def _wait(processes: Sequence[Process]) -> int:
    """Returns 0 when all have ended well, else the exit code of the first that has not."""
    first, deadline = 0, float("inf")
    while None in [process.poll() for process in processes]:
        time.sleep(0.05)
        if not first and (first := _worst(processes)):
            deadline = time.monotonic() + _GRACE_SECONDS
            ended = next(i for i, process in enumerate(processes) if process.returncode)
            console.complain(
                f"error: process {ended} of {len(processes)} ended with exit code {first}, and so "
                "do the others"
            )
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
    return first or _worst(processes)


def _worst(processes: Sequence[Process]) -> int:
    """Returns an exit code of those that have failed by now, 0 if none has."""
    codes = [process.returncode for process in processes if process.returncode]
    return max((128 - code if code < 0 else code for code in codes), default=0)
