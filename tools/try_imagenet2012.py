"""Tries ImageNet's way from the tars to a score, with a few images: two minutes.

    python -m tools.try_imagenet2012 --images=FOLDER [--prepare_python=PYTHON]

FOLDER holds images of some ImageNet classes called nWNID_*.JPEG. They are put into two small tars
of the official layout. TFDS's own imagenet2012 is prepared from these by --prepare_python, one
with requirements-prepare.txt (if not given, in a virtual environment made for it), imagenet2012_256
by this Python, which must not have TensorFlow. Then this one trains two steps at each of two sizes
on both and scores the result.
"""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import app, flags, logging

_IMAGES = flags.DEFINE_string("images", None, "Folder of nWNID_*.JPEG.", required=True)
_PREPARE_PYTHON = flags.DEFINE_string("prepare_python", "", "Python that has TensorFlow.")

# TFDS's own builder gives the sorted images of the validation tar its labels from the first on,
# whatever their numbers: a small tar has right labels only if it holds number 1, 2 ... A number
# whose class has no image in the folder is a grey square.
NUM_VALIDATION = 64
SIZES = (224, 180)  # of the preset


def make_tars(images: str, directory: str) -> None:
    """Writes ILSVRC2012_img_train.tar and _val.tar into a directory."""
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    left = {name[:9]: name for name in sorted(os.listdir(images)) if re.match(r"n\d{8}_", name)}
    _, grey = cv2.imencode(".jpg", np.full((300, 400, 3), 128, np.uint8))
    num_real = 0
    with tarfile.open(os.path.join(directory, "ILSVRC2012_img_val.tar"), "w") as tar:
        for number, wnid in enumerate(labels[:NUM_VALIDATION], 1):
            name = left.pop(wnid, None)
            num_real += name is not None
            data = _read(os.path.join(images, name)) if name else grey.tobytes()
            _add(tar, f"ILSVRC2012_val_{number:08}.JPEG", data)
    with tarfile.open(os.path.join(directory, "ILSVRC2012_img_train.tar"), "w") as tar:
        for wnid, name in left.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as class_tar:
                _add(class_tar, f"{wnid}_1.JPEG", _read(os.path.join(images, name)))
            _add(tar, f"{wnid}.tar", inner.getvalue())
    print(f"tars: {len(left)} training images, {num_real} of {NUM_VALIDATION} validation images")


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


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
    builder = tfds.builder(name, data_dir=data_dir)
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
        make_tars(_IMAGES.value, tars)
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
