"""PASCAL VOC's layout: ROOT/Annotations/ID.xml, JPEGImages/ID.jpg, ImageSets/Main/SPLIT.txt.

Boxes are (x1, y1, x2, y2) floats in pixels of the upright image, right and bottom exclusive: VOC's
corners, counted from 1 and inclusive, are converted here, once.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import base, image_sets, layouts, voc_xml
from spp_jax.runs import files


@dataclasses.dataclass(frozen=True)
class Object:
    """An object of an image; `box` lies inside the image and is not empty."""

    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The objects of an image and its size.

    Attributes:
        objects: in the file's order.
        skipped: one sentence per object that is left out, because its box holds no pixel of the
            image or cannot be understood.
        size: (height, width) in pixels that boxes are cut to; None where neither the image nor the
            annotation gives it: boxes are then as the file has them.
        is_unsure: whether the boxes may be of the image as stored, although they are taken as boxes
            of the upright image: EXIF turns it, and its size does not tell the two apart (a turn by
            180 degrees, a mirror image, a square, no size in the annotation).
    """

    objects: tuple[Object, ...]
    skipped: tuple[str, ...] = ()
    size: tuple[float, float] | None = None
    is_unsure: bool = False


class VocSource:
    """The images of an image set, in its order, as a `base.Source` without labels.

    Attributes:
        root: the folder that holds Annotations, ImageSets and JPEGImages.
        split: the name of a file of ImageSets/Main, "trainval", "test" ...
        image_ids: the ids of the examples, in order.
        class_names: empty; `read_labels` and `read_annotation` return class names.
    """

    def __init__(self, path: str, split: str):
        """Lists the images; raises InputError as `find_root` and `image_sets.read_ids`."""
        self.root = find_root(path)
        self.split = split
        self.image_ids = image_sets.read_ids(self.root, split)
        self.class_names: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._folder = os.path.join(self.root, image_sets.IMAGES)
        image_files = image_sets.ImageFiles(self._folder)
        self._files = tuple(image_files.find(image_id) for image_id in self.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> base.Example:
        """Returns an image; raises ImageError where there is none."""
        if not self._files[index]:
            suffixes = ", ".join(sorted(layouts.IMAGE_SUFFIXES))
            raise errors.ImageError(
                f"{self.name(index)}: No such file; {self._folder} was searched for an image "
                f"{self.image_ids[index]} of any suffix ({suffixes})"
            )
        return base.Example(images.read_file(self.name(index)), -1, self.name(index))

    def name(self, index: int) -> str:
        """Returns the path of an image; ID.jpg where there is no file of any suffix."""
        return os.path.join(self._folder, self._files[index] or self.image_ids[index] + ".jpg")

    def annotation(self, index: int) -> Annotation:
        """Returns the objects of an image as `read_annotation` does; its file may be missing."""
        image = self.name(index) if self._files[index] else ""
        return read_annotation(self.root, self.image_ids[index], image)


def find_root(path: str) -> str:
    """Returns the folder that has ImageSets/Main: `path`, or the only such folder in it.

    Raises:
        InputError: there is no such folder, or `path` holds several.
    """
    if not path:
        raise errors.InputError("config.data.path is not set; it is the folder of a VOC set")
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {errors.printable(path)}")
    inner = [path] + [os.path.join(path, name) for name in sorted(os.listdir(path))]
    roots = [p for p in inner if os.path.isdir(os.path.join(p, image_sets.SETS))]
    if not roots:
        raise errors.InputError(f"{path} is no VOC folder: it has no ImageSets/Main")
    if len(roots) > 1 and roots[0] != path:
        raise errors.InputError(f"{path} holds several VOC folders: {', '.join(roots)}; give one")
    return roots[0]


def read_annotation(root: str, image_id: str, image: str = "") -> Annotation:
    """Reads Annotations/ID.xml.

    Boxes are cut to the image; an object of whose box nothing is left is skipped with a sentence.

    Args:
        root: as `find_root` returns it.
        image_id: an id of the image set.
        image: the path of the image file. It must have the size that the annotation gives: the
            boxes would not fit an image of another size, or one that is not upright as EXIF says.
            Where it is "", or cannot be read, the size is that of the annotation, if it has one.

    Raises:
        ImageError: the annotation is missing or damaged, or the image has another size.
    """
    path = os.path.join(root, image_sets.ANNOTATIONS, f"{image_id}.xml")
    if not image_sets.is_inside(image_id):
        raise errors.ImageError(f"{errors.printable(path)}: it is outside {root}")
    try:
        file = voc_xml.parse(images.read_file(path, voc_xml.MAX_BYTES))
    except ValueError as e:
        raise errors.ImageError(f"{path}: {str(e).removeprefix(path + ': ')}") from e
    size, is_unsure = _check_size(file, image, path) if image else (None, False)
    if size is None and file.height and file.width:
        size = file.height, file.width
    objects, skipped = [], []
    for box in file.boxes:
        item = _read_box(box, size, path)
        (objects if isinstance(item, Object) else skipped).append(item)
    return Annotation(tuple(objects), tuple(skipped), size, is_unsure)


def _read_box(box: voc_xml.Box, size: tuple[float, float] | None, path: str) -> Object | str:
    """Returns the object of a box, cut to its image, or a sentence that says why there is none."""
    x1, y1, x2, y2 = box.corners
    missing = [name for name, c in zip(voc_xml.CORNERS, box.corners) if np.isnan(c)]
    if missing:
        owner = f"the object {box.name}" if box.name else "an object without a name"
        if len(missing) == len(box.corners):
            return f"{path}: {owner} has no <bndbox> with corners"
        return f"{path}: the <bndbox> of {owner} has no <{missing[0]}>"
    where = f"{path}: box ({', '.join(f'{c:g}' for c in box.corners)})"
    item = cut(Object(box.name, (x1 - 1, y1 - 1, x2, y2), box.is_difficult), size, where)
    # (1, 1, 1, 1) is VOC's first pixel.
    if isinstance(item, Object) and max(x2, y2) <= 1 and min(box.corners) < 1:
        return (
            f"{where} of {box.name} is left out: its corners look like shares (0..1) of the "
            "image's sides; VOC's are pixels, counted from 1"
        )
    return item


def cut(item: Object, size: tuple[float, float] | None, where: str) -> Object | str:
    """Returns an object cut to its image, or a sentence that says why nothing is left of it.

    Args:
        item: the object; its box may be empty, NaN or outside the image.
        size: (height, width) of the image; None leaves right and bottom as they are.
        where: the beginning of the sentence.
    """
    height, width = size or (np.inf, np.inf)
    x1, y1, x2, y2 = item.box
    if not item.name:
        return f"{where} is of an object without a name"
    if not (x2 > x1 and y2 > y1):  # also where one is NaN
        return f"{where} of {item.name} is empty"
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    if not (x2 > x1 and y2 > y1):
        of_size = f" of {width:g}x{height:g}" if size else ""
        return f"{where} of {item.name} lies outside the image{of_size}"
    if not np.isfinite([x2, y2]).all():  # of an image of unknown size
        return f"{where} of {item.name} has no end"
    return Object(item.name, (float(x1), float(y1), float(x2), float(y2)), item.is_difficult)


def _check_size(file: voc_xml.File, image: str, path: str) -> tuple[tuple[int, int] | None, bool]:
    """Returns the (height, width) of an image file, None if it cannot be read, and `is_unsure`.

    Raises:
        ImageError: the annotation gives another size.
    """
    try:
        with files.open_regular(image, files.MAX_BYTES) as f:
            real = images.read_size(f, image)
    except (OSError, errors.ImageError):
        return None, False  # the image is refused where its pixels are read
    annotated, orientation = (file.height, file.width), _read_orientation(image)
    if _is_same(annotated, real):
        # A quarter turn shows in the size, unless both sides fit either way.
        is_sure = orientation >= 5 and not _is_same(annotated, real[::-1])
        return real, orientation > 1 and not is_sure
    sides = "x".join("?" if side is None else f"{side:g}" for side in reversed(annotated))
    problem = f"{path}: its <size> is {sides} and the image {image} is {real[1]}x{real[0]}"
    if not _is_same(annotated, real[::-1]):
        raise errors.ImageError(f"{problem}: annotate this image, or give it that size again")
    if orientation >= 5:
        raise errors.ImageError(
            f"{problem}, turned upright as its EXIF orientation says: draw the boxes on the "
            f"upright image, or take the EXIF orientation out of the file"
        )
    raise errors.ImageError(
        f"{problem}: the image was turned after it was annotated, or lost its EXIF orientation; "
        f"annotate this image, or turn it back"
    )


def _is_same(annotated: Sequence[float | None], real: Sequence[int]) -> bool:
    return all(a is None or abs(a - b) < 1 for a, b in zip(annotated, real))


def _read_orientation(path: str) -> int:
    """Returns the EXIF orientation of an image, 1 to 8; 1 if it has none or cannot be read."""
    try:
        with files.open_regular(path, files.MAX_BYTES) as f:
            return images.read_orientation(f, path)
    except (OSError, errors.ImageError):  # the image is refused where its size is read
        return 1


def read_labels(
    root: str, split: str, class_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the K class names and the labels of N images: (N, K) int8 of 1, 0 and -1.

    1: the class is present; -1: it is absent; 0: the image has only difficult objects of it, which
    the devkit does not score. The labels are read from ImageSets/Main/CLASS_SPLIT.txt where every
    class has that file, else from the annotations.

    Args:
        root: as `find_root` returns it.
        split: the image set.
        class_names: the classes; None stands for all classes of the set, sorted.

    Raises:
        InputError: there are no classes, or a label file does not fit the image set.
        ImageError: an annotation is missing or damaged.
    """
    ids = image_sets.read_ids(root, split)
    listed = image_sets.list_classes(root, split)
    if listed and (class_names is None or set(class_names) <= set(listed)):
        names = tuple(class_names or listed)
        columns = [image_sets.read_labels(root, f"{name}_{split}", ids) for name in names]
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
