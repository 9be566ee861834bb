"""The same run elsewhere: in fresh processes, and on other numbers of devices."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np

from tests.faults import processes, work
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_DEVICES = (1, 2, 4, 8)


def _fresh(stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Trains in a process that Python starts, with another seed of hashes and compiled anew."""
    environment = {
        "PYTHONHASHSEED": str(int(rng.integers(2**32))),
        "JAX_ENABLE_COMPILATION_CACHE": "false" if rng.uniform() < 0.3 else "true",
    }
    command = [sys.executable, *stage.train(folder / "run")]
    done = subprocess.run(
        command,
        cwd=processes.ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Broken("failed", done.stderr[-1500:])
    if (digest := work.parameters(folder / "run")) != work.TRAINING.unbroken(stage):
        raise Broken("differs", f"{digest}\nis not {work.TRAINING.unbroken(stage)}")
    return "equal to the unbroken run"


def _moved(stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Trains on 8 devices, goes on on 1, 2 and 4 in some order, and ends on 8.

    What one number of devices has saved is read with each of the others.
    """
    run = folder / "run"
    command = stage.train(run, "--config.data.batch_size=8", "--config.train.num_epochs=6")
    digests: dict[int, str] = {}
    for turn, count in enumerate((8, *rng.permutation(_DEVICES[:3]).tolist(), 8)):
        faults = _devices(count)
        output = folder / f"log{turn}"
        process = processes.start(command, output, faults)
        if turn < 4:
            step = 3 * (turn + 1)
            process.wait_for(lambda o=output, s=step: o.exists() and f"step {s}/" in o.read_text())
            process.send(signal.SIGTERM)
        if process.wait(100) != (128 + signal.SIGTERM if turn < 4 else 0):
            raise Broken("exit code", f"{process.code}: {process.text[-1500:]}")
        digests = {n: _digest(run, n, folder / f"digest{turn}-{n}") for n in _DEVICES}
        if len(set(digests.values())) > 1:
            raise Broken("differs", f"saved on {count} devices, read as {digests}")
    if "step 18 " not in digests[1]:
        raise Broken("lost", digests[1])
    return "equal on every number of devices"


def _devices(count: int) -> processes.Faults:
    flags = f"--xla_force_host_platform_device_count={count}"
    return processes.Faults(environment={"XLA_FLAGS": flags})


def _digest(run: pathlib.Path, count: int, output: pathlib.Path) -> str:
    process = processes.start(["-m", "tests.faults.digest", str(run)], output, _devices(count))
    if process.wait(100):
        raise Broken("failed", process.text[-1500:])
    return process.text.strip().splitlines()[-1]


def campaigns() -> list[Campaign]:
    """Returns the campaigns of this file."""
    return [
        Campaign(
            "fresh-processes",
            "training in ten fresh processes, other seeds of hashes, compiled anew or not",
            "one SHA-256 of the parameters, the optimizer and the batches",
            _fresh,
            10,
            0,
            limit=200,
            needs=("training",),
        ),
        Campaign(
            "other-devices",
            "training on 8 devices that goes on on 1, 2 and 4 in some order, then on 8",
            "what was saved is read equally on 1, 2, 4 and 8 devices",
            _moved,
            6,
            0,
            limit=400,
        ),
    ]
