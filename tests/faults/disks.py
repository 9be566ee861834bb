"""Disks that are full, that fail, that limit files or are read-only: a sentence, nothing lost.

A small file system of its own (tmpfs) is filled, freed and made read-only where this process may
mount one. Errors of the device (EIO) come from failing.c, which the machine's C compiler makes.
"""

import contextlib
import functools
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator

import numpy as np

from tests.faults import processes, work
from tests.faults.broken import Broken, NotTried
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_JOBS = tuple(
    job
    for job in work.ALL
    if job.name in ("training", "extraction", "detection", "evaluation", "import", "crops")
)


# Runs a command under faults.
Run = Callable[[processes.Faults], None]


@contextlib.contextmanager
def _mounted(folder: pathlib.Path) -> Iterator[None]:
    """Mounts a file system of its own on a folder."""
    if not _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", folder):
        raise NotTried("this user cannot mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)


def _mount(*arguments: object) -> bool:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    return done.returncode == 0


def _run_on_a_full_disk(run: Run, output: pathlib.Path, size: int, delay: float) -> None:
    del delay
    used = shutil.disk_usage(output).used
    if not _mount("-o", f"remount,size={used + max(size, 4096)}", output):
        raise NotTried("this user cannot mount a file system")
    run(processes.Faults())
    _mount("-o", "remount,size=1g", output)


def _run_on_a_disk_made_read_only(run: Run, output: pathlib.Path, size: int, delay: float) -> None:
    """After a while, as soon as no file is open for writing, as Linux does it on errors."""
    del size
    over = threading.Event()

    def turn() -> None:
        over.wait(delay)
        while not over.is_set() and not _mount("-o", "remount,ro", output):
            over.wait(0.005)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        run(processes.Faults())
    finally:
        over.set()
        thread.join()
        _mount("-o", "remount,rw", output)


def _run_with_errors(run: Run, output: pathlib.Path, size: int, delay: float) -> None:
    del delay
    variables = {"FAULTS_FOLDER": str(output), "FAULTS_BYTES": str(size)}
    run(processes.Faults(environment=variables))


def _run_with_a_limit(run: Run, output: pathlib.Path, size: int, delay: float) -> None:
    del output, delay
    run(processes.Faults(max_file_bytes=size))


_KINDS = {
    "full": (_run_on_a_full_disk, "a disk (tmpfs) that is full after a random number of bytes"),
    "read-only": (_run_on_a_disk_made_read_only, "a disk that becomes read-only while they run"),
    "failing": (_run_with_errors, "writes that fail with EIO after a random number of bytes"),
    "limited": (_run_with_a_limit, "files that may not pass a random number of bytes (EFBIG)"),
}


def _starved(kind: str, stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Runs a command on a disk that fails, then again on one that does not."""
    job = _JOBS[int(rng.integers(len(_JOBS)))]
    if kind == "failing" and not processes.failing_library():
        raise NotTried("there is no C compiler")
    output, started = folder / "output", []
    output.mkdir()

    def run(faults: processes.Faults) -> None:
        started.append(processes.start(job.command(stage, output), folder / "log", faults))
        with started[0].leaves_no_process():
            started[0].wait(100)

    with _mounted(output) if kind in ("full", "read-only") else contextlib.nullcontext():
        job.begin(stage, output)
        size = int(rng.integers(0, int(1.2 * job.unbroken_bytes(stage))))
        delay = float(rng.uniform(0, job.unbroken_seconds(stage)))
        _KINDS[kind][0](run, output, size, delay)
        return _judge(job, stage, output, started[0])


def _judge(job: work.Work, stage: Stage, output: pathlib.Path, process: processes.Process) -> str:
    """Returns how a command held that a disk failed; lets it go on where that was the end."""
    text, code = process.text, process.code
    if "Traceback" in text:
        raise Broken("traceback", f"{job.name}: {text[-2500:]}")
    if code == 0:
        whole, unbroken = job.digest(output), job.unbroken(stage)
        # A log that cannot be written is dropped, and the run goes on.
        is_dropped = "cannot be written and ends here" in text
        if whole != unbroken and not (is_dropped and whole.split()[:4] == unbroken.split()[:4]):
            raise Broken("differs", f"{job.name}: {text[-1500:]}")
        return "a log was dropped, the result is right" if is_dropped else "the disk was enough"
    sentences = [line for line in text.splitlines() if line.startswith("error: ")]
    if code != 2 or len(sentences) != 1:
        raise Broken("exit code", f"{job.name}: {code}: {text[-1500:]}")
    if str(output) not in sentences[0]:
        raise Broken("no path", f"{job.name}: {sentences[0]}")
    processes.run(job.command(stage, output), process.output)
    if job.digest(output) != job.unbroken(stage) and "metrics" not in text:
        raise Broken("differs", f"{job.name}, begun again: {text[-1500:]}")
    return "refused in a sentence, and begun again"


def campaigns() -> list[Campaign]:
    """Returns a campaign for each kind of failing disk."""
    return [
        Campaign(
            f"disk-{kind}",
            f"{', '.join(job.name for job in _JOBS)} with {fault}",
            "a sentence names the path; begun again, the command gives the unbroken result",
            functools.partial(_starved, kind),
            25,
            0,
            limit=300,
            needs=tuple(job.name for job in _JOBS),
        )
        for kind, (_, fault) in _KINDS.items()
    ]
