"""The windows that fine-tuning sees: what step t trains on is a function of seed and t.

Windows are sampled image by image, a few images a step, as is usual since; the paper draws those of
a step from many images, which needs the maps of all of them on disk.

Shapes: b images of a step · r windows of an image · K classes, and class 0, the background.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.detection import boxes, dataset
from spp_jax.detection.proposals import proposing
from spp_jax.detection.windows import regions, scales
from spp_jax.models import topology

# Streams of random numbers that must not meet: the images of a step, the windows of an image.
_STEP, _WINDOWS = 3, 4


def sample_windows(
    rng: np.random.Generator,
    windows: np.ndarray,
    known: dataset.Objects,
    count: int,
    tune: config_lib.FinetuneConfig,
    has_difficult: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws windows of an image: (count, 4), and their labels (count,), 0 for background, else k+1.

    A share `positive_share` overlaps an object enough, if any does; the others overlap one less,
    but not by nothing: those are hard. Drawn again and again where there are too few; with none of
    the one kind there are more of the other. With neither, labels are -1. Difficult objects are
    positives if they are to be.
    """
    candidates = np.concatenate([known.boxes, windows])
    overlap = boxes.iou(candidates, known.boxes)
    best = overlap.max(axis=1, initial=0)
    nearest = overlap.argmax(axis=1)
    is_near = best >= tune.min_positive_iou
    positives = np.flatnonzero(is_near & known.is_positive(has_difficult)[nearest])
    is_negative = (best >= tune.min_negative_iou) & (best < tune.min_positive_iou)
    negatives = np.flatnonzero(is_negative)
    num_positives = round(count * tune.positive_share) if len(negatives) else count
    num_positives = num_positives if len(positives) else 0
    num_negatives = count - num_positives if len(negatives) else 0
    drawn = _draw(rng, positives, num_positives), _draw(rng, negatives, num_negatives)
    rows = np.concatenate(drawn)
    if not len(rows):
        return np.zeros((count, 4)), np.full(count, -1)
    return candidates[rows], np.where(is_near[rows], known.labels[nearest[rows]] + 1, 0)


def _draw(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` of the rows, each once if there are as many."""
    if not count:
        return np.zeros(0, np.int64)
    return rng.choice(rows, count, replace=len(rows) < count)


@dataclasses.dataclass(frozen=True)
class WindowStream:
    """Every step's images and windows, a function of seed and step, as a `pipeline.Stream`.

    A step is of images of similar shape at one scale, drawn evenly; an image is mirrored or not.
    """

    config: config_lib.DetectionConfig
    data: dataset.Dataset
    proposer: proposing.Proposer
    backbone: topology.Backbone
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        if not self.indices:
            raise errors.InputError("no training image with an object can be read")

    @functools.cached_property
    def indices(self) -> tuple[int, ...]:
        """The images that can be read and have an object."""
        return tuple(i for i in self.data.sizes if len(self.data.objects[i].boxes))

    @functools.cached_property
    def _groups(self) -> list[tuple[tuple[int, int], list[int]]]:
        """Returns the canvas, at `regions.PLANNED`, and the images of each group."""
        sizes = {i: self.data.sizes[i] for i in self.indices}
        found: dict[tuple[int, int], list[int]] = {}
        for batch in regions.plan(sizes, self.config.features, num_devices=1):
            found.setdefault(batch.canvas, []).extend(batch.indices)
        return list(found.items())

    @property
    def num_steps(self) -> int:
        return self.config.finetune.num_steps

    @property
    def steps_per_epoch(self) -> int:
        return 1

    @property
    def batch_size(self) -> int:
        return self.config.finetune.images_per_batch

    @property
    def local_batch_size(self) -> int:
        return self.batch_size // self.process_count

    def _drawn(self, step: int) -> tuple[int, tuple[int, int], list[int]]:
        """Returns the scale, the canvas and the images of a step."""
        rng = np.random.default_rng([self.config.seed, _STEP, step])
        scale = int(rng.choice(self.config.features.scales))
        counts = np.asarray([len(members) for _, members in self._groups], np.float64)
        canvas, members = self._groups[rng.choice(len(counts), p=counts / counts.sum())]
        drawn = rng.choice(members, self.batch_size, replace=len(members) < self.batch_size)
        return scale, regions.scale_canvas(canvas, (scale,))[0], drawn.tolist()

    def size_at(self, step: int) -> tuple[int, int]:
        return self._drawn(step)[1]

    def sizes_from(self, step: int) -> tuple[tuple[int, int], ...]:
        del step  # any size may come at any time
        shorter = self.config.features.scales
        return tuple(c for canvas, _ in self._groups for c in regions.scale_canvas(canvas, shorter))

    def batch_spec(self, size: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        rows, count = self.batch_size, self._num_windows
        return {
            "image": ((rows, *size, 3), np.uint8),
            "extent": ((rows, 2), np.int32),
            "windows": ((rows, count, 4), np.int32),
            "label": ((rows, count), np.int32),
            "weight": ((rows, count), np.float32),
        }

    @property
    def _num_windows(self) -> int:
        """Of an image."""
        return self.config.finetune.batch_size // self.batch_size

    def example(self, place: int) -> dict[str, Any]:
        step, row = divmod(place, self.local_batch_size)
        row += self.process_index * self.local_batch_size
        scale, canvas, drawn = self._drawn(step)
        index, count = drawn[row], self._num_windows
        found = {
            "image": np.zeros((*canvas, 3), np.uint8),
            "extent": np.asarray(canvas, np.int32),
            "windows": np.zeros((count, 4), np.int32),
            "label": np.zeros(count, np.int32),
            "weight": np.zeros(count, np.float32),
            "refused": "",
        }
        try:
            encoded = self.data.source[index]
            image = images.decode(encoded.data, encoded.name)
            proposals = self.proposer(encoded.data, encoded.name, image)
        except errors.ImageError as e:
            return found | {"refused": str(e)}
        size = image.shape[0], image.shape[1]
        rng = np.random.default_rng([self.config.seed, _WINDOWS, step, row])
        tune = self.config.finetune
        windows, labels = sample_windows(
            rng,
            proposals,
            self.data.objects[index],
            count,
            tune,
            self.config.data.has_difficult,
        )
        image = images.resize_shorter(image, scale)
        if tune.flip and rng.random() < 0.5:
            image = image[:, ::-1]
            windows = np.stack(
                [size[1] - windows[:, 2], windows[:, 1], size[1] - windows[:, 0], windows[:, 3]],
                axis=1,
            )
        cells = scales.to_cells(
            windows,
            size,
            (scale,),
            np.zeros(count, np.int64),
            self.backbone,
            self.backbone.layers[-1].name,
            self.config.features.cell_rule,
        )
        height, width, _ = image.shape
        found["image"][:height, :width] = image
        return found | {
            "extent": np.asarray([height, width], np.int32),
            "windows": cells,
            "label": np.maximum(labels, 0).astype(np.int32),
            "weight": (labels >= 0).astype(np.float32),
        }
