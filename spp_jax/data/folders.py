"""Folders of photographs: class folders, train/ and val/ of them, or images in any folders."""

import os
from collections.abc import Sequence

from spp_jax import errors
from spp_jax.data import base, images

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp"),
        *(".ppm", ".pgm", ".pbm"),
    }
)
EVAL_SPLITS = ("validation", "val", "test")


class FolderSource:
    """Images of class folders, classes and files in sorted order; nested folders are walked.

    Attributes:
        class_names: the names of the class folders.
        split: "train", "val" ... for a folder of its own, "" for the whole folder.
    """

    def __init__(
        self,
        path: str,
        class_names: Sequence[str],
        files: Sequence[str],
        labels: Sequence[int],
        split: str,
    ):
        self.path = path
        self.class_names = tuple(class_names)
        self.split = split
        self._files = list(files)
        self._labels = list(labels)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> base.Example:
        name = self.name(index)
        return base.Example(images.read_file(name), self._labels[index], name)

    def name(self, index: int) -> str:
        return os.path.join(self.path, self._files[index])

    @property
    def labels(self) -> Sequence[int]:
        """The label of every example."""
        return self._labels

    def subset(self, indices: Sequence[int]) -> "FolderSource":
        """Returns the source of some of the examples, in the given order."""
        files = [self._files[i] for i in indices]
        labels = [self._labels[i] for i in indices]
        return FolderSource(self.path, self.class_names, files, labels, self.split)

    def relabel(self, class_names: Sequence[str]) -> "FolderSource":
        """Returns the source with the labels its classes have in a network's list of classes.

        Raises:
            InputError: a class folder that the network does not know.
        """
        new = base.match_classes(self.class_names, class_names, self.path)
        labels = [new[label] for label in self._labels]
        return FolderSource(self.path, class_names, self._files, labels, self.split)


def scan_folder(path: str, split: str) -> FolderSource:
    """Lists the images of the class folders under path/split, or under path for split "".

    A folder without folders whose images are named by class, n01440764_10026.JPEG as ImageNet's
    are, has the classes of these names.

    Raises:
        InputError: a missing or empty folder, or a class without images.
    """
    if not path:
        raise errors.InputError("config.data.path is not set; give --config.data.path=FOLDER")
    folder = os.path.join(path, split) if split else path
    if not os.path.isdir(folder):
        raise errors.InputError(f"no folder {folder}")
    classes = _folders(folder)
    if not classes:
        return _scan_flat(folder, split)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _images(os.path.join(folder, name))
        if not found:
            raise errors.InputError(f"class folder {os.path.join(folder, name)} holds no image")
        files += [os.path.join(name, file) for file in found]
        labels += [label] * len(found)
    return FolderSource(folder, classes, files, labels, split)


def open_pair(path: str) -> tuple[FolderSource, FolderSource] | None:
    """Returns train/ of a folder and what there is to test on, with the classes of train/.

    None where the folder has no train/, or nothing beside it.

    Raises:
        InputError: a class without images, or one that train/ does not have.
    """
    known = known_splits(path)
    split = eval_split(known)
    if "train" not in known or not split:
        return None
    train = scan_folder(path, "train")
    return train, scan_folder(path, split).relabel(train.class_names)


def scan_images(path: str) -> FolderSource:
    """Lists every image under a folder, with or without classes.

    The label of an image is the first folder below `path` it is in, train/, val/ ... not counted,
    or the class it is named by, n01440764_10026.JPEG, if all images have one; else all labels are
    -1.

    Raises:
        InputError: a missing folder, or no image in it.
    """
    if not os.path.isdir(path):
        raise errors.InputError(f"no folder {path}")
    files = _images(path)
    if not files:
        raise errors.InputError(f"folder {path} holds no image")
    names = []
    for file in files:
        *inner, own = file.split(os.sep)
        if inner and inner[0] in ("train", *EVAL_SPLITS):
            inner = inner[1:]
        wnid = base.WNID.match(own)
        names.append(inner[0] if inner else wnid[0] if wnid else "")
    if "" in names:
        return FolderSource(path, (), files, [-1] * len(files), "")
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    return FolderSource(path, tuple(index), files, [index[name] for name in names], "")


def _scan_flat(folder: str, split: str) -> FolderSource:
    files = _images(folder)
    wnids = [base.WNID.match(file) for file in files]
    if not files or not all(wnids):
        raise errors.InputError(
            f"{folder} has no class folders in it, nor only images named by class, n01440764_*"
        )
    names = [m[0] for m in wnids if m]
    classes = sorted(set(names))
    return FolderSource(folder, classes, files, [classes.index(n) for n in names], split)


def known_splits(path: str) -> list[str]:
    """Returns the split folders of a path: train, val ...

    Those hold class folders themselves: a folder of images that is called so is a class.
    """
    if not os.path.isdir(path):
        return []
    names = ("train", *EVAL_SPLITS)
    return [s for s in names if os.path.isdir(p := os.path.join(path, s)) and _folders(p)]


def eval_split(known: Sequence[str]) -> str:
    """Returns the first of EVAL_SPLITS that there is, else ""."""
    return next((s for s in EVAL_SPLITS if s in known), "")


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _images(path: str) -> list[str]:
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in files:
            suffix = os.path.splitext(file)[1].lower()
            if suffix in IMAGE_SUFFIXES and not file.startswith("."):
                found.append(os.path.relpath(os.path.join(folder, file), path))
    return sorted(found)
