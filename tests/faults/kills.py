"""Processes killed with -9, at random moments and in the middle of saves; then the work goes on.

A case is one piece of work that is killed KILLS times, begun again by the same command each time,
and at last let through: its result must be, bit for bit, that of the unbroken run.
"""

import functools
import pathlib
import signal
from collections.abc import Callable

import numpy as np

from tests.faults import processes, work
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

KILLS = 5


def _listing(folder: pathlib.Path) -> frozenset[str]:
    """Returns what a folder holds now, at all depths."""
    return frozenset(str(path) for path in folder.rglob("*")) if folder.exists() else frozenset()


def _changes(folder: pathlib.Path) -> Callable[[], bool]:
    """Returns a function that tells whether a folder's listing has changed since."""
    before = _listing(folder)
    return lambda: _listing(folder) != before


def _kill_at_random(
    process: processes.Process, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    """Kills a process at some moment of the seconds after it has begun to write."""
    if process.wait_for(_changes(folder)):
        process.ended.wait(float(rng.uniform(0, 4)))
    process.kill()


def _kill_in_a_save(
    process: processes.Process, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    """Kills a process some milliseconds after one of its files has come, gone or been renamed."""
    for _ in range(int(rng.integers(1, 12))):
        if not process.wait_for(_changes(folder)):
            break
    process.ended.wait(float(rng.uniform(0, 0.02)))
    process.kill()


def _killed(
    job: work.Work,
    kill: Callable[[processes.Process, pathlib.Path, np.random.Generator], None],
    stage: Stage,
    rng: np.random.Generator,
    folder: pathlib.Path,
) -> str:
    output, log = folder / "output", folder / "log"
    output.mkdir()
    for _ in range(KILLS):
        process = processes.start(job.command(stage, output), log)
        with process.leaves_no_process():
            kill(process, output, rng)
        if process.code not in (0, -signal.SIGKILL):
            raise Broken("refused", f"exit code {process.code}: {process.text[-1500:]}")
        if process.code == 0:
            break
    processes.run(job.command(stage, output), log)
    if (ours := job.digest(output)) != (theirs := job.unbroken(stage)):
        raise Broken("differs", f"{ours}\nis not the unbroken run's\n{theirs}")
    left = sorted(path for path in _listing(output) if path.endswith((".new", ".part", "tmp")))
    if left:
        raise Broken("leftovers", f"{left}")
    return "equal to the unbroken run"


def campaigns() -> list[Campaign]:
    """Returns kills of each work, at random moments and in saves."""
    return [
        Campaign(
            f"kill-{moment}-{job.name}",
            f"{job.name} killed with -9 {where}, {KILLS} times a run",
            "begun again, it ends with the bits of the unbroken run",
            functools.partial(_killed, job, kill),
            count // KILLS,
            int(moment == "save" and job is work.TRAINING),
            faults=KILLS,
            limit=400,
            needs=("training", job.name),
        )
        for job in (work.TRAINING, work.EXTRACTION, work.DETECTION)
        for moment, where, kill, count in (
            ("random", "at random moments", _kill_at_random, 20),
            ("save", "while files are written", _kill_in_a_save, 70),
        )
    ]
