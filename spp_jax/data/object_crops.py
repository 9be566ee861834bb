"""Crops around objects, as class folders to pre-train on: section 4.5's way with ILSVRC DET.

    python -m spp_jax.data.object_crops --data=VOCROOT --split=train --output=FOLDER

An image is resized to shorter side 400 in place of 256, as DET's objects are small: half an image's
length, not four fifths. Of random crops those are taken that hold half of an object or more, whose
class is the crop's. FOLDER/CLASS/IMAGE_N.jpg are then what configs/folder_multisize.py trains on;
what no folder can be called is written as `files.escape` has it, "w/o helmet" as "w%2Fo helmet".
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import sys
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from absl import app, flags
from rich import progress

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import voc
from spp_jax.runs import files

_DATA = flags.DEFINE_string("data", None, "VOC's layout, or DET's arranged so.", required=True)
_SPLIT = flags.DEFINE_string("split", "train", "A file of ImageSets/Main.")
_OUTPUT = flags.DEFINE_string("output", None, "The folder to write; new or empty.", required=True)
_SIDE = flags.DEFINE_integer("shorter_side", 400, "Of the resized image, pixels.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 224, "Side of a crop, pixels.", lower_bound=1)
_SHARE = flags.DEFINE_float("share", 0.5, "Least share of an object in its crop.", 0.0, 1.0)
_CROPS = flags.DEFINE_integer("crops", 2, "Crops of an object.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the places of crops.", lower_bound=0)

# Tries to find a crop of an object before it is left out.
_NUM_TRIES = 50


@dataclasses.dataclass(frozen=True)
class Cropper:
    """Cuts crops of the objects of an image; fields as the command's flags."""

    shorter_side: int = 400
    size: int = 224
    share: float = 0.5
    crops: int = 2
    seed: int = 0

    def __call__(
        self, image: np.ndarray, annotation: voc.Annotation, name: str
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (class, (size, size, 3)) crops of an image (H, W, 3).

        Which ones is a function of the seed and `name`. An object larger than a crop can hold the
        share of has none.
        """
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        resized = images.resize_shorter(image, max(self.shorter_side, self.size))
        height, width, _ = resized.shape
        scale = np.asarray([width / image.shape[1], height / image.shape[0]] * 2)
        for item in annotation.objects:
            box, found = np.asarray(item.box) * scale, 0
            for _ in range(_NUM_TRIES):
                left = int(rng.integers(0, width - self.size + 1))
                top = int(rng.integers(0, height - self.size + 1))
                if self._holds(box, left, top):
                    yield item.name, images.crop(resized, top, left, self.size, self.size)
                    found += 1
                    if found == self.crops:
                        break

    def _holds(self, box: np.ndarray, left: int, top: int) -> bool:
        upper = np.maximum(box[:2], [left, top])
        lower = np.minimum(box[2:], [left + self.size, top + self.size])
        shared = np.prod(np.maximum(lower - upper, 0))
        return bool(shared >= self.share * np.prod(box[2:] - box[:2]))


@dataclasses.dataclass(frozen=True)
class _Job:
    source: voc.VocSource
    cropper: Cropper
    output: str

    def __call__(self, index: int) -> tuple[int, str]:
        """Writes the crops of an image; returns how many, and "" or why it has none."""
        try:
            example, annotation = self.source[index], self.source.annotation(index)
            image = images.decode(example.data, example.name)
        except errors.ImageError as e:
            return 0, str(e)
        name = files.escape(self.source.image_ids[index])
        count = 0
        for count, (label, crop) in enumerate(self.cropper(image, annotation, name), start=1):
            folder = os.path.join(self.output, files.escape(label))
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"{name}_{count}.jpg")
            if not cv2.imwrite(path, np.ascontiguousarray(crop[:, :, ::-1])):
                raise errors.InputError(f"{path} cannot be written")
        return count, ""


def write_crops(source: voc.VocSource, cropper: Cropper, output: str) -> tuple[int, list[str]]:
    """Writes the crops of all images, in parallel; returns how many, and what was refused.

    Raises:
        InputError: the output is there and holds something, or cannot be written.
    """
    if os.path.exists(output) and (not os.path.isdir(output) or os.listdir(output)):
        raise errors.InputError(f"--output={output} is there already and not an empty folder")
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"--output={output} cannot be written: {e.strerror}") from e
    columns = (*progress.Progress.get_default_columns(), progress.MofNCompleteColumn())
    pool = concurrent.futures.ProcessPoolExecutor(
        os.cpu_count(), multiprocessing.get_context("spawn")
    )
    with pool, progress.Progress(*columns) as bar:
        done = pool.map(_Job(source, cropper, output), range(len(source)), chunksize=8)
        results = list(bar.track(done, total=len(source), description="crops"))
    return sum(count for count, _ in results), [reason for _, reason in results if reason]


def main(_: list[str]) -> None:
    try:
        source = voc.VocSource(os.path.expanduser(_DATA.value), _SPLIT.value)
        cropper = Cropper(_SIDE.value, _SIZE.value, _SHARE.value, _CROPS.value, _SEED.value)
        count, refused = write_crops(source, cropper, os.path.expanduser(_OUTPUT.value))
    except errors.InputError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    for sentence in refused:
        print(f"refused: {sentence}")
    print(f"{count} crops of {len(source)} images, {len(refused)} refused -> {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
