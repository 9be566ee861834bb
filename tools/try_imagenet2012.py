"""Tries ImageNet's way from the tars to a score, with a few images: two minutes.

    python -m tools.try_imagenet2012 --images=FOLDER [--prepare_python=PYTHON]

FOLDER holds images of some ImageNet classes called nWNID_*.JPEG. They are put into two small tars
of the official layout. TFDS's own imagenet2012 is prepared from these by --prepare_python, one
with requirements-prepare.txt (if not given, in a virtual environment made for it), imagenet2012_256
by this Python, which must not have TensorFlow. Then this one trains two steps at each of two sizes
on both and scores the result.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import tensorflow_datasets as tfds
from absl import app, flags, logging

from tools import official_tars

_IMAGES = flags.DEFINE_string("images", None, "Folder of nWNID_*.JPEG.", required=True)
_PREPARE_PYTHON = flags.DEFINE_string("prepare_python", "", "Python that has TensorFlow.")

SIZES = (224, 180)  # of the preset


def make_prepare_python(directory: str) -> str:
    """Makes a virtual environment of requirements-prepare.txt; returns its Python."""
    python = os.path.join(directory, "bin", "python")
    run(sys.executable, "-m", "venv", directory)
    run(python, "-m", "pip", "install", "--quiet", "-r", "requirements-prepare.txt")
    return python


def run(*command: str) -> None:
    """Runs a command, shows it and its time; raises if it fails."""
    print("$", " ".join(command), flush=True)
    start = time.monotonic()
    subprocess.run(command, check=True)
    print(f"  {time.monotonic() - start:.1f} s", flush=True)


def read_labels(name: str, data_dir: str) -> dict[bytes, str]:
    """Returns {file name: class} of both splits; the class as index and name."""
    builder: Any = tfds.builder(name, data_dir=data_dir)
    skip = {"image": tfds.decode.SkipDecoding()}
    sources = [builder.as_data_source(s, decoders=skip) for s in ("train", "validation")]
    names = builder.info.features["label"].names
    labels = {e["file_name"]: int(e["label"]) for source in sources for e in source}
    return {file: f"{label} {names[label]}" for file, label in labels.items()}


def try_training(name: str, data_dir: str, workdir: str) -> None:
    """Trains two steps at each size, and scores."""
    run(
        *(sys.executable, "train.py", "--config=configs/imagenet_multisize.py"),
        *(f"--workdir={workdir}", f"--config.data.name={name}", f"--config.data.path={data_dir}"),
        "--config.run.smoke=True",
    )
    with open(os.path.join(workdir, "metrics.jsonl"), encoding="utf-8") as f:
        steps = [json.loads(line) for line in f]
    sizes = [step["size"] for step in steps if "batch_hash" in step]
    if sorted(sizes) != sorted(SIZES * 2):
        raise SystemExit(f"trained at {sizes}, not two steps at each of {SIZES}")
    run(sys.executable, "eval.py", f"--workdir={workdir}", "--protocol=center")


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    if importlib.util.find_spec("tensorflow"):
        raise SystemExit(f"{sys.executable} has tensorflow: nothing would be shown")
    with tempfile.TemporaryDirectory() as directory:
        tars, data_dir = (os.path.join(directory, name) for name in ("tars", "tfds"))
        os.makedirs(tars)
        official_tars.make_tars(_IMAGES.value, tars)
        pythons = {
            "imagenet2012": _PREPARE_PYTHON.value
            or make_prepare_python(os.path.join(directory, "venv")),
            "imagenet2012_256": sys.executable,
        }
        for name, python in pythons.items():
            prepare = (python, "-m", "spp_jax.data.prepare", name)
            run(*prepare, f"--manual_dir={tars}", f"--data_dir={data_dir}")
        stock, ours = (read_labels(name, data_dir) for name in pythons)
        if stock != ours:
            raise SystemExit("the two sets disagree about classes, file names or labels")
        print(f"both have the same classes, file names and labels: {len(ours)} images", flush=True)
        for name in pythons:
            try_training(name, data_dir, os.path.join(directory, name))


if __name__ == "__main__":
    app.run(main)
