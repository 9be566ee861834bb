"""Opens the examples that a config names: a folder, or any TFDS classification set."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits as splits_lib

from spp_jax import errors
from spp_jax.data.embedded import digit_groups, digits
from spp_jax.data.imagenet import preparing
from spp_jax.data.sources import base, folders, layouts, tfds_builders
from spp_jax.runs import progress as progress_lib

# Modules of the sets that need no download; each set is made when it is first opened.
EMBEDDED = {"digit_scenes": digits, digit_groups.NAME: digit_groups}


class TfdsSource:
    """A prepared TFDS set with features `image` and `label`, through ArrayRecord.

    A label of -1 stands for none, as in splits whose labels are secret. Where `labelled`, such an
    example is refused when it is read, as is one with the label of no class.
    """

    def __init__(self, name: str, split: str, data_dir: str, *, labelled: bool = False):
        builder = load_builder(name, data_dir)
        self.class_names = read_class_names(builder, name)
        self.split = split
        self.notes: tuple[str, ...] = ()
        self._name, self._labelled = name, labelled
        self._labels = list(range(len(self.class_names)))
        self._examples = open_examples(builder, name, split)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> base.Example:
        image, label = read_record(self._examples, index, ("image", "label"), self.name(index))
        if not (0 if self._labelled else -1) <= label < len(self._labels):
            raise errors.ImageError(
                f"{self.name(index)}: its label {label} is none of the {len(self._labels)} classes"
            )
        return base.Example(image, self._labels[label] if label >= 0 else -1, self.name(index))

    def name(self, index: int) -> str:
        return f"{self._name}[{self.split}][{index}]"

    def relabel(self, class_names: Sequence[str]) -> "TfdsSource":
        """Changes this source as `FolderSource.relabel` does and returns it."""
        self._labels = base.match_classes(self.class_names, class_names, self._name)
        self.class_names = tuple(class_names)
        return self


def read_class_names(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, ...]:
    """Returns the classes of a set to classify; raises InputError if it is none."""
    features: Any = builder.info.features or {}
    has_both = "image" in features and "label" in features
    if not has_both or not isinstance(features["label"], tfds.features.ClassLabel):
        raise errors.InputError(f"{name} has no features `image` and `label` to classify")
    return tuple(features["label"].names)


def read_record(examples: Any, index: int, names: Sequence[str], name: str) -> list[Any]:
    """Returns the named features of an example of `open_examples`.

    Args:
        examples: what `open_examples` returns.
        index: of the example.
        names: of the features; `image` is returned as the bytes of its file.
        name: of the example in errors.

    Raises:
        ImageError: the record is damaged, or has no such features.
    """
    try:
        example = examples[index]
        missing = [n for n in names if n not in example]
    # ArrayRecord and TFDS answer damage with many kinds of exceptions.
    except Exception as e:
        raise errors.ImageError(f"{name}: its record is damaged ({errors.first_line(e)})") from e
    if missing:
        raise errors.ImageError(f"{name}: it has no feature {missing[0]!r}")
    if not isinstance(example["image"], bytes):
        raise errors.ImageError(f"{name}: its feature 'image' is no encoded image")
    return [example[n] for n in names]


def open_examples(builder: tfds.core.DatasetBuilder, name: str, split: str) -> Any:
    """Returns the examples of a split of a prepared set, images encoded, read at random.

    Raises:
        InputError: the set has no such split, a part of it is empty or cannot be read, or it is
            not stored as ArrayRecord.
    """
    check_split(name, split, builder.info.splits)
    try:
        # A decorated method, whose arguments pyright cannot see.
        open_split: Any = builder.as_data_source
        return open_split(split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as e:
        raise errors.InputError(
            f"{name} under {builder.data_dir} is not stored as ArrayRecord; convert that folder "
            "once, by TFDS's command `tfds convert_format` with out_file_format array_record"
        ) from e
    # TFDS answers damaged files with many kinds of exceptions.
    except Exception as e:
        raise errors.InputError(_unreadable(name, split, e)) from e


def check_split(name: str, split: str, splits: Any) -> None:
    """Raises InputError unless a set has a split, and each part of it an example.

    Args:
        name: of the set.
        split: TFDS also takes "train+test[:10%]".
        splits: TFDS's SplitDict of the set.
    """
    parts = [part.strip() for part in split.split("+")]
    if any(part.split("[")[0] not in splits for part in parts):
        names = ", ".join(map(errors.printable, splits))
        raise errors.InputError(f"{name} has no split {split!r}, only {names}")
    for part in parts:
        try:
            count = splits[part].num_examples
        # TFDS answers a split that it cannot parse with many kinds of exceptions.
        except Exception as e:
            raise errors.InputError(_unreadable(name, split, e)) from e
        if count < 1:
            raise errors.InputError(f"split {part!r} of {name} holds no example")


def _unreadable(name: str, split: str, error: Exception) -> str:
    return f"split {split!r} of {name} cannot be read: {errors.first_line(error)}"


def has_to_be_made(name: str, data_dir: str) -> bool:
    """Returns whether a name is that of an embedded set which is not there yet."""
    if name not in EMBEDDED:
        return False
    return not tfds_builders.open_builder(name, data_dir or None).data_path.exists()


def make_embedded(
    name: str,
    data_dir: str,
    splits: Sequence[str],
    check: Callable[[tfds.core.DatasetBuilder, str], object],
    progress: progress_lib.Progress,
    *,
    check_counts: Callable[[Sequence[int]], object] | None = None,
) -> None:
    """Makes the embedded set of that name, if it has to be made.

    Args:
        name: of any set; another is left alone.
        data_dir: TFDS's.
        splits: what will be read; "" is passed over.
        check: is called with the builder and the name, and raises InputError where the set is not
            of use; `read_class_names`, say.
        progress: is told how far it is.
        check_counts: is called with the number of examples of each of `splits`, 0 for "", and
            raises InputError where there are too few or too many.

    Raises:
        InputError: as `check`, `check_split`, `check_counts` and `load_builder`; before the set is
            made where it can be.
    """
    if name not in EMBEDDED:
        return
    builder = tfds_builders.open_builder(name, data_dir or None)
    check(builder, name)
    counts = EMBEDDED[name].num_examples()
    infos: Any = splits_lib.SplitDict(
        [_describe_split(builder, split, count) for split, count in counts.items()]
    )
    for split in filter(None, splits):
        check_split(name, split, infos)
    if check_counts:
        parts = ([part.strip() for part in split.split("+") if split] for split in splits)
        check_counts([sum(infos[p].num_examples for p in names) for names in parts])
    load_builder(name, data_dir, progress=progress)


def _describe_split(
    builder: tfds.core.DatasetBuilder, split: str, count: int
) -> tfds.core.SplitInfo:
    """Returns what TFDS knows of a split once it is made; it slices no split without file names."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=builder.data_path,
        dataset_name=builder.name,
        split=split,
        filetype_suffix="array_record",
    )
    return tfds.core.SplitInfo(split, [count], 0, template)


