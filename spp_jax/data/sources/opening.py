"""Opens the examples that a config names: a folder, or any TFDS classification set."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data.embedded import digit_groups, digits
from spp_jax.data.imagenet import preparing
from spp_jax.data.sources import base, folders, layouts

# Modules of the sets that need no download; they are made when they are first asked for.
EMBEDDED = {"digit_scenes": digits, digit_groups.NAME: digit_groups}


class TfdsSource:
    """A prepared TFDS set with features `image` and `label`, through ArrayRecord."""

    def __init__(self, name: str, split: str, data_dir: str):
        builder = load_builder(name, data_dir)
        features: Any = builder.info.features or {}
        has_both = "image" in features and "label" in features
        if not has_both or not isinstance(features["label"], tfds.features.ClassLabel):
            raise errors.InputError(f"{name} has no features `image` and `label` to classify")
        self.class_names = tuple(features["label"].names)
        self.split = split
        self.notes: tuple[str, ...] = ()
        self._name = name
        self._labels = list(range(len(self.class_names)))
        self._examples = open_examples(builder, name, split)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> base.Example:
        example = self._examples[index]
        label = self._labels[int(example["label"])]
        return base.Example(bytes(example["image"]), label, self.name(index))

    def name(self, index: int) -> str:
        return f"{self._name}[{self.split}][{index}]"

    def relabel(self, class_names: Sequence[str]) -> "TfdsSource":
        """As FolderSource.relabel; changes this source."""
        self._labels = base.match_classes(self.class_names, class_names, self._name)
        self.class_names = tuple(class_names)
        return self


def open_examples(builder: tfds.core.DatasetBuilder, name: str, split: str) -> Any:
    """Returns the examples of a split of a prepared set, images encoded, read at random.

    Raises:
        InputError: no such split, or the set is not stored as ArrayRecord.
    """
    # "train+test[:10%]" is TFDS's as well.
    if any(part.split("[")[0].strip() not in builder.info.splits for part in split.split("+")):
        known = ", ".join(builder.info.splits)
        raise errors.InputError(f"{name} has no split {split!r}, only {known}")
    try:
        # A decorated method, whose arguments pyright cannot see.
        open_split: Any = builder.as_data_source
        return open_split(split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as e:
        raise errors.InputError(
            f"{name} under {builder.data_dir} is not stored as ArrayRecord; run `tfds "
            f"convert_format --dataset_dir={builder.data_dir} --out_file_format=array_record` once"
        ) from e


def load_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of a prepared set; an embedded one is prepared if it is not yet.

    Raises:
        InputError: TFDS does not know the name, or the set is not prepared.
    """
    try:
        if name in EMBEDDED:
            EMBEDDED[name].prepare(data_dir or None)
        builder = tfds.builder(name, data_dir=data_dir or None)
    except OSError as e:
        raise errors.InputError(f"{name} cannot be prepared under {data_dir}: {e}") from e
    # What TFDS makes of names with slashes, colons, or nothing in them.
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:
        if name == preparing.NAME:  # which TFDS knows once it is there
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


def open_train(name: str, path: str, split: str, held_out: float, seed: int) -> base.Source:
    """Returns the training examples.

    A folder without splits of its own is split by seed, class by class: a share `held_out` of it is
    left to `open_held_out`.

    Raises:
        InputError: a missing or empty folder, a class without images, one class only, an unknown
            set or split.
    """
    if name != "folder":
        return TfdsSource(name, split, path)
    if layouts.find(path, split).splits:
        source = folders.scan_folder(path, split)
        folders.check_classes(source)
        return source
    if layouts.split_of(split) != "train":
        raise errors.InputError(f"no folder {os.path.join(path, split)} (config.data.split)")
    whole = folders.scan_folder(path, "")
    folders.check_classes(whole)
    return whole.subset(_split_by_seed(whole.labels, held_out, seed)[0])


def open_held_out(
    name: str, path: str, split: str, held_out: float, seed: int, class_names: Sequence[str]
) -> base.Source | None:
    """Returns the examples training is watched on: an evaluation split, or what was held out.

    None where there is only training data, or nothing was held out.
    """
    known = _known_splits(name, path, split, class_names)
    if known:
        has_any = bool(split or layouts.eval_split(known))
        return open_eval(name, path, split, class_names) if has_any else None
    _check_no_split(path, split)
    whole = folders.scan_folder(path, "")
    indices = _split_by_seed(whole.labels, held_out, seed)[1]
    return whole.subset(indices).relabel(class_names) if len(indices) else None


def open_eval(name: str, path: str, split: str, class_names: Sequence[str]) -> base.Source:
    """Returns the examples of a split; a folder without splits of its own is taken whole.

    Args:
        name: "folder", "digit_scenes" or a TFDS set.
        path: the folder, or TFDS's data_dir.
        split: its name; "" is validation, val, valid, dev or test, the first there is.
        class_names: the network's; a folder's classes are matched to them by name.

    Raises:
        InputError: as `open_train`, or a class the network was not trained on.
    """
    known = _known_splits(name, path, split, class_names)
    if not known:
        _check_no_split(path, split)
    split = split or layouts.eval_split(known)
    if known and not split:
        raise errors.InputError(
            f"{path if name == 'folder' else name} has only {'/, '.join(known)}/; give "
            f"--config.data.eval_split={known[0]} to score that"
        )
    if name == "folder":
        source = folders.scan_folder(path, split, classes=class_names, has_to_be_full=False)
    else:
        source = TfdsSource(name, split, path)
    return source.relabel(class_names)


def _check_no_split(path: str, split: str) -> None:
    """Raises InputError if a split is asked for of a folder without any."""
    if split:
        raise errors.InputError(
            f"no folder {os.path.join(path, split)}; {path} holds no splits: leave out "
            "config.data.eval_split, and training holds out a share of it, config.data.held_out, "
            "and evaluation scores all of it"
        )


def _known_splits(name: str, path: str, named: str, class_names: Sequence[str]) -> Sequence[str]:
    """Returns the splits of a TFDS set, or the split folders of a path."""
    if name == "folder":
        return layouts.find(path, named, class_names).splits
    return list(load_builder(name, path).info.splits)


def _split_by_seed(
    labels: Sequence[int], held_out: float, seed: int
) -> tuple[list[int], list[int]]:
    """Returns the indices to train on and those held out: the same share of each class.

    Where that is no whole number of images, the classes with the largest rest give one more, so
    that all classes together give their share. Each class keeps an image to train on.
    """
    count, values = len(labels), np.asarray(labels)
    order = np.random.default_rng([seed, count]).permutation(count)
    sizes = np.bincount(values)
    wanted = sizes * held_out
    given = np.minimum(np.floor(wanted).astype(int), sizes - 1)
    # Of equal rests the class that comes first in the random order.
    first = np.array([np.flatnonzero(values[order] == label)[0] for label in range(len(sizes))])
    ranked = np.lexsort((first, given - wanted))
    for label in ranked[: max(0, round(count * held_out) - int(given.sum()))]:
        given[label] = min(given[label] + 1, sizes[label] - 1)
    rest = np.concatenate([order[values[order] == k][:n] for k, n in enumerate(given)])
    kept = np.setdiff1d(order, rest)
    return kept.tolist(), np.sort(rest).tolist()
