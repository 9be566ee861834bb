"""Where examples come from: a folder of class folders, or any TFDS classification set.

A source is a sequence of examples in a fixed order, read at random, of encoded images; it can be
sent to loader processes.
"""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data import digits, imagenet, images

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp"),
        *(".ppm", ".pgm", ".pbm"),
    }
)
EVAL_SPLITS = ("validation", "val", "test")

# WordNet's identifier of an ImageNet class, as in n01440764_10026.JPEG or "n01440764 tench".
_WNID = re.compile(r"n[0-9]{8}(?![0-9])")


class Example(NamedTuple):
    """An encoded image, the index of its class, and its name: a path, or "digit_scenes[7]"."""

    data: bytes
    label: int
    name: str


class Source(Protocol):
    """A sequence of examples; one whose file cannot be read raises `images.ImageError`."""

    class_names: tuple[str, ...]
    split: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


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

    def __getitem__(self, index: int) -> Example:
        name = os.path.join(self.path, self._files[index])
        try:
            with open(name, "rb") as f:
                return Example(f.read(), self._labels[index], name)
        except OSError as e:
            raise images.ImageError(f"{name}: {e.strerror}") from e

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
        new = match_classes(self.class_names, class_names, self.path)
        labels = [new[label] for label in self._labels]
        return FolderSource(self.path, class_names, self._files, labels, self.split)


class TfdsSource:
    """A prepared TFDS set with features `image` and `label`, through ArrayRecord."""

    def __init__(self, name: str, split: str, data_dir: str):
        builder = load_builder(name, data_dir)
        features: Any = builder.info.features or {}
        has_both = "image" in features and "label" in features
        if not has_both or not isinstance(features["label"], tfds.features.ClassLabel):
            raise errors.InputError(f"{name} has no features `image` and `label` to classify")
        if split.split("[")[0] not in builder.info.splits:  # "train[:10%]" is TFDS's as well
            known = ", ".join(builder.info.splits)
            raise errors.InputError(f"{name} has no split {split!r}, only {known}")
        self.class_names = tuple(features["label"].names)
        self.split = split
        self._name = name
        self._labels = list(range(len(self.class_names)))
        try:
            # A decorated method, whose arguments pyright cannot see.
            open_split: Any = builder.as_data_source
            self._examples: Any = open_split(split, decoders={"image": tfds.decode.SkipDecoding()})
        except NotImplementedError as e:
            raise errors.InputError(
                f"{name} under {builder.data_dir} is not stored as ArrayRecord; run `tfds "
                f"convert_format --dataset_dir={builder.data_dir} --out_file_format=array_record` "
                "once"
            ) from e

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = self._examples[index]
        name = f"{self._name}[{self.split}][{index}]"
        return Example(bytes(example["image"]), self._labels[int(example["label"])], name)

    def relabel(self, class_names: Sequence[str]) -> "TfdsSource":
        """As FolderSource.relabel; changes this source."""
        self._labels = match_classes(self.class_names, class_names, self._name)
        self.class_names = tuple(class_names)
        return self


