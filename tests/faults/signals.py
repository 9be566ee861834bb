"""Signals in every phase of every command: it ends soon, says so, and the work can go on."""

import contextlib
import functools
import os
import pathlib
import re
import signal
import time

import numpy as np

from tests.faults import processes, work
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

COUNT = 50
# Until the handlers stand; whoever is faster ends Python itself.
_FIRST_SECONDS = 0.15
_LAST_SECONDS = 12.0
_KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_MAX_SECONDS = 15.0  # from the signal to the end, while two cases share two cores


def _stopped(job: work.Work, stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Stops a command by a signal, looks how it ends, and lets the same command go on."""
    output, log = folder / "output", folder / "log"
    output.mkdir()
    job.begin(stage, output)
    number = _KINDS[int(rng.integers(len(_KINDS)))]
    command = job.command(stage, output)
    if job.workers_flag and rng.uniform() < 0.2:
        command.append(job.workers_flag)
    delay = float(rng.uniform(_FIRST_SECONDS, _LAST_SECONDS))
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(_pipe(log)) if number == signal.SIGPIPE else None
        process = processes.start(command, log)
        stack.enter_context(process.leaves_no_process())
        if process.ended.wait(delay):
            raise_unless_done(process, {0})
            return "was done before"
        start = time.monotonic()
        if reader is not None:
            os.close(reader)
        elif number == signal.SIGINT:  # a terminal sends it to all processes
            os.killpg(process.pid, number)
        else:
            process.send(number)
        process.wait(_MAX_SECONDS if reader is None else 100)
        seconds = time.monotonic() - start
    if reader is None:
        raise_unless_done(process, {0, 128 + number})
        text = log.read_text(errors="replace")
        if process.code and not re.search(r"interrupted|stopped|saved step|SIG", text):
            raise Broken("silent", f"exit code {process.code}, nothing said: {text[-800:]}")
    else:
        raise_unless_done(process, {0, 128 + signal.SIGHUP, 128 + signal.SIGPIPE})
        log.unlink()
    processes.run(job.command(stage, output), log)
    if job.digest(output) != job.unbroken(stage):
        raise Broken("differs", f"{job.digest(output)}\nis not {job.unbroken(stage)}")
    if not process.code:
        return "went on to its end"
    if reader is not None:
        return "ended as its reader was gone"
    return next(f"ended within {limit} s" for limit in (1, 5, 15, 100) if seconds <= limit)


def raise_unless_done(process: processes.Process, codes: set[int]) -> None:
    """Raises Broken unless a process ended with one of the codes and without a traceback."""
    text = process.text if process.output.is_file() else ""
    if process.code not in codes:
        raise Broken("exit code", f"{process.code}, not of {codes}: {text[-1500:]}")
    if "Traceback" in text:
        raise Broken("traceback", text[-2500:])


@contextlib.contextmanager
def _pipe(path: pathlib.Path):
    """Makes a pipe of that name, and yields its end to read, for the caller to close."""
    os.mkfifo(path)
    yield os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def campaigns() -> list[Campaign]:
    """Returns a campaign of signals for each command."""
    return [
        Campaign(
            f"signal-{job.name}",
            f"{job.name} stopped by Ctrl-C, SIGTERM, SIGHUP or a closed pipe at a random moment",
            "it ends within seconds with 128 + the signal and a sentence; begun again, it gives "
            "the unbroken result",
            functools.partial(_stopped, job),
            COUNT,
            0,
            limit=300,
        )
        for job in work.ALL
    ]
