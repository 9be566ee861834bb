"""The image sets of a VOC folder: which images a set lists, and their files and labels.

An id is the path of an image below JPEGImages, without suffix: "000005", or "train/n01/a" where
there are folders.
"""

import collections
import os
import posixpath
import re
from collections.abc import Collection, Sequence

import numpy as np

from spp_jax import errors
from spp_jax.data.sources import layouts
from spp_jax.runs import files

ANNOTATIONS, IMAGES, SETS = "Annotations", "JPEGImages", os.path.join("ImageSets", "Main")

_SUFFIXES = layouts.IMAGE_SUFFIXES | {".xml"}
# A label of VOC, -1, 0 or 1, or the line number that ILSVRC's sets have.
_LAST_NUMBER = re.compile(r"\s+[+-]?\d+$")


class ImageFiles:
    """The image files of a folder by id; each folder is listed once, when first needed."""

    def __init__(self, path: str):
        self.path = path
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, image_id: str) -> str:
        """Returns the path of an image below the folder, "" where there is none.

        Raises:
            InputError: several files have the id, as a.jpg and a.png.
        """
        if not is_inside(image_id):
            return ""
        inner, stem = posixpath.split(image_id)
        if inner not in self._listed:
            self._listed[inner] = self._list(inner)
        names = self._listed[inner].get(stem, [])
        if len(names) > 1:
            raise errors.InputError(
                f"{os.path.join(self.path, inner)} holds {' and '.join(sorted(names))}, so that "
                f"image {image_id} is not one file; keep one of them there"
            )
        return posixpath.join(inner, names[0]) if names else ""

    def _list(self, inner: str) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        try:
            names = os.listdir(os.path.join(self.path, inner))
        except OSError:
            return by_stem  # the caller knows whether it needs these images
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in layouts.IMAGE_SUFFIXES:
                by_stem.setdefault(stem, []).append(name)
                # An id may end with a suffix itself: its annotation then is a.jpg.xml.
                by_stem.setdefault(name, []).append(name)
        return by_stem


def read_ids(root: str, split: str) -> tuple[str, ...]:
    """Returns the image ids of ImageSets/Main/SPLIT.txt.

    A line holds an id, with or without a suffix or a path that ends in JPEGImages, and perhaps a
    label or a number after it. As ids may have spaces, some lines can be read in several ways: the
    first way is taken whose annotation or image exists.

    Raises:
        InputError: the file is missing or empty, or an id is there twice or outside JPEGImages.
    """
    image_files = ImageFiles(os.path.join(root, IMAGES))
    ids = []
    for line in read_lines(root, split):
        readings, likely = _readings(line)
        if not likely:
            raise errors.InputError(
                f"image set {split} of {root} names {line!r}, which is outside {root}"
            )
        # Most lines can be read in one way only: then no file has to be looked for.
        existing = (r for r in readings if _is_there(root, r, image_files))
        ids.append(likely if len(readings) == 1 else next(existing, likely))
    if not ids:
        raise errors.InputError(f"image set {split} of {root} is empty")
    twice = [image_id for image_id, count in collections.Counter(ids).items() if count > 1]
    if twice:
        raise errors.InputError(f"image set {split} of {root} names {twice[0]} twice")
    return tuple(ids)


def match(text: str, ids: Collection[str]) -> str | None:
    """Returns the id that a text is, as it stands or without path and suffix; None if none."""
    return next((t for t in (text, clean(text)) if t in ids), None)


def clean(text: str) -> str:
    """Returns an id without what tools add to it: a path to JPEGImages, a suffix, "\\" for "/"."""
    text = posixpath.normpath(text.replace("\\", "/"))
    for folder in (IMAGES, ANNOTATIONS):
        _, is_in_path, inner = f"/{text}".rpartition(f"/{folder}/")
        text = inner if is_in_path else text
    stem, suffix = posixpath.splitext(text)
    return stem if suffix.lower() in _SUFFIXES else text


def is_inside(image_id: str) -> bool:
    """Whether an id names a file below the folder of images, whatever dots and slashes it has."""
    first = posixpath.normpath(image_id).split("/")[0]
    return first not in ("", ".", "..") and "\0" not in image_id


def _readings(line: str) -> tuple[list[str], str]:
    """Returns the ids that a line may mean, in the order to try them, and the one to fall back on.

    Ids outside the folder are left out. Where this leaves none, the list is empty and the id to
    fall back on is "".
    """
    unnumbered = _LAST_NUMBER.sub("", line)
    texts = (line, unnumbered, line.split()[0])
    ids = dict.fromkeys(x for text in texts for x in (posixpath.normpath(text), clean(text)))
    inside = [i for i in ids if is_inside(i)]
    return inside, next((i for i in (clean(unnumbered), *inside) if i in inside), "")


def _is_there(root: str, image_id: str, image_files: ImageFiles) -> bool:
    if os.path.isfile(os.path.join(root, ANNOTATIONS, f"{image_id}.xml")):
        return True
    return posixpath.splitext(image_files.find(image_id))[0] == image_id


def list_classes(root: str, split: str) -> list[str]:
    """Returns the classes that have a label file CLASS_SPLIT.txt, sorted."""
    end = f"_{split}.txt"
    names = sorted(f for f in os.listdir(os.path.join(root, SETS)) if f.endswith(end))
    # small_train.txt may also be an image set, which has no labels.
    return [n.removesuffix(end) for n in names if _has_labels(root, n.removesuffix(".txt"))]


def _has_labels(root: str, name: str) -> bool:
    return any(_LAST_NUMBER.search(line) for line in read_lines(root, name))


def read_labels(root: str, name: str, ids: Sequence[str]) -> np.ndarray:
    """Returns the labels of N images in ImageSets/Main/NAME.txt: (N,) int8 of -1, 0 and 1.

    Raises:
        InputError: the file has a line that is not "ID LABEL", or no label for an image.
    """
    path = os.path.join(root, SETS, f"{name}.txt")
    wanted, labels = frozenset(ids), {}
    for line in read_lines(root, name):
        text, *label = line.rsplit(None, 1)
        try:
            value = float(*label) if label else None
        except ValueError:
            value = None
        if value not in (-1, 0, 1):
            raise errors.InputError(f"{path}: {line!r} is not an image id and one of -1, 0 and 1")
        image_id = match(text, wanted) or text
        if labels.setdefault(image_id, value) != value:
            raise errors.InputError(f"{path} has two labels for image {image_id}")
    missing = next((i for i in ids if i not in labels), None)
    if missing is not None:
        raise errors.InputError(f"{path} has not one label for each image of its set: no {missing}")
    return np.asarray([labels[i] for i in ids], np.int8)


def read_lines(root: str, name: str) -> list[str]:
    """Returns the lines of ImageSets/Main/NAME.txt, stripped, without the empty ones.

    Raises:
        InputError: the file is missing or no text in UTF-8.
    """
    path = os.path.join(root, SETS, f"{name}.txt")
    try:
        if os.path.basename(name) != name:
            raise FileNotFoundError(path)
        lines = files.read_text(path).split("\n")
    except UnicodeDecodeError as e:
        raise errors.InputError(f"{path} is no text in UTF-8: {e}") from e
    except OSError as e:
        names = os.listdir(os.path.dirname(path))
        set_names = ", ".join(sorted(f.removesuffix(".txt") for f in names if "_" not in f))
        raise errors.InputError(f"no image set {name} in {root}; there are {set_names}") from e
    return [line.strip() for line in lines if line.strip()]
