"""The images of a split before any is decoded: their sizes, their objects, and their faults.

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
    """The objects of an image.

    Attributes:
        boxes: (G, 4) float64.
        labels: (G,) int64 class indices.
        is_difficult: (G,) bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    is_difficult: np.ndarray

    def is_positive(self, include_difficult: bool) -> np.ndarray:
        """Returns a mask (G,) of the objects to learn from: all, or only those not difficult."""
        return ~self.is_difficult | include_difficult


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The images of a split, by index, and their objects.

    Attributes:
        source: reads the images and their annotations.
        class_names: the name of each label.
        sizes: {index: (height, width)} of the images whose header can be read.
        objects: one entry per image, also of those that cannot be read.
        refused: one sentence per image that cannot be read.
        skipped: one sentence per object that was left out.
        unknown: {name: count} of the objects that belong to none of the classes.
        damaged: indices of the images left out because of their annotation.
        checksums: {index: CRC-32} of the files of the images in `sizes`.
        limits: {index: (height, width)} to which the objects of an image were cut; an image of no
            known size has no entry.
        unsure: indices of the images with an EXIF orientation that may or may not apply to their
            boxes as well; the size in the annotation does not tell.
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
        """Returns a SHA-256 of the classes, the images' files and their objects, in hexadecimal."""
        facts = [self.class_names, self.source.image_ids, sorted(self.checksums.items())]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for entry in self.objects:
            for array in (entry.boxes, entry.labels, entry.is_difficult):
                digest.update(array.tobytes())
            digest.update(b"|")
        return digest.hexdigest()

    def truth(self) -> dict[str, mean_ap.Truth]:
        """Returns {class name: its objects in all images}, for scoring."""
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
        """Returns one line of counts, and one line per fault."""
        count = sum(len(o.labels) for o in self.objects)
        difficult = sum(int(o.is_difficult.sum()) for o in self.objects)
        head = (
            f"{self.source.split}: {len(self.source)} images, {count} objects of "
            f"{len(self.class_names)} classes ({difficult} difficult), {len(self.refused)} images "
            f"refused, {len(self.skipped)} objects skipped"
        )
        notes = [f"not a class here: {n} objects of {name}" for name, n in self.unknown.items()]
        refused = [f"refused: {sentence}" for sentence in self.refused]
        uncut = len(self.source) - len(self.damaged) - len(self.limits)
        if uncut:
            notes.append(
                f"of no known size: {uncut} images, neither in their annotation nor in a file; "
                f"their boxes are not cut to the image"
            )
        if self.unsure:
            notes.append(
                f"turned or mirrored by EXIF: {len(self.unsure)} images, whose boxes are taken to "
                f"be of the upright image; look whether they are, at "
                f"{self.source.name(self.unsure[0])}"
            )
        return "\n".join([head, *refused, *(f"skipped: {s}" for s in self.skipped), *notes])


def read(
    source: objects.ObjectSource,
    class_names: Sequence[str] | None = None,
    *,
    skip_damaged: bool = False,
) -> Dataset:
    """Returns a split with its objects and the sizes of its images.

    Arguments and errors are those of `read_objects`.
    """
    return read_sizes(read_objects(source, class_names, skip_damaged=skip_damaged))


def read_sizes(data: Dataset) -> Dataset:
    """Returns the split with the sizes and checksums of its images, from their files.

    The sentences about images that cannot be read are added to `refused`.
    """
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
    skip_damaged: bool = False,
) -> Dataset:
    """Returns a split with its objects, and without sizes: its images need not be there.

    Args:
        source: reads the annotations.
        class_names: the classes; None takes all names in the annotations, sorted.
        skip_damaged: leave out images whose annotation is missing or damaged. That is for training;
            a score must count all images.

    Raises:
        InputError: an annotation is missing or damaged, or no object is of the classes.
    """
    annotations, damaged = [], {}
    for i in range(len(source)):
        try:
            annotations.append(source.annotation(i))
        except errors.ImageError as e:
            annotations.append(voc.Annotation(()))
            damaged[i] = str(e)
    if damaged and not skip_damaged:
        first, *rest = damaged.values()
        more = f"; nor can {len(rest)} more annotations be used" if rest else ""
        raise errors.ImageError(first + more)
    annotated_names = sorted({o.name for a in annotations for o in a.objects})
    names = tuple(annotated_names if class_names is None else class_names)
    if not set(names) & set(annotated_names):
        raise errors.InputError(_no_objects(source, names, annotations, damaged))
    index = {name: k for k, name in enumerate(names)}
    unknown: collections.Counter[str] = collections.Counter()
    by_image = []
    for annotation in annotations:
        members = [o for o in annotation.objects if o.name in index]
        unknown.update(o.name for o in annotation.objects if o.name not in index)
        by_image.append(
            Objects(
                np.asarray([o.box for o in members], np.float64).reshape(-1, 4),
                np.asarray([index[o.name] for o in members], np.int64),
                np.asarray([o.is_difficult for o in members], bool),
            )
        )
    return Dataset(
        source,
        names,
        {},
        tuple(by_image),
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
    """Returns a sentence that says why a split has no objects, with one reason of each kind."""
    sentence = f"split {source.split} has no objects of {', '.join(names) or 'any class'}"
    skipped = [s for a in annotations for s in a.skipped]
    for count, what, reasons in (
        (len(damaged), f"of {len(source)} annotations cannot be used", list(damaged.values())),
        (len(skipped), "objects are left out", skipped),
    ):
        if count:
            sentence += f"; {count} {what}, the first: {reasons[0]}"
    return sentence
