"""Images a second from files to batches on the device, beside Pillow and a torch DataLoader.

    python -m benchmarks.input --images=FOLDER --output=docs/results/speed_input.json

FOLDER holds photographs as JPEG files; without it, noise of about their size stands in for them.
They are read as training on ImageNet reads them, shorter side 256, one of five crops of 224 pixels:
once from the files as they are, once from files stored at shorter side 256 (`imagenet2012_256`).
The limit is decoding and resizing alone, from memory, on one core, over the number of cores. At the
end a network trains from these files, and the time it waits for batches is measured.
"""

import functools
import glob
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import cv2
import jax
import numpy as np
import simplejpeg
from absl import flags
from PIL import Image

from benchmarks import peers, steps, timing
from spp_jax import config as config_lib
from spp_jax import errors, sharding
from spp_jax.data.imagenet import preparing
from spp_jax.data.loading import streams, views
from spp_jax.data.sources import folders

_IMAGES = flags.DEFINE_string("images", "", "Folder of JPEG files.")
_COUNT = flags.DEFINE_integer(
    "count", 480, "Images read in a run, whole batches; files are repeated.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images of a batch.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 10, "Steps of training.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each is run, in turns.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

SIDE, CROP = 256, 224


def write_noise(folder: str) -> None:
    """Writes JPEG files as large and as hard to decode as photographs of 500 x 375 pixels."""
    rng = np.random.default_rng(0)
    for number in range(32):
        image = rng.integers(0, 256, (94, 125, 3)).astype(np.uint8)
        image = cv2.resize(image, (500, 375), interpolation=cv2.INTER_CUBIC)
        with open(os.path.join(folder, f"{number}.jpg"), "wb") as f:
            f.write(simplejpeg.encode_jpeg(np.ascontiguousarray(image), 90, "RGB", "420"))


def write_small(files: Sequence[str], folder: str) -> list[str]:
    """Stores files at shorter side 256, as imagenet2012_256 does; returns theirs."""
    small = []
    for number, name in enumerate(files):
        with open(name, "rb") as f:
            data = preparing.encode(f.read(), name)
        small.append(os.path.join(folder, f"small_{number}.jpg"))
        with open(small[-1], "wb") as f:
            f.write(data)
    return small


class Peer:
    """Pillow's decoding and crops, as a torch Dataset; torchvision's way is without drafts."""

    def __init__(self, files: Sequence[str], has_drafts: bool):
        self._files = files
        self._has_drafts = has_drafts

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self._files[index]) as file:
            if self._has_drafts:
                file.draft("RGB", (SIDE, SIDE))  # decodes at a fraction of the size, as ours does
            image = file.convert("RGB")
        scale = SIDE / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, Image.Resampling.BILINEAR)
        top, left = (image.height - CROP) // 2, (image.width - CROP) // 2
        pixels = np.asarray(image)[top : top + CROP, left : left + CROP]
        return peers.torch.from_numpy(np.ascontiguousarray(pixels)), 0


def make_case(name: str, files: Sequence[str]) -> timing.Case:
    """Returns our loader, torch's and plain decoding on `--count` images."""
    chosen = [files[i % len(files)] for i in range(_COUNT.value)]
    cores = os.cpu_count() or 1
    view = views.TrainView(config_lib.DataConfig(view="corners", shorter_side=SIDE, crop_size=CROP))

    def ours() -> list[jax.Array]:
        batches = make_batches(chosen, num_epochs=1)
        placed = [sharding.put_batch(b, sharding.make_mesh())["image"] for b, _ in batches]
        batches.close()
        return placed

    encoded = []
    for path in files:
        with open(path, "rb") as f:
            encoded.append(f.read())

    def decode() -> None:
        for i in range(_COUNT.value):
            view.read(encoded[i % len(encoded)], "image")

    rivals = {}
    if peers.has_torch():
        for kind, has_drafts in (("Pillow, torch DataLoader", False), ("with drafts", True)):
            loader = peers.torch.utils.data.DataLoader(
                Peer(chosen, has_drafts),
                _BATCH_SIZE.value,
                num_workers=cores,
                persistent_workers=True,
                multiprocessing_context="forkserver",  # JAX has threads, which no fork survives
            )
            rivals[kind] = timing.Run(functools.partial(read_all, loader))
    return timing.Case(name, timing.Run(ours), rivals, timing.Run(decode, 1 / cores))


def read_all(loader: Any) -> list[jax.Array]:
    """Puts every batch of a torch DataLoader on the device."""
    return [jax.device_put(images.numpy()) for images, _ in loader]


def make_batches(files: Sequence[str], num_epochs: int) -> streams.TrainBatches:
    """Returns the batches of training on files."""
    source = folders.FolderSource("", ["a"], files, [0] * len(files), "")
    view = views.TrainView(config_lib.DataConfig(view="corners", shorter_side=SIDE, crop_size=CROP))
    stream = streams.TrainStream(source, view, 0, _BATCH_SIZE.value, (CROP,) * num_epochs)
    return streams.TrainBatches(stream, 0, 0)


def share_of_waiting(files: Sequence[str]) -> float:
    """Returns the share of its time that ZF-5's training waits for batches."""
    chosen = [files[i % len(files)] for i in range(_BATCH_SIZE.value * 5)]
    step = steps.Ours("zf5", CROP, "float32", _BATCH_SIZE.value)
    batches = make_batches(chosen, num_epochs=_STEPS.value)
    waited = total = 0.0
    for number in range(_STEPS.value + 2):
        start = time.perf_counter()
        batch, _ = next(batches)
        between = time.perf_counter()
        metrics = step.train_on(batch)
        jax.block_until_ready(metrics)
        if number >= 2:  # the buffers are full
            waited += between - start
            total += time.perf_counter() - start
    batches.close()
    return waited / total


def main(_: list[str]) -> None:
    cv2.setNumThreads(0)
    if _COUNT.value % _BATCH_SIZE.value:
        raise errors.InputError(
            f"--count={_COUNT.value} is no multiple of --batch_size={_BATCH_SIZE.value}"
        )
    with tempfile.TemporaryDirectory() as folder:
        originals = os.path.expanduser(_IMAGES.value)
        if not originals:
            print("no --images: files of noise in their place")
            originals = os.path.join(folder, "noise")
            os.mkdir(originals)
            write_noise(originals)
        files = sorted(glob.glob(os.path.join(glob.escape(originals), "*.[jJ][pP]*")))
        if not files:
            raise errors.InputError(f"no JPEG files in --images={originals}")
        kinds = {"original files": files, "files of shorter side 256": write_small(files, folder)}
        rows = []
        for name, chosen in kinds.items():
            row = timing.measure(make_case(name, chosen), _ROUNDS.value)
            speeds = {k: round(_COUNT.value / t) for k, t in row["seconds"].items()}
            print(f"{name}, images/s: {speeds}", flush=True)
            rows.append(row | {"images_per_second": speeds})
        waiting = {name: share_of_waiting(chosen) for name, chosen in kinds.items()}
    print(f"share of training that waits for batches: {waiting}")
    rows = [row | {"share_of_waiting": waiting[row["case"]]} for row in rows]
    what = f"{_COUNT.value} images"
    libraries = ("grain", "simplejpeg", "pillow", "opencv-contrib-python-headless")
    timing.report(rows, what, "python -m benchmarks.input", _OUTPUT.value, *libraries)


if __name__ == "__main__":
    timing.run(main)
