"""PASCAL VOC's layout: ROOT/Annotations/ID.xml, JPEGImages/ID.jpg, ImageSets/Main/SPLIT.txt.

Boxes are (x1, y1, x2, y2) floats in image pixels, right and bottom exclusive: VOC's corners,
counted from 1 and inclusive, are converted here, once.
"""

import collections
import dataclasses
import os
import xml.etree.ElementTree
from collections.abc import Sequence

import numpy as np

from spp_jax import errors
from spp_jax.data import base, images


@dataclasses.dataclass(frozen=True)
class Object:
    """An object of an image; `box` lies inside the image and is not empty."""

    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What is known of an image.

    Attributes:
        objects: in the file's order.
        skipped: a sentence for each object left out because no pixel of the image is in its box.
    """

    objects: tuple[Object, ...]
    skipped: tuple[str, ...] = ()


class VocSource:
    """The images of an image set, in its order, as a `base.Source` without labels.

    Attributes:
        root: the folder that holds Annotations, ImageSets and JPEGImages.
        split: "trainval", "test" ...: a file of ImageSets/Main.
        image_ids: of the examples.
        class_names: none; `read_labels` and `read_annotation` have them.
    """

    def __init__(self, path: str, split: str):
        self.root = find_root(path)
        self.split = split
        self.image_ids = read_image_set(self.root, split)
        self.class_names: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> base.Example:
        return base.Example(images.read_file(self.name(index)), -1, self.name(index))

    def name(self, index: int) -> str:
        """Returns the path of an image: ID.jpg, or ID.JPEG as ILSVRC has it."""
        path = os.path.join(self.root, "JPEGImages", self.image_ids[index])
        return path + (".JPEG" if os.path.exists(path + ".JPEG") else ".jpg")

    def annotation(self, index: int) -> Annotation:
        """Returns the objects of an image, as `read_annotation`."""
        return read_annotation(self.root, self.image_ids[index])


def find_root(path: str) -> str:
    """Returns `path`, or the one VOC2007 ... in it, whichever has ImageSets/Main.

    Raises:
        InputError: neither has, or several have.
    """
    if not path:
        raise errors.InputError("config.data.path is not set; give --config.data.path=VOCROOT")
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {path}")
    inner = [path] + [os.path.join(path, name) for name in sorted(os.listdir(path))]
    found = [p for p in inner if os.path.isdir(os.path.join(p, "ImageSets", "Main"))]
    if not found:
        raise errors.InputError(f"{path} is no VOC folder: it has no ImageSets/Main")
    if len(found) > 1 and found[0] != path:
        raise errors.InputError(f"{path} holds several VOC folders: {', '.join(found)}; give one")
    return found[0]


def read_image_set(root: str, split: str) -> tuple[str, ...]:
    """Returns the image ids of ImageSets/Main/SPLIT.txt.

    Raises:
        InputError: there is no such file, or nothing in it.
    """
    ids = tuple(line.split()[0] for line in _lines(root, split) if line.split())
    if not ids:
        raise errors.InputError(f"image set {split} of {root} is empty")
    twice = [image_id for image_id, count in collections.Counter(ids).items() if count > 1]
    if twice:
        raise errors.InputError(f"image set {split} of {root} names {twice[0]} twice")
    return ids


def read_annotation(root: str, image_id: str) -> Annotation:
    """Reads Annotations/ID.xml.

    Boxes are clipped to the image where its size is given; an object no pixel of which is left is
    skipped and named.

    Raises:
        ImageError: the file is missing or damaged.
    """
    path = os.path.join(root, "Annotations", f"{image_id}.xml")
    try:
        tree = xml.etree.ElementTree.fromstring(images.read_file(path))
        limits = [int(tree.findtext(f"size/{side}") or 0) or np.inf for side in ("width", "height")]
        objects, skipped = [], []
        for found in tree.iter("object"):
            name = (found.findtext("name") or "").strip()
            corners = [
                float(found.findtext(f"bndbox/{corner}") or "nan")
                for corner in ("xmin", "ymin", "xmax", "ymax")
            ]
            upper = np.clip(np.subtract(corners[:2], 1), 0, None)
            lower = np.minimum(corners[2:], limits)
            if name and np.all(lower > upper):  # also no number is not larger
                x1, y1, x2, y2 = (float(v) for v in (*upper, *lower))
                is_difficult = (found.findtext("difficult") or "0").strip() == "1"
                objects.append(Object(name, (x1, y1, x2, y2), is_difficult))
            else:
                shown = ", ".join(f"{c:g}" for c in corners)
                skipped.append(f"{path}: box ({shown}) of {name or 'an object'} is empty")
    except (xml.etree.ElementTree.ParseError, ValueError) as e:
        raise images.ImageError(f"{path}: {str(e).removeprefix(path + ': ')}") from e
    return Annotation(tuple(objects), tuple(skipped))


def read_labels(
    root: str, split: str, class_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the class names and what each image shows of each class: (N, K) of 1, 0 and -1.

    1 is present, -1 absent, 0 neither: only difficult objects, which the devkit does not score.
    They are those of ImageSets/Main/CLASS_SPLIT.txt where all classes have one, else from the
    annotations.

    Args:
        root: as `find_root` gives it.
        split: the image set.
        class_names: the classes; None is all there are, sorted.

    Raises:
        InputError: no classes, or a label file that does not fit the image set.
        ImageError: an annotation is missing or damaged.
    """
    ids = read_image_set(root, split)
    files = os.listdir(os.path.join(root, "ImageSets", "Main"))
    listed = sorted(f.removesuffix(f"_{split}.txt") for f in files if f.endswith(f"_{split}.txt"))
    if listed and (class_names is None or set(class_names) <= set(listed)):
        names = tuple(class_names or listed)
        columns = [_label_column(root, f"{name}_{split}", ids) for name in names]
        return names, np.stack(columns, axis=1)
    annotations = [read_annotation(root, image_id) for image_id in ids]
    names = tuple(class_names or sorted({o.name for a in annotations for o in a.objects}))
    if not names:
        raise errors.InputError(f"image set {split} of {root} has no objects")
    labels = np.full((len(ids), len(names)), -1, np.int8)
    for row, annotation in zip(labels, annotations):
        for item in annotation.objects:
            if item.name in names:
                k = names.index(item.name)
                row[k] = max(row[k], 0 if item.is_difficult else 1)
    return names, labels


def _label_column(root: str, name: str, ids: Sequence[str]) -> np.ndarray:
    rows = [line.split() for line in _lines(root, name)]
    try:
        values = {image_id: int(label) for image_id, label in (row for row in rows if row)}
        return np.asarray([values[image_id] for image_id in ids], np.int8)
    except (ValueError, KeyError) as e:
        raise errors.InputError(
            f"ImageSets/Main/{name}.txt of {root} has not one label for each image of its set: {e}"
        ) from e


def _lines(root: str, name: str) -> list[str]:
    path = os.path.join(root, "ImageSets", "Main", f"{name}.txt")
    try:
        if os.path.basename(name) != name:
            raise FileNotFoundError(path)
        with open(path, encoding="utf-8") as f:
            return f.read().splitlines()
    except UnicodeDecodeError as e:
        raise errors.InputError(f"{path} is no text: {e}") from e
    except OSError as e:
        files = os.listdir(os.path.dirname(path))
        known = ", ".join(sorted(f.removesuffix(".txt") for f in files if "_" not in f))
        raise errors.InputError(f"no image set {name} in {root}; there are {known}") from e
