"""Processes killed with -9, at random moments and in the middle of saves; then the work goes on.

A case is one piece of work that is killed KILLS times, begun again by the same command each time,
and at last let through: its result must be, bit for bit, that of the unbroken run.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from spp_jax import checkpoint, sharding
from tests.faults import processes
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign, Case
from tests.faults.stage import Stage

KILLS = 5


def parameters(workdir: pathlib.Path) -> str:
    """Returns the newest step of a workdir, SHA-256 of its parameters and of its optimizer, and of
    the batches that led there."""
    step_dir = checkpoint.latest_step_dir(str(workdir))
    if step_dir is None:
        raise Broken("lost", f"no checkpoint in {workdir}")
    layout = sharding.replicated(sharding.make_mesh())
    names = ("params", "optimizer")
    specs = {name: checkpoint.stored_spec(step_dir, name, layout) for name in names}
    digest = {name: hashlib.sha256() for name in names}
    for name, tree in checkpoint.restore(step_dir, **specs).items():
        for leaf in jax.tree.leaves(tree):
            digest[name].update(np.asarray(leaf).tobytes())
    steps = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    batches = hashlib.sha256(repr([line.get("batch_hash") for line in steps]).encode())
    sums = " ".join(d.hexdigest() for d in (*digest.values(), batches))
    return f"step {checkpoint.read_meta(step_dir).step} {sums}"


def _features(output: pathlib.Path) -> str:
    return hashlib.sha256(output.read_bytes()).hexdigest()


def _detector(workdir: pathlib.Path) -> str:
    """Returns the SHA-256 of every array and result of a detector."""
    names = sorted(
        path.relative_to(workdir)
        for pattern in ("*.npz", "detections*/*", "*/*.txt")
        for path in workdir.glob(pattern)
    )
    return "\n".join(
        f"{name} {hashlib.sha256((workdir / name).read_bytes()).hexdigest()}" for name in names
    )


def _listing(folder: pathlib.Path) -> frozenset[str]:
    """Returns what a folder holds now, at all depths."""
    return frozenset(str(path) for path in folder.rglob("*")) if folder.exists() else frozenset()


def _kill_at_random(
    process: processes.Process, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    """Kills a process at some moment of the seconds after it has begun to write."""
    before = _listing(folder)
    if process.wait_for(lambda: _listing(folder) != before):
        process.ended.wait(float(rng.uniform(0, 4)))
    process.kill()


def _kill_in_a_save(
    process: processes.Process, folder: pathlib.Path, rng: np.random.Generator
) -> None:
    """Kills a process some milliseconds after one of its files has come, gone or been renamed."""
    for _ in range(int(rng.integers(1, 12))):
        before = _listing(folder)
        if not process.wait_for(lambda: _listing(folder) != before):
            break
    process.ended.wait(float(rng.uniform(0, 0.02)))
    process.kill()


def _killed(
    command: Callable[[Stage, pathlib.Path], Sequence[str]],
    name: str,
    digest: Callable[[pathlib.Path], str],
    unbroken: Callable[[Stage], pathlib.Path],
    kill: Callable[[processes.Process, pathlib.Path, np.random.Generator], None],
    stage: Stage,
    rng: np.random.Generator,
    folder: pathlib.Path,
) -> str:
    output = folder / "output"
    output.mkdir()
    log = folder / "log"
    for _ in range(KILLS):
        process = processes.start(command(stage, output / name), log)
        with process.leaves_no_process():
            kill(process, output, rng)
        if process.code not in (0, -9):
            raise Broken("refused", f"exit code {process.code}: {process.text[-1500:]}")
        if process.code == 0:
            break
    processes.run(command(stage, output / name), log)
    if (ours := digest(output / name)) != (theirs := digest(unbroken(stage))):
        raise Broken("differs", f"{ours}\nis not the unbroken run's\n{theirs}")
    left = sorted(p for p in _listing(output) if p.endswith((".new", ".part", "tmp")))
    if left:
        raise Broken("leftovers", f"{left}")
    return "equal to the unbroken run"


_WORK = {
    "training": (Stage.train, "run", parameters, lambda stage: stage.trained),
    "extraction": (Stage.extract, "x.npy", _features, lambda stage: stage.features),
    "detection": (Stage.detect, "run", _detector, lambda stage: stage.detector),
}


def _case(work: str, kill: Callable[..., None]) -> Case:
    return functools.partial(_killed, *_WORK[work], kill)


def campaigns() -> list[Campaign]:
    """Returns kills of each work, at random moments and in saves."""
    right = "begun again, it ends with the bits of the unbroken run"
    return [
        Campaign(
            f"kill-{moment}-{work}",
            f"{work} killed with -9 {where}, {KILLS} times a run",
            right,
            _case(work, kill),
            count // KILLS,
            int(moment == "save" and work != "detection"),
            faults=KILLS,
            limit=400,
        )
        for work in _WORK
        for moment, where, kill, count in (
            ("random", "at random moments", _kill_at_random, 50),
            ("save", "while files are written", _kill_in_a_save, 200),
        )
    ]
