"""Images with boxes, in VOC's layout or in TFDS sets with a feature `objects`, as TFDS's own voc.

Boxes are (x1, y1, x2, y2) floats in image pixels, right and bottom exclusive.
"""

import io
from typing import Any, Protocol

import tensorflow_datasets as tfds

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import base, opening, voc
from spp_jax.runs import progress as progress_lib


class ObjectSource(Protocol):
    """Images in a fixed order and the objects in each; an unreadable file raises ImageError."""

    split: str
    image_ids: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> base.Example: ...

    def name(self, index: int) -> str:
        """Returns the name of an image in messages: its path, or "voc/2007[test][7]"."""
        ...

    def annotation(self, index: int) -> voc.Annotation:
        """Returns the objects of an image."""
        ...


class TfdsObjects:
    """A prepared TFDS set with features `image` and `objects` {bbox, label, is_difficult}."""

    def __init__(self, name: str, split: str, data_dir: str):
        builder = opening.load_builder(name, data_dir)
        self._names = read_class_names(builder, name)
        self._examples = opening.open_examples(builder, name, split)
        self._name = name
        self.split = split
        self.image_ids = tuple(
            str(i).zfill(len(str(len(self._examples)))) for i in range(len(self._examples))
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> base.Example:
        (image,) = opening.read_record(self._examples, index, ("image",), self.name(index))
        return base.Example(image, -1, self.name(index))

    def name(self, index: int) -> str:
        return f"{self._name}[{self.split}][{index}]"

    def annotation(self, index: int) -> voc.Annotation:
        names = ("image", "objects")
        image, stored = opening.read_record(self._examples, index, names, self.name(index))
        height, width = images.read_size(io.BytesIO(image), self.name(index))
        objects, skipped = [], []
        labels = stored["label"]
        difficult = stored.get("is_difficult", [False] * len(labels))
        if not len(stored["bbox"]) == len(labels) == len(difficult):
            raise errors.ImageError(
                f"{self.name(index)}: its objects have {len(stored['bbox'])} boxes, {len(labels)} "
                f"labels and {len(difficult)} marks of difficult ones"
            )
        for (y1, x1, y2, x2), label, is_difficult in zip(stored["bbox"], labels, difficult):
            # Stored as float32 shares of the sides; whole pixels come back exact.
            shares = ((x1, width), (y1, height), (x2, width), (y2, height))
            a, b, c, d = (round(float(share) * side, 3) for share, side in shares)
            # -1 in splits whose labels are secret.
            is_known = 0 <= label < len(self._names)
            name = self._names[int(label)] if is_known else ""
            where = f"{self.name(index)}: box ({a:g}, {b:g}, {c:g}, {d:g})"
            box = voc.Object(name, (a, b, c, d), bool(is_difficult))
            item = voc.cut(box, (height, width), where)
            (objects if isinstance(item, voc.Object) else skipped).append(item)
        return voc.Annotation(tuple(objects), tuple(skipped), (height, width))


def read_class_names(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, ...]:
    """Returns the classes of a set's objects; raises InputError if it has none."""
    features: Any = builder.info.features or {}
    # Only a Sequence has parts, its `feature`.
    objects: Any = getattr(features["objects"], "feature", {}) if "objects" in features else {}
    has_all = "image" in features and "bbox" in objects and "label" in objects
    if not has_all or not hasattr(objects["label"], "names"):
        raise errors.InputError(f"{name} has no features `image` and `objects` of boxes")
    return tuple(objects["label"].names)


def make_embedded(data: config_lib.DetectionDataConfig, progress: progress_lib.Progress) -> None:
    """Makes the embedded set that a detector's config names, as `opening.make_embedded`."""
    splits = (data.split, data.positives_split, data.eval_split)
    opening.make_embedded(data.name, data.path, splits, read_class_names, progress)


def open_objects(name: str, path: str, split: str) -> ObjectSource:
    """Returns a split of "voc", VOC's layout under `path`, or of a TFDS set in data_dir `path`.

    Raises:
        InputError: there is no such folder, set or split, or it has no boxes.
    """
    if name == "voc":
        return voc.VocSource(path, split)
    return TfdsObjects(name, split, path)