def match_classes(found: Sequence[str], known: Sequence[str], where: str) -> list[int]:
    """Returns the index in a network's classes of each class found in data.

    Folders n01440764 and "tench" are class "n01440764 tench": beside its whole name, a class that
    begins with a WordNet identifier is known by that, and by the rest if no other has the same.

    Raises:
        InputError: a class that the network does not know, or two that are one to it; `where` names
            the data.
    """
    index = {name: i for i, name in reversed(list(enumerate(known)))}
    by_wnid = {m[0]: i for name, i in index.items() if (m := _WNID.match(name))}
    rests = [_WNID.sub("", name, count=1).strip() for name in known]
    by_rest = {rest: i for i, rest in enumerate(rests) if rests.count(rest) == 1}
    matched: list[int] = []
    unknown: list[str] = []
    for name in found:
        wnid = _WNID.match(name)
        i = index.get(name, by_wnid.get(wnid[0]) if wnid else by_rest.get(name))
        if i is None:
            unknown.append(name)
        elif i in matched:
            raise errors.InputError(f"{where}: {name!r} and another are both class {known[i]!r}")
        else:
            matched.append(i)
    if unknown:
        raise errors.InputError(
            f"{where}: the network was not trained on class {unknown[0]!r}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        )
    return matched


def load_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of a prepared set; the embedded one is prepared if it is not yet.

    Raises:
        InputError: TFDS does not know the name, or the set is not prepared.
    """
    try:
        if name == "digit_scenes":
            digits.prepare(data_dir or None)
        builder = tfds.builder(name, data_dir=data_dir or None)
    except OSError as e:
        raise errors.InputError(f"{name} cannot be prepared under {data_dir}: {e}") from e
    # What TFDS makes of names with slashes, colons, or nothing in them.
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:
        if name == imagenet.NAME:  # which TFDS knows once it is there
            raise errors.InputError(_not_prepared(name, data_dir or "TFDS's data_dir")) from e
        raise errors.InputError(
            f"config.data.name={name!r} is neither folder, digit_scenes nor a set TFDS knows"
        ) from e
    if not builder.info.splits:
        raise errors.InputError(_not_prepared(name, builder.data_dir))
    return builder


def _not_prepared(name: str, where: object) -> str:
    return (
        f"{name} is not prepared under {where}; run `python -m spp_jax.data.prepare {name}` once, "
        "or give --config.data.path"
    )


def open_train(name: str, path: str, split: str, held_out: float, seed: int) -> Source:
    """Returns the training examples.

    A folder without splits of its own is split by seed: a share `held_out` of it is left to
    `open_held_out`.

    Raises:
        InputError: a missing or empty folder, a class without images, an unknown set or split.
    """
    if name != "folder":
        return TfdsSource(name, split, path)
    if _known_splits(name, path):
        return scan_folder(path, split)
    whole = scan_folder(path, "")
    return whole.subset(_split_by_seed(len(whole), held_out, seed)[0])


def open_held_out(
    name: str, path: str, split: str, held_out: float, seed: int, class_names: Sequence[str]
) -> Source | None:
    """Returns the examples training is watched on: an evaluation split, or what was held out.

    None where there is only training data, or nothing was held out.
    """
    known = _known_splits(name, path)
    if known:
        has_any = bool(_eval_split(known, split))
        return open_eval(name, path, split, class_names) if has_any else None
    whole = scan_folder(path, "")
    indices = _split_by_seed(len(whole), held_out, seed)[1]
    return whole.subset(indices) if len(indices) else None


def open_eval(name: str, path: str, split: str, class_names: Sequence[str]) -> Source:
    """Returns the examples of a split; a folder without splits of its own is taken whole.

    Args:
        name: "folder", "digit_scenes" or a TFDS set.
        path: the folder, or TFDS's data_dir.
        split: its name; "" is validation, val or test, the first there is.
        class_names: the network's; a folder's classes are matched to them by name.

    Raises:
        InputError: as `open_train`, or a class the network was not trained on.
    """
    known = _known_splits(name, path)
    split = _eval_split(known, split) if known else ""
    if known and not split:
        raise errors.InputError(
            f"{path if name == 'folder' else name} has only {'/, '.join(known)}/; give "
            f"--config.data.eval_split={known[0]} to score that"
        )
    source = scan_folder(path, split) if name == "folder" else TfdsSource(name, split, path)
    return source.relabel(class_names)


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


def _scan_flat(folder: str, split: str) -> FolderSource:
    files = _images(folder)
    wnids = [_WNID.match(file) for file in files]
    if not files or not all(wnids):
        raise errors.InputError(
            f"{folder} has no class folders in it, nor only images named by class, n01440764_*"
        )
    names = [m[0] for m in wnids if m]
    classes = sorted(set(names))
    return FolderSource(folder, classes, files, [classes.index(n) for n in names], split)


def _known_splits(name: str, path: str) -> list[str]:
    """Returns the splits of a TFDS set, or the split folders of a path: train, val ...

    Those hold class folders themselves: a folder of images that is called so is a class.
    """
    if name != "folder":
        return list(load_builder(name, path).info.splits)
    if not os.path.isdir(path):
        return []
    names = ("train", *EVAL_SPLITS)
    return [s for s in names if os.path.isdir(p := os.path.join(path, s)) and _folders(p)]


def _eval_split(known: Sequence[str], split: str) -> str:
    """Returns the split asked for, else the first of EVAL_SPLITS there is, else ""."""
    return split or next((s for s in EVAL_SPLITS if s in known), "")


def _split_by_seed(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    order = np.random.default_rng([seed, count]).permutation(count)
    num_held_out = round(count * held_out)
    kept, rest = order[num_held_out:], order[:num_held_out]
    return sorted(kept.tolist()), sorted(rest.tolist())


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
