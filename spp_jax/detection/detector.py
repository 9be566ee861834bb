"""A trained detector: a network, an SVM a class, and a box regressor; kept in a workdir.

Shapes: R windows · D detections of an image · K classes.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.detection import device
from spp_jax.detection.learning import mining, regression
from spp_jax.detection.windows import regions
from spp_jax.runs import archives, files

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
SVM_FILE = "svm.npz"
REGRESSION_FILE = "regression.npz"
# Workdirs of a network each, in the order in which they are looked for.
FINETUNED, NETWORK = "finetune", "start"


@dataclasses.dataclass(frozen=True)
class Detector:
    """What detection needs.

    Attributes:
        config: of the detector.
        class_names: of the K classes.
        regions: pools windows with its network.
        svm: scores of the layer's features.
        regressor: deltas of pooled features; None leaves windows where they are.
    """

    config: config_lib.DetectionConfig
    class_names: tuple[str, ...]
    regions: regions.Regions
    svm: mining.Linear
    regressor: regression.Regressor | None


class ImageDetections(NamedTuple):
    """Detections of an image, best first in each class: labels (D,), scores (D,), boxes (D, 4)."""

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


def detect(
    detectors: Sequence[Detector],
    pooled: Sequence[regions.Pooled],
    test: config_lib.TestConfig,
) -> ImageDetections:
    """Scores the windows of an image, moves them, and suppresses those of lower scores.

    Several detectors score the same windows, and what all of them say is suppressed together
    (section 4.4).

    Args:
        detectors: one, or several of the same classes.
        pooled: the image's features, of each.
        test: thresholds and limits.
    """
    windows = pooled[0].windows
    if not len(windows):
        return ImageDetections(
            np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
        )
    count = regions.padded_count(len(windows))
    parts = []
    for detector, own in zip(detectors, pooled):
        row = regions.pad_rows(own.row.astype(np.int32), count)
        arrays = {"svm": dataclasses.asdict(detector.svm), "layer": own.layer, "row": row}
        if detector.regressor is not None:
            arrays |= {"regressor": dataclasses.asdict(detector.regressor), "pool": own.pool}
        parts.append(arrays)
    height, width = pooled[0].loaded.size
    detections = device.detect(
        parts,
        regions.pad_rows(windows.astype(np.float32), count),
        np.int32(len(windows)),
        np.asarray([width, height, width, height], np.float32),
        np.float32(test.min_score),
        np.float32(test.nms_iou),
        max_detections=test.max_detections,
    )
    shown, scores, is_kept = (np.asarray(x) for x in detections)
    labels = np.repeat(np.arange(len(is_kept)), is_kept.sum(axis=1))
    return ImageDetections(labels, scores[is_kept], shown[is_kept])


def network_dir(workdir: str) -> str | None:
    """Returns the workdir of the network of a detector's workdir, None if there is none yet."""
    for name in (FINETUNED, NETWORK):
        path = os.path.join(workdir, name)
        if checkpoint.latest_step_dir(path):
            return path
    return None


def save_arrays(path: str, **arrays: Any) -> None:
    """Writes a .npz that is there whole or not at all."""
    with files.replacing(path) as f:
        np.savez(f, **arrays)


def load_arrays(path: str) -> dict[str, np.ndarray] | None:
    """Returns what a .npz holds, None if it is not there; raises InputError if it is damaged."""
    if not os.path.exists(path):
        return None
    try:
        return archives.read_npz(path)
    except (OSError, ValueError) as e:
        raise errors.InputError(f"{path} is damaged ({e}); remove it and train again") from e


