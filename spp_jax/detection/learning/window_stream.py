"""The batches of fine-tuning: images and windows of step t are a function of seed and t.

A step has a few images and many windows of each, as is usual today. The paper draws the windows of
a step from many images, which needs the maps of all of them on disk.

Shapes: b images of a step · r windows of an image · K classes, labels 1 to K; label 0 is the
background.
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
    objects: dataset.Objects,
    *,
    count: int,
    tune: config_lib.FinetuneConfig,
    include_difficult: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws windows of an image, positives and negatives, from `windows` and its objects' boxes.

    A positive overlaps an object by `tune.min_positive_iou` or more. A negative overlaps one by
    less, but by at least `tune.min_negative_iou`, so that it is hard to tell from positives. If
    there are too few windows of one kind, the same are drawn several times; if there are none,
    all windows are of the other kind.

    Args:
        rng: the source of chance.
        windows: (R, 4).
        objects: of the image.
        count: number of windows to draw.
        tune: overlaps, and `positive_share`, the share of positives.
        include_difficult: whether windows near difficult objects are positives; else they are
            never drawn.

    Returns:
        Windows (count, 4), and labels (count,): 0 for the background, k + 1 for class k, and -1 for
        all windows if there are neither positives nor negatives.
    """
    candidates = np.concatenate([objects.boxes, windows])
    overlap = boxes.iou(candidates, objects.boxes)
    best = overlap.max(axis=1, initial=0)
    nearest = overlap.argmax(axis=1)
    is_near = best >= tune.min_positive_iou
    positives = np.flatnonzero(is_near & objects.is_positive(include_difficult)[nearest])
    is_negative = (best >= tune.min_negative_iou) & (best < tune.min_positive_iou)
    negatives = np.flatnonzero(is_negative)
    num_positives = round(count * tune.positive_share) if len(negatives) else count
    num_positives = num_positives if len(positives) else 0
    num_negatives = count - num_positives if len(negatives) else 0
    drawn = _draw(rng, positives, num_positives), _draw(rng, negatives, num_negatives)
    rows = np.concatenate(drawn)
    if not len(rows):
        return np.zeros((count, 4)), np.full(count, -1)
    return candidates[rows], np.where(is_near[rows], objects.labels[nearest[rows]] + 1, 0)


def _draw(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` of the rows; each at most once if there are enough."""
    if not count:
        return np.zeros(0, np.int64)
    return rng.choice(rows, count, replace=len(rows) < count)


@dataclasses.dataclass(frozen=True)
class WindowStream:
    """The batches of fine-tuning, a `streams.Stream`: each a function of seed and step.

    The images of a step have similar shapes and one scale. All images are drawn equally often, and
    each is mirrored or not, by chance.

    Attributes:
        config: of the detector.
        data: the training split.
        proposer: gives an image its windows.
        backbone: of the network.
        process_index, process_count: which of several processes this one is; each makes its share
            of a batch's rows.
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
        """The indices of the images that can be read and have an object."""
        return tuple(i for i in self.data.sizes if len(self.data.objects[i].boxes))

    @functools.cached_property
    def _groups(self) -> list[tuple[tuple[int, int], list[int]]]:
        """For each group of similar shapes, the canvas at `regions.PLANNED` and the images."""
        sizes = {i: self.data.sizes[i] for i in self.indices}
        members: dict[tuple[int, int], list[int]] = {}
        for batch in regions.plan(sizes, self.config.features, num_devices=1):
            members.setdefault(batch.canvas, []).extend(batch.indices)
        return list(members.items())

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

    def _choose(self, step: int) -> tuple[int, tuple[int, int], list[int]]:
        """Returns the scale, the canvas and the images of a step."""
        rng = np.random.default_rng([self.config.seed, _STEP, step])
        scale = int(rng.choice(self.config.features.scales))
        counts = np.asarray([len(members) for _, members in self._groups], np.float64)
        canvas, members = self._groups[rng.choice(len(counts), p=counts / counts.sum())]
        drawn = rng.choice(members, self.batch_size, replace=len(members) < self.batch_size)
        return scale, regions.scale_canvas(canvas, (scale,))[0], drawn.tolist()

    def size_at(self, step: int) -> tuple[int, int]:
        return self._choose(step)[1]

    def sizes_from(self, step: int) -> tuple[tuple[int, int], ...]:
        del step  # any size may come at any time
        shorter = self.config.features.scales
        return tuple(c for canvas, _ in self._groups for c in regions.scale_canvas(canvas, shorter))

    def batch_spec(self, size: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        rows, count = self.batch_size, self._num_windows
        return {
            "images": ((rows, *size, 3), np.uint8),
            "extents": ((rows, 2), np.int32),
            "windows": ((rows, count, 4), np.int32),
            "labels": ((rows, count), np.int32),
            "weights": ((rows, count), np.float32),
        }

    @property
    def _num_windows(self) -> int:
        """The number of windows of an image."""
        return self.config.finetune.batch_size // self.batch_size

    def example(self, place: int) -> dict[str, Any]:
        step, row = divmod(place, self.local_batch_size)
        row += self.process_index * self.local_batch_size
        scale, canvas, drawn = self._choose(step)
        index, count = drawn[row], self._num_windows
        example = {
            "images": np.zeros((*canvas, 3), np.uint8),
            "extents": np.asarray(canvas, np.int32),
            "windows": np.zeros((count, 4), np.int32),
            "labels": np.zeros(count, np.int32),
            "weights": np.zeros(count, np.float32),
            "refused": "",
        }
        try:
            encoded = self.data.source[index]
            image = images.decode(encoded.data, encoded.name)
            proposals = self.proposer(encoded.data, encoded.name, image)
        except errors.ImageError as e:
            return example | {"refused": str(e)}
        size = image.shape[0], image.shape[1]
        rng = np.random.default_rng([self.config.seed, _WINDOWS, step, row])
        tune = self.config.finetune
        windows, labels = sample_windows(
            rng,
            proposals,
            self.data.objects[index],
            count=count,
            tune=tune,
            include_difficult=self.config.data.has_difficult,
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
            rule=self.config.features.cell_rule,
        )
        height, width, _ = image.shape
        example["images"][:height, :width] = image
        return example | {
            "extents": np.asarray([height, width], np.int32),
            "windows": cells,
            "labels": np.maximum(labels, 0).astype(np.int32),
            "weights": (labels >= 0).astype(np.float32),
        }
