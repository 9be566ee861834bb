"""Detects objects in any images."""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import base, folders, voc
from spp_jax.detection import dataset, detector
from spp_jax.detection.proposals import proposing
from spp_jax.detection.scoring import testing
from spp_jax.runs import progress as progress_lib


class _Files:
    """Image files as an ObjectSource without annotations."""

    split = "images"

    def __init__(self, paths: Sequence[str]):
        self.image_ids = tuple(paths)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> base.Example:
        return base.Example(images.read_file(self.name(index)), -1, self.name(index))

    def name(self, index: int) -> str:
        return self.image_ids[index]

    def annotation(self, index: int) -> voc.Annotation:
        del index
        return voc.Annotation(())


class Prediction(NamedTuple):
    """The detections of an image, best first, above `config.test.shown_score`.

    Attributes:
        path: of the image.
        name: of its files in the output.
        size: (height, width).
        detections: class, score, and box x1, y1, x2, y2 in pixels, right and bottom exclusive.
        labels: (D,) classes of the detections.
        is_cut: whether a class has as many as it may have.
    """

    path: str
    name: str
    size: tuple[int, int]
    detections: list[dict[str, Any]]
    labels: list[int]
    is_cut: bool


def predict(
    workdir: str,
    config: config_lib.DetectionConfig,
    names: Mapping[str, str],
    refused: list[str],
    *,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> Iterator[Prediction]:
    """Yields what is on each image that can be read.

    Args:
        workdir: of a finished detector.
        config: its own, with other ways to test.
        names: of `list_images`.
        refused: gets a sentence for each image that cannot be read.
        progress: is told how far it is.

    Raises:
        InputError: none of the images can be read, or there is no way to search for windows.
    """
    config_lib.validate(config, stored=detector.read_config(workdir))
    if not config.proposals.methods:
        raise errors.InputError("config.proposals.methods is empty: no way to search for windows")
    finished = detector.load(workdir, config)
    source = _Files(list(names))
    data = dataset.read_sizes(dataset.Dataset(source, finished.class_names, {}, (), (), (), {}))
    unreadable = dict(enumerate(data.refused, start=len(names)))
    if not data.sizes:
        raise errors.InputError(f"none of the images can be read: {data.refused[0]}")
    methods = config.proposals.eval_methods or config.proposals.methods
    proposer = proposing.Proposer("", proposing.make_settings(config.proposals, methods))
    for index, detections in testing.detect_all(
        [finished], data, proposer, config.test, unreadable, progress=progress
    ):
        path = source.name(index)
        yield _make_prediction(
            path, names[path], data.sizes[index], detections, finished.class_names, config.test
        )
    refused += unreadable.values()
    if len(unreadable) == len(names):
        raise errors.InputError(f"none of the images can be read: {refused[0]}")


def _make_prediction(
    path: str,
    name: str,
    size: tuple[int, int],
    detections: detector.ImageDetections,
    class_names: tuple[str, ...],
    test: config_lib.TestConfig,
) -> Prediction:
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] > test.shown_score]
    rows = [
        {
            "class": class_names[detections.labels[i]],
            "score": round(float(detections.scores[i]), 4),
            "box": [round(float(v), 1) for v in detections.boxes[i]],
        }
        for i in order
    ]
    labels = detections.labels[order]
    is_cut = np.bincount(labels).max(initial=0) == test.max_detections
    return Prediction(path, name, size, rows, labels.tolist(), bool(is_cut))


def list_images(
    paths: Sequence[str], progress: progress_lib.Progress = progress_lib.SILENT
) -> dict[str, str]:
    """Returns {path: name of its files in the output} of images, and of all images in folders.

    Raises:
        InputError: no image, or two that would be written to one file.
    """
    if not paths:
        raise errors.InputError("no image is given")
    names: dict[str, str] = {}
    for path in map(os.path.expanduser, paths):
        if os.path.isdir(path):
            listed = folders.list_all(path)
            if listed.notes:
                progress.say("\n".join(listed.notes))
            inner = {os.path.join(path, file): file for file in listed.files}
            named = {path: file.replace(os.sep, "_") for path, file in inner.items()}
        elif os.path.exists(path):
            named = {path: os.path.basename(path)}
        else:
            raise errors.InputError(f"{path}: no such file or folder")
        names |= {path: os.path.splitext(name)[0] for path, name in named.items()}
    counts = collections.Counter(names.values())
    # a.jpg and a.png of a folder become a.jpg.png and a.png.png.
    names = {p: os.path.basename(p) if counts[n] > 1 else n for p, n in names.items()}
    counts = collections.Counter(names.values())
    twice = next((p for p, name in names.items() if counts[name] > 1), None)
    if twice:
        raise errors.InputError(f"two images would be written as {names[twice]}.png, as {twice}")
    return names
