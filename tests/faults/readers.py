"""Mutated files of other kinds than images: read as values of the right type, or refused by name.

A case writes the whole files of one reader, and reads them again after each mutation of one of
them. `samples` makes the files.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import types
import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.data.sources import image_sets, objects, opening, voc
from spp_jax.detection import detector
from spp_jax.detection.proposals import window_files
from spp_jax.detection.scoring import devkit
from spp_jax.interop import pretrained, weights
from spp_jax.runs import files
from spp_jax.training import logs
from tests.faults import mutations, samples
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_FAULTS = 500  # of a case
_COUNT = 10_000


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        fault: what is mutated, for people.
        make: returns the whole files, by their paths in a folder.
        read: reads a folder's files, of which it is told the mutated one; raises Broken for a value
            that is not right.
        changes: ways to mutate a file.
        faults: of a case.
    """

    fault: str
    make: Callable[[], dict[str, bytes]]
    read: Callable[[pathlib.Path, str], None]
    changes: tuple[mutations.Mutation, ...] = mutations.TEXT
    faults: int = _FAULTS


def _need(right: bool, value: Any) -> None:
    if not right:
        raise Broken("value", f"{value!r:.500}")


def _are_boxes(rows: Any) -> bool:
    boxes = np.asarray(rows, np.float64).reshape(-1, 4)
    return bool(np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all())


def _voc_xml(folder: pathlib.Path, name: str) -> None:
    annotation = voc.read_annotation(str(folder), pathlib.Path(name).stem)
    for item in annotation.objects:
        _need(bool(item.name) and _are_boxes(item.box), item)
        _need(type(item.is_difficult) is bool, item)
    _need(all("\n" not in sentence for sentence in annotation.skipped), annotation.skipped)


def _windows(folder: pathlib.Path, name: str) -> None:
    for image_id, windows in window_files.read(str(folder / name)).items():
        is_right = isinstance(image_id, str) and windows.dtype == np.float32 and windows.ndim == 2
        _need(is_right and windows.shape[1] == 4 and _are_boxes(windows), windows)


def _detector(folder: pathlib.Path, name: str) -> None:
    if "data" in name:
        names = detector.read_classes(str(folder))
        _need(all(isinstance(n, str) for n in names) and len(names) > 0, names)
        _need(isinstance(detector.read_data(str(folder))["digest"], str), "digest")
    else:
        config = detector.read_config(str(folder))
        _need(isinstance(config, config_lib.DetectionConfig), config)
        config_lib.validate(config, stored=config)


def _meta(folder: pathlib.Path, name: str) -> None:
    """Reads metadata as Orbax gives them; what is no JSON is refused by Orbax."""
    try:
        stored = json.loads((folder / name).read_bytes())
    except (ValueError, RecursionError):
        return
    original = checkpoint._read_metadata
    given = types.SimpleNamespace(custom_metadata=stored, metadata=None)
    checkpoint._read_metadata = lambda step_dir: given
    try:
        meta = checkpoint.read_meta(str(folder / name))
    finally:
        checkpoint._read_metadata = original
    _need(type(meta.step) is int and meta.step >= 0 and type(meta.num_examples) is int, meta)
    config_lib.validate(meta.config, stored=meta.config)


def _tfds(folder: pathlib.Path, name: str) -> None:
    del name
    opened = opening.TfdsSource(samples.TFDS, "train", str(folder))
    _need(all(isinstance(n, str) for n in opened.class_names), opened.class_names)
    _need(len(opened) > 0, len(opened))
    with contextlib.suppress(errors.ImageError):
        _need(isinstance(opened[0].data, bytes), opened[0])
    try:
        objects.open_objects(samples.TFDS, str(folder), "train")
    except errors.InputError as e:
        _need("\n" not in str(e), str(e))


def _weights(folder: pathlib.Path, name: str) -> None:
    for layer, blobs in weights.read_weights(str(folder / name)).items():
        _need(isinstance(layer, str) and len(blobs) > 0, (layer, blobs))
        _need(all(b.dtype.kind == "f" for b in blobs), layer)


def _devkit(folder: pathlib.Path, name: str) -> None:
    del name
    for detections in devkit.read(str(folder), "test", samples.IDS, samples.CLASSES).values():
        count = len(detections.image)
        is_right = detections.scores.shape == (count,) and detections.boxes.shape == (count, 4)
        _need(is_right and bool(np.isfinite(detections.boxes).all()), detections)
        _need(bool(np.all(detections.image < len(samples.IDS))), detections.image)


