"""What is known of the images of a split before any is decoded: sizes, objects, and what is wrong.

Shapes: G objects of an image. Boxes are (x1, y1, x2, y2) pixels, right and bottom exclusive.
"""

import collections
import dataclasses
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import objects, voc
from spp_jax.detection.scoring import mean_ap


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of an image: boxes (G, 4), classes (G,) and which are difficult (G,)."""

    boxes: np.ndarray
    labels: np.ndarray
    is_difficult: np.ndarray

    def is_positive(self, has_difficult: bool) -> np.ndarray:
        """Returns (G,): which are to be learnt from, all or those that are not difficult."""
        return ~self.is_difficult | has_difficult


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A split.

    Attributes:
        source: its images.
        class_names: of the labels.
        sizes: {index: (height, width)} of the images whose header can be read.
        objects: of each image, also of those that cannot be read.
        refused: a sentence for each image that cannot be read.
        skipped: a sentence for each object left out.
        unknown: {name: count} of objects that are none of the classes.
        damaged: images left out because of their annotation.
        checksums: {index: CRC-32} of the files of the images in `sizes`.
        limits: {index: (height, width)} that the objects of an image are cut to, where they are.
        unsure: images that EXIF turns so that nobody can tell whether their boxes are turned, too.
    """

    source: objects.ObjectSource
    class_names: tuple[str, ...]
    sizes: dict[int, tuple[int, int]]
    objects: tuple[Objects, ...]
    refused: tuple[str, ...]
    skipped: tuple[str, ...]
    unknown: dict[str, int]
    damaged: frozenset[int] = frozenset()
    checksums: dict[int, int] = dataclasses.field(default_factory=dict)
    limits: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict)
    unsure: tuple[int, ...] = ()

    def digest(self) -> str:
        """Returns what stands for the images and their objects."""
        facts = [self.class_names, self.source.image_ids, sorted(self.checksums.items())]
        found = hashlib.sha256(json.dumps(facts).encode())
        for known in self.objects:
            for array in (known.boxes, known.labels, known.is_difficult):
                found.update(array.tobytes())
            found.update(b"|")
        return found.hexdigest()

    def truth(self) -> dict[str, mean_ap.Truth]:
        """Returns the objects by class, for scoring."""
        counts = [len(o.labels) for o in self.objects]
        image = np.repeat(np.arange(len(self.objects)), counts)
        labels = np.concatenate([o.labels for o in self.objects])
        boxes = np.concatenate([o.boxes for o in self.objects])
        is_difficult = np.concatenate([o.is_difficult for o in self.objects])
        return {
            name: mean_ap.Truth(*(x[labels == k] for x in (image, boxes, is_difficult)))
            for k, name in enumerate(self.class_names)
        }

    def lines(self) -> str:
        """Returns a line of counts, and one for each thing that is wrong."""
        count = sum(len(o.labels) for o in self.objects)
        difficult = sum(int(o.is_difficult.sum()) for o in self.objects)
        head = (
            f"{self.source.split}: {len(self.source)} images, {count} objects of "
            f"{len(self.class_names)} classes ({difficult} difficult), {len(self.refused)} images "
            f"refused, {len(self.skipped)} objects skipped"
        )
        others = [f"not a class here: {n} objects of {name}" for name, n in self.unknown.items()]
        refused = [f"refused: {sentence}" for sentence in self.refused]
        uncut = len(self.source) - len(self.damaged) - len(self.limits)
        if uncut:
            others.append(
                f"of no known size: {uncut} images, neither in their annotation nor in a file; "
                f"their boxes are not cut to the image"
            )
        if self.unsure:
            others.append(
                f"turned or mirrored by EXIF: {len(self.unsure)} images, whose boxes are taken to "
                f"be of the upright image; look whether they are, at "
                f"{self.source.name(self.unsure[0])}"
            )
        return "\n".join([head, *refused, *(f"skipped: {s}" for s in self.skipped), *others])


def read(
    source: objects.ObjectSource,
    class_names: Sequence[str] | None = None,
    *,
    skips_damaged: bool = False,
) -> Dataset:
    """Reads the annotations of a split and its images' headers, as `read_objects`."""
    return read_sizes(read_objects(source, class_names, skips_damaged=skips_damaged))


def read_sizes(data: Dataset) -> Dataset:
    """Returns the split with the sizes of its images, or why they cannot be read."""
    sizes, checksums, refused = {}, {}, list(data.refused)
    for i in range(len(data.source)):
        if i in data.damaged:
            continue
        try:
            example = data.source[i]
            sizes[i] = images.read_size(io.BytesIO(example.data), example.name)
            checksums[i] = zlib.crc32(example.data)
        except errors.ImageError as e:
            refused.append(str(e))
    return dataclasses.replace(data, sizes=sizes, checksums=checksums, refused=tuple(refused))


def read_objects(
    source: objects.ObjectSource,
    class_names: Sequence[str] | None = None,
    *,
    skips_damaged: bool = False,
) -> Dataset:
    """Reads the annotations of a split; no image needs to be there.

    Args:
        source: its images.
        class_names: None is all that are found, sorted.
        skips_damaged: leave out images whose annotation is missing or damaged: one may train
            without them, not score.

    Raises:
        InputError: an annotation is missing or damaged, or there is no object.
    """
    annotations, damaged = [], {}
    for i in range(len(source)):
        try:
            annotations.append(source.annotation(i))
        except errors.ImageError as e:
            annotations.append(voc.Annotation(()))
            damaged[i] = str(e)
    if damaged and not skips_damaged:
        first, *others = damaged.values()
        more = f"; nor can {len(others)} more annotations be used" if others else ""
        raise errors.ImageError(first + more)
    found = sorted({o.name for a in annotations for o in a.objects})
    names = tuple(found if class_names is None else class_names)
    if not set(names) & set(found):
        raise errors.InputError(_no_objects(source, names, annotations, damaged))
    index = {name: k for k, name in enumerate(names)}
    unknown: collections.Counter[str] = collections.Counter()
    kept = []
    for annotation in annotations:
        known = [o for o in annotation.objects if o.name in index]
        unknown.update(o.name for o in annotation.objects if o.name not in index)
        kept.append(
            Objects(
                np.asarray([o.box for o in known], np.float64).reshape(-1, 4),
                np.asarray([index[o.name] for o in known], np.int64),
                np.asarray([o.is_difficult for o in known], bool),
            )
        )
    return Dataset(
        source,
        names,
        {},
        tuple(kept),
        tuple(damaged.values()),
        tuple(s for a in annotations for s in a.skipped),
        dict(unknown),
        frozenset(damaged),
        limits={i: a.size for i, a in enumerate(annotations) if a.size},
        unsure=tuple(i for i, a in enumerate(annotations) if a.is_unsure and a.objects),
    )


def _no_objects(
    source: objects.ObjectSource,
    names: Sequence[str],
    annotations: Sequence[voc.Annotation],
    damaged: Mapping[int, str],
) -> str:
    """Returns why a split has nothing to find, with the first reason that was met."""
    said = f"split {source.split} has no objects of {', '.join(names) or 'any class'}"
    skipped = [s for a in annotations for s in a.skipped]
    for count, what, reasons in (
        (len(damaged), f"of {len(source)} annotations cannot be used", list(damaged.values())),
        (len(skipped), "objects are left out", skipped),
    ):
        if count:
            said += f"; {count} {what}, the first: {reasons[0]}"
    return said
