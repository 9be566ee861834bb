"""Crops around objects, as class folders to pre-train on: section 4.5's way with ILSVRC DET.

A class that no folder can be called is written as `files.escape` has it: "w/o helmet" becomes
"w%2Fo helmet".
"""

import dataclasses
import os
import shutil
import zlib
from collections.abc import Iterator

import numpy as np

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import voc
from spp_jax.runs import files, lock, workers
from spp_jax.runs import progress as progress_lib

# Tries to find a crop of an object before it is left out.
_NUM_TRIES = 50


@dataclasses.dataclass(frozen=True)
class Cropper:
    """Cuts crops of the objects of an image; its fields are the flags of the command `crops`."""

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
            box, count = np.asarray(item.box) * scale, 0
            for _ in range(_NUM_TRIES):
                left = int(rng.integers(0, width - self.size + 1))
                top = int(rng.integers(0, height - self.size + 1))
                if self._holds(box, left, top):
                    yield item.name, images.crop(resized, top, left, self.size, self.size)
                    count += 1
                    if count == self.crops:
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
            path = os.path.join(folder, f"{name}_{count}.jpg")
            try:
                os.makedirs(folder, exist_ok=True)
                with files.replacing(path) as f:
                    f.write(images.encode(crop, ".jpg"))
            except OSError as e:
                raise errors.InputError(f"{path} cannot be written: {e.strerror}") from e
        return count, ""


def write_crops(
    source: voc.VocSource,
    cropper: Cropper,
    output: str,
    *,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> tuple[int, list[str]]:
    """Writes the crops of all images, in parallel; returns how many, and what was refused.

    They are written to OUTPUT.part, which becomes OUTPUT when all are there. What a call that was
    ended has left there is removed by the next one.

    Raises:
        InputError: the output is there and holds something, or cannot be written.
    """
    target = os.path.realpath(output)
    part = target + ".part"
    written = os.path.join(part, "crops")
    with lock.hold(part):
        try:
            refusal = _refusal(target)
            if refusal:
                shutil.rmtree(part)
                raise errors.InputError(f"output {output} {refusal}")
            shutil.rmtree(written, ignore_errors=True)
            os.mkdir(written)
            results = _write(_Job(source, cropper, written), progress)
            os.replace(written, target)
            shutil.rmtree(part)
        except OSError as e:
            raise errors.InputError(f"output {output} cannot be written: {e.strerror}") from e
    return sum(count for count, _ in results), [reason for _, reason in results if reason]


def _refusal(target: str) -> str:
    """Returns why crops cannot take the place of a path; "" where they can."""
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        return "is there already and not an empty folder"
    if os.path.ismount(target) or target == os.getcwd():
        return "is in use; give a folder in it"
    return ""


def _write(job: _Job, progress: progress_lib.Progress) -> list[tuple[int, str]]:
    """Runs a job for each image; returns what it returned."""
    count, results = len(job.source), []
    with workers.start(os.cpu_count() or 1) as pool, progress.bar("crops", count) as advance:
        for result in pool.map(job, range(count), chunksize=8):
            results.append(result)
            advance(1)
    return results
