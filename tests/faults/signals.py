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

SIGNALS = 10
# Until the handlers stand; whoever is faster ends Python itself.
_FIRST_SECONDS = 0.15
_KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_MAX_SECONDS = 15.0  # from the signal to the end, while two cases share two cores


def _stopped(job: work.Work, stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Stops a command by signals, begun again after each, and lets the last one through."""
    output = folder / "output"
    output.mkdir()
    job.begin(stage, output)
    longest = 0.0
    for number in range(SIGNALS):
        longest = max(longest, _stop(job, stage, rng, output, folder / f"log{number}"))
    if not (job.once and _is_done(job, stage, output)):
        processes.run(job.command(stage, output), folder / "log")
    if job.digest(output) != job.unbroken(stage):
        raise Broken("differs", f"{job.digest(output)}\nis not {job.unbroken(stage)}")
    return next(f"ended within {limit} s" for limit in (1, 2, 5, 15) if longest <= limit)


def _stop(
    job: work.Work,
    stage: Stage,
    rng: np.random.Generator,
    output: pathlib.Path,
    log: pathlib.Path,
) -> float:
    """Stops a command by a signal; returns how many seconds it took to end."""
    number = _KINDS[int(rng.integers(len(_KINDS)))]
    command = job.command(stage, output)
    if job.workers_flag and rng.uniform() < 0.2:
        command.append(job.workers_flag)
    delay = float(rng.uniform(_FIRST_SECONDS, job.unbroken_seconds(stage)))
    with contextlib.ExitStack() as stack:
        reader = _open_pipe(log) if number == signal.SIGPIPE else None
        process = processes.start(command, log)
        stack.enter_context(process.leaves_no_process())
        process.ended.wait(delay)
        start = time.monotonic()
        if reader is not None:
            os.close(reader)
            process.wait(100)  # until it prints
            start = time.monotonic()
        elif number == signal.SIGINT and not process.ended.is_set():
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send(number)
        process.wait(_MAX_SECONDS)
        seconds = time.monotonic() - start
    if process.code == -number and (not log.stat().st_size or _is_done(job, stage, output)):
        return seconds  # Python had not begun with the command, or had ended it
    if process.code == 2 and job.once and _is_done(job, stage, output):
        if reader is not None:
            log.unlink()
        return seconds  # a run before was whole: it is refused
    ends = {signal.SIGHUP, signal.SIGPIPE} if reader is not None else {number}
    _check(process, {0, *(128 + end for end in ends)})
    if reader is not None:
        log.unlink()
    return seconds


def _is_done(job: work.Work, stage: Stage, output: pathlib.Path) -> bool:
    try:
        return job.digest(output) == job.unbroken(stage)
    except (Broken, OSError):
        return False


def _check(process: processes.Process, codes: set[int]) -> None:
    """Raises Broken unless a process ended with one of the codes, a sentence and no traceback."""
    text = process.text if process.output.is_file() else "interrupted"
    if process.code not in codes:
        raise Broken("exit code", f"{process.code}, not of {codes}: {text[-1500:]}")
    if "Traceback" in text:
        raise Broken("traceback", text[-2500:])
    if process.code and not re.search(r"interrupted|stopped|saved step", text):
        raise Broken("silent", f"exit code {process.code}, nothing said: {text[-800:]}")


def _open_pipe(path: pathlib.Path) -> int:
    """Makes a pipe of that name; returns its end to read, for the caller to close."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def campaigns() -> list[Campaign]:
    """Returns a campaign of signals for each command."""
    return [
        Campaign(
            f"signal-{job.name}",
            f"{job.name} stopped by Ctrl-C, SIGTERM, SIGHUP or a closed pipe at random moments, "
            f"{SIGNALS} times a run",
            "it ends within seconds with 128 + the signal and a sentence; begun again, it gives "
            "the unbroken result",
            functools.partial(_stopped, job),
            50 // SIGNALS,
            0,
            faults=SIGNALS,
            limit=300,
            needs=("training", job.name, *job.after),
        )
        for job in work.ALL
    ]