def load_builder(
    name: str, data_dir: str, *, progress: progress_lib.Progress = progress_lib.SILENT
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a prepared set; an embedded set is prepared first if necessary.

    Raises:
        InputError: TFDS does not know the name, or the set is not prepared.
    """
    try:
        if name in EMBEDDED:
            EMBEDDED[name].prepare(data_dir or None, progress)
        builder = tfds_builders.open_builder(name, data_dir or None)
    except errors.InputError:
        raise
    except OSError as e:
        raise errors.InputError(f"{name} cannot be prepared under {data_dir}: {e}") from e
    # TFDS raises these for unknown and empty names, and for names with slashes or colons.
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:
        if name == preparing.NAME:  # TFDS knows it only once it is prepared
            raise errors.InputError(_not_prepared(name, data_dir or "TFDS's data_dir")) from e
        raise errors.InputError(
            f"config.data.name={name!r} is neither folder, digit_scenes nor a set TFDS knows"
        ) from e
    # TFDS answers damaged files of a set with many kinds of exceptions.
    except Exception as e:
        where = data_dir or "TFDS's data_dir"
        raise errors.InputError(
            f"the files of {name} under {where} are damaged: {errors.first_line(e)[:200]}"
        ) from e
    if not builder.info.splits:
        raise errors.InputError(_not_prepared(name, builder.data_dir))
    return builder


def _not_prepared(name: str, where: object) -> str:
    return (
        f"{name} is not prepared under {where}; run `python -m spp_jax.data.prepare {name}` once, "
        "or set config.data.path to the folder that holds it"
    )


def open_train(name: str, path: str, split: str, held_out: float, seed: int) -> base.Source:
    """Returns the training examples.

    Args:
        name: "folder", "digit_scenes" or a TFDS set.
        path: the folder, or TFDS's data_dir.
        split: the name of the training split.
        held_out: the share of each class that a folder without splits leaves to `open_held_out`.
        seed: chooses the images of that share.

    Raises:
        InputError: the folder is missing or empty, a class has no images, there is one class only,
            or the set or split is unknown.
    """
    if name != "folder":
        return TfdsSource(name, split, path, labelled=True)
    layout = layouts.find(path, split)
    if layout.splits:
        _check_folder(layout, split, "config.data.split")
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
    """Returns the examples that watch training: an evaluation split, or the held-out share.

    None where all splits are for training, or the share holds no image. Arguments as of
    `open_train` and `open_eval`; `split` is the one of evaluation.
    """
    splits = _split_names(name, path, split, class_names)
    if splits:
        has_any = bool(split or layouts.eval_split(splits))
        return open_eval(name, path, split, class_names) if has_any else None
    _check_no_split(path, split)
    whole = folders.scan_folder(path, "")
    indices = _split_by_seed(whole.labels, held_out, seed)[1]
    return whole.subset(indices).relabel(class_names) if len(indices) else None


def open_eval(name: str, path: str, split: str, class_names: Sequence[str]) -> base.Source:
    """Returns the examples of a split, or of a whole folder that has no splits.

    Args:
        name: "folder", "digit_scenes" or a TFDS set.
        path: the folder, or TFDS's data_dir.
        split: its name; "" is the first of validation, val, valid, dev and test that there is.
        class_names: the classes of the network, to which those of the data are matched by name.

    Raises:
        InputError: as `open_train`, or the network was not trained on a class of the data.
    """
    splits = _split_names(name, path, split, class_names)
    if not splits:
        _check_no_split(path, split)
    split = split or layouts.eval_split(splits)
    if splits and not split:
        raise errors.InputError(
            f"{path if name == 'folder' else name} has only {'/, '.join(splits)}/; set "
            f"config.data.eval_split to {splits[0]} to score that"
        )
    if name == "folder":
        if split:
            _check_folder(layouts.find(path, split, class_names), split, "config.data.eval_split")
        source = folders.scan_folder(path, split, classes=class_names, refuse_empty=False)
    else:
        source = TfdsSource(name, split, path, labelled=True)
    return source.relabel(class_names)


def _check_folder(layout: layouts.Layout, split: str, field: str) -> None:
    """Raises InputError, which names the field of the split, if its folder is missing."""
    folder = os.path.join(layout.path, layouts.find_split(layout.splits, split) or split)
    if not os.path.isdir(folder):
        raise errors.InputError(f"no folder {errors.printable(folder)} ({field})")


def _check_no_split(path: str, split: str) -> None:
    """Raises InputError if the user named a split of a folder without splits."""
    if split:
        raise errors.InputError(
            f"no folder {os.path.join(path, split)}; {path} holds no splits: leave out "
            "config.data.eval_split, and training holds out a share of it, config.data.held_out, "
            "and evaluation scores all of it"
        )


def _split_names(name: str, path: str, named: str, class_names: Sequence[str]) -> Sequence[str]:
    """Returns the names of the splits of a TFDS set, or of the split folders of a folder."""
    if name == "folder":
        return layouts.find(path, named, class_names).splits
    return list(load_builder(name, path).info.splits)


def _split_by_seed(
    labels: Sequence[int], held_out: float, seed: int
) -> tuple[list[int], list[int]]:
    """Returns the indices to train on and those held out: the same share of each class.

    Where the share of a class is no whole number of images it is rounded down; the classes with the
    largest fractions then give one image more, until all classes together have given the share.
    Each class keeps at least one image to train on.
    """
    count, values = len(labels), np.asarray(labels)
    order = np.random.default_rng([seed, count]).permutation(count)
    sizes = np.bincount(values)
    wanted = sizes * held_out
    counts = np.minimum(np.floor(wanted).astype(int), sizes - 1)
    # Among equal fractions the class that comes first in the random order goes first.
    first = np.array([np.flatnonzero(values[order] == label)[0] for label in range(len(sizes))])
    ranked = np.lexsort((first, counts - wanted))
    for label in ranked[: max(0, round(count * held_out) - int(counts.sum()))]:
        counts[label] = min(counts[label] + 1, sizes[label] - 1)
    left_out = np.concatenate([order[values[order] == k][:n] for k, n in enumerate(counts)])
    train = np.setdiff1d(order, left_out)
    return train.tolist(), np.sort(left_out).tolist()