def origin(
    config: config_lib.DetectionConfig, workdir: str, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what SVMs and regressors of a workdir are learnt by and from, as JSON has it.

    Args:
        config: of the detector; fields that may change are left out.
        workdir: holds what `read_data` reads.
        variables: of the network that pools windows.
    """
    data = read_data(workdir)
    stored = {
        "config": {e.path: e.value for e in config_lib.entries(config) if not e.rule.may_change},
        "class_names": data["class_names"],
        "digest": data["digest"],
        "network": checkpoint.checksum(variables),
    }
    return json.loads(json.dumps(stored))


def save_learnt(path: str, arrays: Any, learnt_from: dict[str, Any]) -> None:
    """Writes SVMs or regressors, a dataclass of arrays, with their `origin`."""
    save_arrays(path, **dataclasses.asdict(arrays), origin=json.dumps(learnt_from))


def _check_origin(path: str, arrays: dict[str, np.ndarray], wanted: dict[str, Any]) -> None:
    """Raises InputError if SVMs or regressors are of another detector than their workdir."""
    if "origin" not in arrays:
        return files.warn_unchecked(path)
    names = {"class_names": "class names", "digest": "training data", "network": "network"}
    try:
        stored = files.parse_json(str(arrays["origin"]))
        # Versions have other fields: those that both have are compared.
        fields = stored["config"].keys() & wanted["config"].keys()
        differing = [f"config.{f}" for f in fields if stored["config"][f] != wanted["config"][f]]
        differing += [text for name, text in names.items() if stored[name] != wanted[name]]
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise errors.InputError(f"{path} is damaged: it does not say what it is of") from e
    if differing:
        raise errors.InputError(
            f"{path} is of another detector than its workdir: of another {min(differing)}; "
            "remove it and train again"
        )


def load(workdir: str, config: config_lib.DetectionConfig | None = None) -> Detector:
    """Loads a detector from its workdir alone.

    Args:
        workdir: of `detect.py train`.
        config: in place of the stored one, with other ways to test.

    Raises:
        InputError: it is not there, not trained to its end, or damaged.
    """
    workdir = config_lib.whole_path(workdir)
    config = config or read_config(workdir)
    svm, regressor = load_arrays(os.path.join(workdir, SVM_FILE)), None
    if config.regression.enabled:
        regressor = load_arrays(os.path.join(workdir, REGRESSION_FILE))
    network = network_dir(workdir)
    if svm is None or network is None or (config.regression.enabled and regressor is None):
        raise errors.InputError(
            f"{workdir} holds no finished detector; training with its config and workdir goes on "
            "with it"
        )
    check_same(read_config(workdir), config, workdir)
    # SVMs that know their network are compared with all its numbers below.
    model, variables, _ = checkpoint.load(network, verify="origin" not in svm)
    pools = regions.Regions(model, variables, config.features, fc6_rank=config.test.fc6_rank)
    names, width = read_classes(workdir), pools.num_features
    count = len(names)
    _check_arrays(os.path.join(workdir, SVM_FILE), svm, (width[1], count), (count,))
    learnt_from = origin(config, workdir, variables)
    try:
        _check_origin(os.path.join(workdir, SVM_FILE), svm, learnt_from)
    except errors.InputError:
        checkpoint.load(network)  # names a parameter that is damaged
        raise
    if regressor is not None:
        shapes = (width[0], count, 4), (count, 4)
        _check_arrays(os.path.join(workdir, REGRESSION_FILE), regressor, *shapes)
        _check_origin(os.path.join(workdir, REGRESSION_FILE), regressor, learnt_from)
    return Detector(
        config,
        names,
        pools,
        mining.Linear(svm["weights"], svm["bias"]),
        regression.Regressor(regressor["weights"], regressor["bias"]) if regressor else None,
    )


def _check_arrays(
    path: str, arrays: dict[str, np.ndarray], weights: tuple[int, ...], bias: tuple[int, ...]
) -> None:
    shapes = {name: x.shape for name, x in arrays.items() if x.dtype == np.float32}
    if shapes != {"weights": weights, "bias": bias}:
        raise errors.InputError(f"{path} is damaged, or of another network: it holds {shapes}")


def read_config(workdir: str) -> config_lib.DetectionConfig:
    """Returns the config of a detector's workdir; raises InputError if there is none."""
    path = os.path.join(config_lib.whole_path(workdir), CONFIG_FILE)
    try:
        config = config_lib.from_dict(config_lib.DetectionConfig, files.read_checked(path))
        config_lib.validate(config, stored=config)
        return config
    except FileNotFoundError as e:
        raise errors.InputError(f"{workdir} is no workdir of detect.py: no {CONFIG_FILE}") from e
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise errors.InputError(f"{path} is no config of detect.py: {e}") from e


def check_same(
    stored: config_lib.DetectionConfig, config: config_lib.DetectionConfig, workdir: str
) -> None:
    """Raises InputError for the first field that makes it another detector's than the workdir's."""
    changed = config_lib.difference(stored, config)
    if changed:
        raise errors.InputError(f"workdir {workdir} is of another config: {changed}")


def read_classes(workdir: str) -> tuple[str, ...]:
    """Returns the class names of a detector's workdir."""
    return tuple(read_data(workdir)["class_names"])


def read_data(workdir: str) -> dict[str, Any]:
    """Returns what a workdir's detector was trained on: class_names and digest."""
    path = os.path.join(workdir, DATA_FILE)
    try:
        facts = files.read_checked(path)
        names, digest = facts["class_names"], facts["digest"]
        is_right = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if names and is_right and digest and isinstance(digest, str):
            return facts
    except (OSError, ValueError, TypeError, KeyError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else errors.first_line(e)
        raise errors.InputError(f"{path} is missing or damaged ({reason})") from e
    raise errors.InputError(f"{path} is damaged")