def _image_sets(folder: pathlib.Path, name: str) -> None:
    del name
    ids = image_sets.read_ids(str(folder), "test")
    _need(all(image_sets.is_inside(i) for i in ids), ids)
    names, labels = voc.read_labels(str(folder), "test")
    _need(labels.shape == (len(ids), len(names)) and set(np.unique(labels)) <= {-1, 0, 1}, labels)


def _metrics(folder: pathlib.Path, name: str) -> None:
    logs._Lines(str(folder), 3).close()
    for line in (folder / name).read_text().splitlines():
        _need(int(json.loads(line)["step"]) <= 3, line)


def _class_names(folder: pathlib.Path, name: str) -> None:
    names = pretrained.read_class_names(str(folder / name))
    _need(len(names) == len(set(names)) and all(isinstance(n, str) and n for n in names), names)


def _checked(folder: pathlib.Path, name: str) -> None:
    """Reads an object as the entries of SVMs are read."""
    try:
        _need(isinstance(files.read_checked(str(folder / name)), dict), name)
    except ValueError as e:
        raise errors.InputError(f"{folder / name}: {errors.first_line(e)}") from e


READERS = {
    "voc-xml": Reader("VOC annotations mutated", samples.annotations, _voc_xml),
    "windows-npz": Reader("windows in .npz mutated", samples.npz, _windows, mutations.BYTES),
    "windows-json": Reader(
        "windows in JSON mutated", samples.json_windows, _windows, mutations.JSON
    ),
    "detector-json": Reader(
        "config.json and data.json of detectors mutated",
        samples.detector_files,
        _detector,
        mutations.JSON,
    ),
    "checked-json": Reader("entries of SVMs mutated", samples.entries, _checked, mutations.JSON),
    "meta-json": Reader("metadata of checkpoints mutated", samples.meta, _meta, mutations.JSON),
    "tfds": Reader("metadata of TFDS sets mutated", samples.tfds_set, _tfds, mutations.JSON, 250),
    "weights": Reader("weights of Caffe mutated", samples.weights, _weights, mutations.BYTES),
    "devkit": Reader("detections of VOC's devkit mutated", samples.detections, _devkit),
    "image-sets": Reader("image sets and labels of VOC mutated", samples.image_sets, _image_sets),
    "metrics": Reader("metrics.jsonl mutated", samples.metrics, _metrics),
    "class-names": Reader("class names mutated", samples.class_names, _class_names),
}


def _case(reader: Reader, place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    del place
    whole = reader.make()
    for name, data in whole.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    texts = [name for name in whole if not name.endswith(samples.UNTOUCHED)]
    for name in texts:
        _read(reader, folder, name, is_whole=True)
    name = texts[0]
    for number in range(reader.faults):
        chosen = texts[int(rng.integers(len(texts)))]
        if chosen != name:
            (folder / name).write_bytes(whole[name])
            name = chosen
        try:
            data = mutations.mutate(whole[name], rng, reader.changes)
        except ValueError:  # a surrogate that is no text, or a file that is no JSON
            data = mutations.mutate(whole[name], rng)
        (folder / name).write_bytes(data)
        try:
            _read(reader, folder, name)
        except Exception:
            (folder / f"fault-{number}").write_bytes(data)
            raise
    return "read or refused"


def _read(reader: Reader, folder: pathlib.Path, name: str, *, is_whole: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader.read(folder, name)
        except errors.InputError as e:
            names = (str(folder / name), str(folder), samples.TFDS)
            if is_whole or "\n" in str(e) or not any(n in str(e) for n in names):
                raise Broken("sentence", repr(str(e))) from e


def campaigns() -> list[Campaign]:
    """Returns mutations of what each reader reads."""
    return [
        Campaign(
            f"readers-{name}",
            reader.fault,
            "a value of the right type, or refused in one line that names the file",
            cast(Any, functools.partial(_case, reader)),
            _COUNT // reader.faults,
            int(name in ("voc-xml", "windows-npz", "meta-json", "weights", "metrics")),
            faults=reader.faults,
        )
        for name, reader in READERS.items()
    ]
