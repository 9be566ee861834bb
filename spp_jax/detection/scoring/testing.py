"""Detects the objects of a split and scores the detections, by VOC's rules (section 4.1).

Detections of an image are written when they are made: an interrupted call goes on after them.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data.sources import objects
from spp_jax.detection import dataset, detector
from spp_jax.detection.proposals import proposing
from spp_jax.detection.scoring import devkit, mean_ap
from spp_jax.runs import files, memory, places
from spp_jax.runs import progress as progress_lib

RESULT = "eval.json"
DETECTIONS = "detections"
# Of several detectors together; one's own results stay.
COMBINED_RESULT, COMBINED = "eval_combined.json", "combined"


class Tested(NamedTuple):
    """What testing gave.

    Attributes:
        result: what eval.json holds: `mean_ap.result`, and what it was of.
        curves: of each class.
        folder: of comp4_det_SPLIT_CLASS.txt, the detections.
        notes: sentences about objects that could not be found, whatever the detector.
    """

    result: dict[str, Any]
    curves: dict[str, mean_ap.Curve]
    folder: str
    notes: list[str]


def score_split(
    workdir: str,
    config: config_lib.DetectionConfig,
    others: Sequence[str] = (),
    *,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> Tested:
    """Detects the objects of the split, writes DETECTIONS/comp4_det_SPLIT_CLASS.txt, and scores.

    Args:
        workdir: of a finished detector.
        config: its own, with other ways to test.
        others: workdirs of detectors that score the same windows (section 4.4).
        progress: is told of the split and its windows, and how far it is.

    Raises:
        InputError: a detector is not finished, or the data does not fit.
    """
    config_lib.validate(config, stored=detector.read_config(workdir))
    if not config.data.eval_split:
        raise errors.InputError("config.data.eval_split is empty: nothing to test on")
    detectors = [detector.load(workdir, config), *map(detector.load, others)]
    names = detectors[0].class_names
    for path, other in zip(others, detectors[1:]):
        if other.class_names != names:
            raise errors.InputError(f"{path} detects other classes than {workdir}")
    source = objects.open_objects(config.data.name, config.data.path, config.data.eval_split)
    data = dataset.read(source, names)
    progress.say(data.lines())
    folder = _make_folder(workdir, others, source.split, names)
    stored = proposing.read_stored(config.proposals)
    proposer = proposing.provide(
        config.proposals, workdir, data, stored, testing=True, progress=progress
    )
    windows = stored.digest if stored else [dataclasses.asdict(s) for s in proposer.settings]
    facts = _facts(_digest([workdir, *others]), data, windows, config)
    path = os.path.join(folder, f"{source.split}.jsonl")
    with _Unfinished(path, facts, frozenset(data.sizes), len(names)) as unfinished:
        for i, detections in detect_all(
            detectors,
            data,
            proposer,
            config.test,
            unfinished.refused,
            done=unfinished.ids,
            progress=progress,
        ):
            unfinished.write(i, detections)
    if not unfinished.by_image:
        raise errors.InputError(f"no image of split {source.split} can be read")
    refused = [*data.refused, *unfinished.refused.values()]
    reached = _count_reached(unfinished.by_image, config.test.max_detections)
    by_class = _by_class(unfinished.by_image, names)
    devkit.write(folder, source.split, source.image_ids, by_class)
    curves = mean_ap.score_all(by_class, data.truth())
    result = {
        **mean_ap.result(curves),
        "split": source.split,
        "num_images": len(source),
        "refused": refused,
        "unknown": data.unknown,
        "max_detections_reached": reached,
        "combined_with": list(others),
        "config": dataclasses.asdict(config),
    }
    notes = _missed(len(refused), len(source), reached, config.test.max_detections)
    return Tested(result, curves, folder, notes)


def _make_folder(
    workdir: str, others: Sequence[str], split: str, class_names: Sequence[str]
) -> str:
    """Returns the folder of the detections, made; raises InputError where results cannot be."""
    folder = os.path.join(workdir, DETECTIONS, *([COMBINED] if others else []))
    places.check(workdir, files=[os.path.basename(result_path(workdir, others))])
    names = [f"{split}.jsonl", f"curves_{split}.png"]
    names += [devkit.file_name(split, name) for name in class_names]
    places.check(folder, files=names)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"{folder} cannot be written: {e.strerror}") from e
    return folder


def _facts(
    digest: str, data: dataset.Dataset, windows: Any, config: config_lib.DetectionConfig
) -> dict[str, Any]:
    """Returns what detections depend on, as JSON keeps it."""
    return {
        "detectors": digest,
        "images": data.digest(),
        "has_regression": config.regression.enabled,
        "proposals": windows,
        "test": dataclasses.asdict(config.test),
    }


def result_path(workdir: str, others: Sequence[str] = ()) -> str:
    """Returns where the result of a detector, or of it and others, is written."""
    return os.path.join(workdir, COMBINED_RESULT if others else RESULT)


def score_files(
    data: str,
    folder: str,
    *,
    split: str,
    min_iou: float = 0.5,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> dict[str, Any]:
    """Scores detections that anyone's detector wrote as VOC's files; returns `mean_ap.result`.

    Args:
        data: VOC's layout.
        folder: of comp4_det_SPLIT_CLASS.txt; a class without a file has no detections.
        split: the image set.
        min_iou: least overlap of a right detection.
        progress: is told of the split, of missing files and of boxes outside their image.

    Raises:
        InputError: a file cannot be read or is none of VOC's.
    """
    source = objects.open_objects("voc", data, split)
    truth = dataset.read_objects(source)
    progress.say(truth.lines())
    detections = devkit.read(folder, split, source.image_ids, truth.class_names)
    for name in sorted(set(truth.class_names) - set(detections)):
        file = devkit.file_name(split, name)
        progress.say(f"no file {file} of class {name!r}: it counts as not found")
    outside = devkit.check_outside(detections, truth.limits, source.image_ids)
    if outside:
        progress.say(outside)
    curves = mean_ap.score_all(detections, truth.truth(), min_iou)
    return {**mean_ap.result(curves), "split": split, "min_iou": min_iou}


def detect_all(
    detectors: Sequence[detector.Detector],
    data: dataset.Dataset,
    proposer: proposing.Proposer,
    test: config_lib.TestConfig,
    refused: dict[int, str],
    *,
    done: frozenset[int] = frozenset(),
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> Iterator[tuple[int, detector.ImageDetections]]:
    """Yields (index, detections) of every image that can be read and is not `done`, batch by batch.

    Several detectors see each image one after the other.
    """
    left = {i: size for i, size in data.sizes.items() if i not in done}
    # The same batches for all, so that their streams are of the same images.
    batches = detectors[0].regions.plan(left)
    streams = [
        d.regions.stream(
            data.source,
            batches,
            proposer,
            lambda index, image: image.proposals,
            refused.__setitem__,
        )
        for d in detectors
    ]
    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.close)
        advance = stack.enter_context(progress.bar(f"detection {data.source.split}", len(left)))
        for pooled in zip(*streams):
            yield pooled[0].image, detector.detect(detectors, pooled, test)
            advance(1)


def _by_class(by_image, names: tuple[str, ...]) -> dict[str, mean_ap.Detections]:
    """Returns the detections of each class, image by image."""
    images, labels, scores, shown = [], [], [], []
    for index in sorted(by_image):
        own = by_image[index]
        images.append(np.full(len(own.labels), index))
        labels.append(own.labels)
        scores.append(own.scores)
        shown.append(own.boxes)
    image, label = np.concatenate(images), np.concatenate(labels)
    score, box = np.concatenate(scores), np.concatenate(shown)
    return {
        name: mean_ap.Detections(image[label == k], score[label == k], box[label == k])
        for k, name in enumerate(names)
    }


def _count_reached(
    by_image: Mapping[int, detector.ImageDetections], max_detections: int
) -> dict[str, int]:
    """Returns how many times, and in how many images, a class has as many as it may have."""
    counts = [int(np.sum(np.bincount(f.labels) == max_detections)) for f in by_image.values()]
    return {"times": sum(counts), "images": sum(count > 0 for count in counts)}


def _missed(refused: int, count: int, reached: dict[str, int], max_detections: int) -> list[str]:
    """Returns sentences about objects that could not be found, whatever the detector."""
    notes = []
    if refused:
        notes.append(f"{refused} of {count} images refused: their objects count as not found")
    if reached["times"]:
        notes.append(
            f"config.test.max_detections={max_detections} of a class and image was reached "
            f"{reached['times']} times, in {reached['images']} of {count} images: what else is "
            f"there was not looked at"
        )
    return notes


def _digest(workdirs: Sequence[str]) -> str:
    """Returns what stands for the SVMs and regressors of detectors."""
    digest = hashlib.sha256()
    for path in workdirs:
        for name in (detector.SVM_FILE, detector.REGRESSION_FILE):
            file = os.path.join(path, name)
            if os.path.exists(file):
                data = files.read_bytes(file, memory.physical())
                digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


class _Unfinished:
    """Detections as lines of JSON, the first of what they depend on."""

    def __init__(self, path: str, facts: dict[str, Any], images: frozenset[int], num_classes: int):
        self._images, self._num_classes = images, num_classes
        self.by_image: dict[int, detector.ImageDetections] = {}
        self.refused: dict[int, str] = {}
        self._path, self._facts = path, facts

    @property
    def ids(self) -> frozenset[int]:
        """The images that are done."""
        return frozenset(self.by_image)

    def __enter__(self) -> "_Unfinished":
        """Reads and opens the file; raises InputError where it cannot be written."""
        try:
            lines = self._read()
            # Unbuffered: what a full disk refused is not tried again when the file is closed.
            self._file = open(self._path, "ab" if lines else "wb", 0, opener=files.no_links)
        except OSError as e:
            raise errors.InputError(f"{self._path} cannot be written: {e.strerror}") from e
        if not lines:
            self._write(json.dumps(self._facts))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, index: int, detections: detector.ImageDetections) -> None:
        """Writes the detections of an image."""
        self.by_image[index] = detections
        text = json.dumps([index, *(x.tolist() for x in detections)])
        self._write(f"{text[:-1]}, {zlib.crc32(text.encode())}]")

    def _write(self, line: str) -> None:
        """Adds a line; what a full disk leaves of one is cut off by the next call."""
        try:
            files.write_all(self._file, f"{line}\n".encode())
        except OSError as e:
            raise errors.InputError(
                f"{self._path} cannot be written: {e.strerror}; the same command goes on from there"
            ) from e

    def _read(self) -> bool:
        """Takes in the lines of an interrupted call of the same facts, and cuts off the others.

        These are a line that was not written to its end, and a damaged one with all after it.
        """
        if not os.path.exists(self._path):
            return False
        data = files.read_bytes(self._path, memory.physical())
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        if not lines or not self._is_of_facts(lines[0]):
            return False
        size, has_unchecked = len(lines[0]), False
        for number, line in enumerate(lines[1:], 2):
            try:
                is_checked = self._take(line.decode().rstrip())
            except (ValueError, TypeError, OverflowError):
                warnings.warn(
                    f"{self._path} is damaged from line {number} on: the images from there are "
                    "detected again",
                    errors.InputWarning,
                    stacklevel=2,
                )
                break
            has_unchecked |= not is_checked
            size += len(line)
        if has_unchecked:
            files.warn_unchecked(self._path)
        with open(self._path, "rb+", opener=files.no_links) as f:
            f.truncate(size)
        return True

    def _is_of_facts(self, head: bytes) -> bool:
        try:
            return files.parse_json(head.decode()) == self._facts
        except ValueError:
            return False

    def _take(self, line: str) -> bool:
        """Takes in the detections of a line; returns whether it has a checksum.

        Raises:
            ValueError, TypeError, OverflowError: it is damaged.
        """
        index, labels, scores, boxes, *checksum = files.parse_json(line)
        # Lines of older versions end with the boxes.
        if checksum and checksum != [zlib.crc32(f"{line.rpartition(',')[0]}]".encode())]:
            raise ValueError(line)
        if index not in self._images or index in self.by_image:
            raise ValueError(index)
        self.by_image[index] = self._check(labels, scores, boxes)
        return bool(checksum)

    def _check(self, labels: Any, scores: Any, shown: Any) -> detector.ImageDetections:
        """Returns what a line holds; raises ValueError if that cannot be."""
        detections = detector.ImageDetections(
            np.asarray(labels, np.int64),
            np.asarray(scores, np.float32),
            np.asarray(shown, np.float32).reshape(-1, 4),
        )
        is_known = np.all((detections.labels >= 0) & (detections.labels < self._num_classes))
        counts = {len(x) for x in detections}
        if not is_known or len(counts) > 1:
            raise ValueError(labels)
        return detections
