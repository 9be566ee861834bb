"""Memory of long work: after its beginning it grows no more."""

import pathlib
import re
from collections.abc import Callable

import cv2
import numpy as np

from tests.faults import processes
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_MAX_GROWTH = 1.02
_NUM_SIZES = 10
_NUM_STEPS = 2_000
_NUM_IMAGES = 10_000


def _training(stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Trains for 2,000 steps of 10 sizes, in epochs of 6 steps."""
    del rng
    sizes = tuple(range(24, 24 + 4 * _NUM_SIZES, 4))
    command = stage.train(
        folder / "run",
        f"--config.train.sizes={sizes}",
        "--config.data.shorter_side=64",
        f"--config.train.num_epochs={-(-_NUM_STEPS // 6)}",
        "--config.train.eval_every_epochs=1000",
        "--config.train.checkpoint_every_steps=200",
        "--config.train.log_every_steps=10",
    )

    def share(text: str) -> float:
        steps = re.findall(r"^step (\d+)/(\d+)", text, re.MULTILINE)
        return int(steps[-1][0]) / int(steps[-1][1]) if steps else 0.0

    return _watch(command, folder / "log", share)


def _extraction(stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Extracts the features of 10,000 images of as many sizes."""
    pictures = folder / "pictures"
    pictures.mkdir()
    sides = rng.permutation(100 * 100)[:_NUM_IMAGES]
    for number, side in enumerate(sides.tolist()):
        height, width = 40 + side // 100, 40 + side % 100
        image = np.full((height, width, 3), number % 256, np.uint8)
        cv2.imwrite(str(pictures / f"{number}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    output = folder / "x.npy"
    command = [
        *("extract.py", f"--checkpoint={stage.trained}", f"--images={pictures}"),
        *("--layer=conv5", "--levels=2,1", "--scale=40", f"--output={output}"),
    ]

    def share(text: str) -> float:
        del text
        done = pathlib.Path(f"{output}.part") / "done.npy"
        return float(np.mean(np.load(done) != 0)) if done.exists() else 0.0

    return _watch(command, folder / "log", share)


def _watch(command: list[str], log: pathlib.Path, share: Callable[[str], float]) -> str:
    """Runs a command; compares its memory in the last quarter with that in the second."""
    process = processes.start(command, log)
    most = {1: 0, 3: 0}
    while not process.ended.wait(0.1):
        quarter = int(4 * share(process.text))
        if quarter in most:
            most[quarter] = max(most[quarter], _resident_kib(process.pid))
    if process.wait(1):
        raise Broken("failed", process.text[-1500:])
    if not all(most.values()):
        raise Broken("too fast", "no quarter was seen")
    growth = most[3] / most[1]
    if growth > _MAX_GROWTH:
        raise Broken("growth", f"from {most[1]:,} to {most[3]:,} KiB, x {growth:.4f}")
    return f"x {growth:.4f} of {most[1] / 1024:,.0f} MiB"


def _resident_kib(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            return int(re.findall(r"VmRSS:\s+(\d+)", f.read())[0])
    except (OSError, IndexError):
        return 0


def campaigns() -> list[Campaign]:
    """Returns a campaign for each kind of long work."""
    percent = 100 * _MAX_GROWTH - 100
    right = f"its memory grows by at most {percent:.0f} % from the second quarter to the last"
    return [
        Campaign(
            "growth-training",
            f"{_NUM_STEPS:,} steps of training at {_NUM_SIZES} sizes",
            right,
            _training,
            1,
            0,
            limit=900,
        ),
        Campaign(
            "growth-extraction",
            f"extraction of {_NUM_IMAGES:,} images of as many sizes",
            right,
            _extraction,
            1,
            0,
            limit=900,
            needs=("training",),
        ),
    ]
