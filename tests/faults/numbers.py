"""Losses that are not finite, at chosen steps: they change nothing, are counted, and end a run."""

import json
import pathlib

import numpy as np

from tests.faults import processes, work
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

# A preset is a program: this one gives some rows of chosen steps a weight that is no number.
_PRESET = """
import runpy
import numpy as np
from spp_jax.data.loading import streams

get_config = runpy.run_path({preset!r})["get_config"]
_example = streams.TrainStream.example

def _damaged(self, place):
    row = _example(self, place)
    if place // self.local_batch_size in {steps!r} and place % self.local_batch_size == {row}:
        row["weight"] = np.float32({value})
    return row

streams.TrainStream.example = _damaged
"""
_STEPS = 12
_MAX_BAD_STEPS = 3


def _injected(stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Trains with damaged steps; compares the checkpoints before and after each of them."""
    is_long = rng.uniform() < 0.3  # more in a row than a run may have
    if is_long:
        first = int(rng.integers(2, _STEPS - _MAX_BAD_STEPS - 1))
        steps = set(range(first, first + _MAX_BAD_STEPS + 1))
    else:
        count = int(rng.integers(1, 4))
        steps = set(rng.choice(np.arange(1, _STEPS), count, replace=False).tolist())
    value = ("np.nan", "np.inf", "-np.inf")[int(rng.integers(3))]
    preset, run = folder / "preset.py", folder / "run"
    preset.write_text(
        _PRESET.format(
            preset=str(stage.root / "train_preset.py"),
            steps=steps,
            row=int(rng.integers(4)),
            value=value,
        )
    )
    flags = ["--config.train.keep_checkpoints=99", f"--config.train.max_bad_steps={_MAX_BAD_STEPS}"]
    command = [f"--config={preset}" if a.startswith("--config=") else a for a in stage.train(run)]
    process = processes.start([*command, *flags], folder / "log")
    code = process.wait(100)
    states = {int(path.name): work.state(path) for path in (run / "checkpoints").iterdir()}
    # Step k of the stream leads from checkpoint k to checkpoint k + 1.
    changed = [
        k for k in states if k - 1 in states and (states[k] == states[k - 1]) != (k - 1 in steps)
    ]
    if changed:
        raise Broken("changed", f"steps {steps}: checkpoints {changed} are not as they should be")
    if is_long != bool(code) or code not in (0, 2):
        raise Broken("exit code", f"{code}, steps {steps}: {process.text[-1500:]}")
    if is_long:
        if "error: " not in process.text or "Traceback" in process.text:
            raise Broken("exit code", process.text[-1500:])
        return "ended with a sentence after too many in a row"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    counted = sum(line.get("bad_steps", 0) for line in lines)
    if counted != len(steps):
        raise Broken("not counted", f"{counted} of {len(steps)} steps: {process.text[-800:]}")
    return "counted, and nothing changed by them"


def campaigns() -> list[Campaign]:
    """Returns the campaign of this file."""
    return [
        Campaign(
            "not-finite",
            "losses of NaN or infinity at chosen steps of training",
            "these steps change no parameter and no momentum and are counted; too many in a row "
            "end the run with its last checkpoint",
            _injected,
            30,
            0,  # tests/training/test_loop.py has it
            needs=("training",),
        )
    ]
