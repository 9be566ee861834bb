"""What the SVM benchmarks classify: examples, their classes, and splits of them.

Shapes: n examples, of all splits · K classes.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data.sources import base, folders, voc


@dataclasses.dataclass(frozen=True)
class Task:
    """What is classified.

    Attributes:
        source: every example, to train on and to test on.
        class_names: of the K classes.
        targets: (n, K) 1, -1, or 0: not scored, not trained on.
        splits: (indices to train on, indices to test on), once or several times.
        is_ranked: several classes an image: average precision in place of accuracy.
    """

    source: base.Source
    class_names: tuple[str, ...]
    targets: np.ndarray
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    is_ranked: bool


def open_task(config: config_lib.SvmConfig) -> Task:
    """Returns the data of a config.

    Raises:
        InputError: it is missing, or a class has too few images.
    """
    data = config.data
    if data.name == "voc":
        try:
            root = voc.find_root(data.path)
        except errors.InputError as e:
            raise errors.InputError(f"config.data.name=voc: {e}") from e
        train, test = (voc.VocSource(root, s) for s in (data.split, data.eval_split))
        both = (data.split, data.eval_split)
        names = sorted({name for s in both for name in voc.read_labels(root, s)[0]})
        train_labels, test_labels = (voc.read_labels(root, s, names)[1] for s in both)
        split = (np.arange(len(train)), np.arange(len(train), len(train) + len(test)))
        labels = np.concatenate([train_labels, test_labels])
        return Task(base.Joined((train, test)), tuple(names), labels, (split,), True)
    pair = folders.open_pair(data.path)
    if pair:
        folders.check_classes(pair[0])
        source, names = base.Joined(pair), pair[0].class_names
        split = (np.arange(len(pair[0])), np.arange(len(pair[0]), len(source)))
        targets = _one_hot([*pair[0].labels, *pair[1].labels], len(names))
        return Task(source, names, targets, (split,), False)
    source = folders.scan_folder(data.path, "")
    folders.check_classes(source)
    targets = _one_hot(source.labels, len(source.class_names))
    return Task(source, source.class_names, targets, tuple(_draw(source, config)), False)


def _draw(
    source: folders.FolderSource, config: config_lib.SvmConfig
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields random splits: `num_train` of each class, up to `max_test` of the others."""
    data, labels = config.data, np.asarray(source.labels)
    for k, name in enumerate(source.class_names):
        count = int(np.sum(labels == k))
        if count <= data.num_train:
            raise errors.InputError(
                f"class {name} of {data.path} has {count} images: too few to train on "
                f"{data.num_train} (config.data.num_train) and test on the others"
            )
    for split in range(data.num_splits):
        rng = np.random.default_rng([config.seed, split])
        orders = [rng.permutation(np.flatnonzero(labels == k)) for k in range(labels.max() + 1)]
        stop = data.num_train + data.max_test
        yield (
            np.concatenate([order[: data.num_train] for order in orders]),
            np.concatenate([order[data.num_train : stop] for order in orders]),
        )


def _one_hot(labels: Sequence[int], num_classes: int) -> np.ndarray:
    is_class = np.asarray(labels)[:, None] == np.arange(num_classes)
    return np.where(is_class, 1, -1).astype(np.int8)


def is_scorable(
    task: Task, train: Sequence[int] | np.ndarray, test: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Returns (K,): whether a class is there to learn in some examples and to find in others."""
    return np.any(task.targets[train] > 0, axis=0) & np.any(task.targets[test] > 0, axis=0)
