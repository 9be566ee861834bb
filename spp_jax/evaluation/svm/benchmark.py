"""The paper's two SVM benchmarks, layer by scale (sections 3.2, 3.3, Tables 6 and 7).

Shapes: K classes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from spp_jax import cluster, errors
from spp_jax import config as config_lib
from spp_jax.evaluation import average_precision, extraction, feature_files, features
from spp_jax.evaluation import protocols as protocols_lib
from spp_jax.evaluation.svm import machines
from spp_jax.evaluation.svm import rows as rows_lib
from spp_jax.evaluation.svm import task as task_lib
from spp_jax.models import sppnet
from spp_jax.runs import files, places
from spp_jax.runs import progress as progress_lib


def run(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    config: config_lib.SvmConfig,
    workdir: str,
    *,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> dict[str, Any]:
    """Extracts the features, trains and scores the SVMs of every row and scale.

    Features and finished entries stay in the workdir, features/SCALE.npy and features/entries.json,
    and the same call goes on after them.

    Returns:
        What eval_svm.json holds: mean_class_accuracy or map (11-point) with map_area, both of the
        last row at `config.main_scale`; num_examples (tested, of one split); class_names; refused;
        and `rows`, an entry for each row and scale.

    Raises:
        InputError: the config, the network and the data do not fit, or the workdir holds something
            else.
    """
    config_lib.validate(config)
    views = make_views(model, config)
    rows = [features.check_parts(model, r) for r in config.rows or rows_lib.default_rows(model)]
    task = task_lib.open_task(config)
    if not np.any(task_lib.is_scorable(task, *task.splits[0])):
        raise errors.InputError(f"no class of {config.data.path} is in both splits")
    with cluster.together():
        _check_places(workdir, views)
        try:
            os.makedirs(os.path.join(workdir, "features"), exist_ok=True)
        except OSError as e:
            path = e.filename or workdir
            raise errors.InputError(f"{path} cannot be written: {e.strerror}") from e
    counts = (
        f"{len(task.source)} images of {len(task.class_names)} classes, {len(task.splits)} "
        f"split(s), {len(rows)} rows x {len(views)} scales"
    )
    progress.say("\n".join([counts, *task.source.notes]))
    table = _Table(model, variables, config, workdir, task, rows, progress)
    entries = [entry for scale, view in views.items() for entry in table.column(scale, view)]
    unscored = sorted({name for e in entries for name in e["unscored"]})
    if unscored:
        names = ", ".join(unscored)
        progress.say(f"not scored, as there are none to train on or none to test: {names}")
    main = next(e for e in reversed(entries) if e["scale"] == config.main_scale)
    return {
        "protocol": "svm",
        **{k: main[k] for k in ("mean_class_accuracy", "map", "map_area") if k in main},
        "num_examples": main["num_examples"],
        "main": f"{main['layer']} | {main['scale']}",
        "num_splits": len(task.splits),
        "class_names": list(task.class_names),
        "refused": list(table.refused),
        "network": model.backbone.name,
        "config": dataclasses.asdict(config),
        "rows": entries,
    }


def _check_places(workdir: str, scales: Iterable[str]) -> None:
    """Raises InputError where the features of a scale, or entries, could not be written."""
    names = [f"{scale}.npy" for scale in scales]
    places.check(workdir, folders=["features"])
    places.check(
        os.path.join(workdir, "features"),
        files=["entries.json", *names, *(f"{name}.json" for name in names)],
        folders=[f"{name}.part" for name in names],
    )


def make_views(
    model: sppnet.SPPNet, config: config_lib.SvmConfig
) -> dict[str, protocols_lib.Protocol]:
    """Returns the view of each scale of a config.

    Raises:
        InputError: the network does not take the images of one.
    """
    size = config.size or model.backbone.size
    views = {str(s): extraction.make_view(str(s), size) for s in config.scales}
    for view in views.values():
        try:
            extraction.check_view(model, view)
        except errors.InputError as e:
            raise errors.InputError(f"config.scales or config.size: {e}") from e
    return views


class _Table:
    """Fills the table column by column, one per scale.

    Attributes:
        refused: a sentence for each image that could not be read, of the last column.
    """

    def __init__(
        self,
        model: sppnet.SPPNet,
        variables: Mapping[str, Any],
        config: config_lib.SvmConfig,
        workdir: str,
        task: task_lib.Task,
        rows: list[config_lib.Row],
        progress: progress_lib.Progress,
    ):
        self._model, self._variables, self._config = model, variables, config
        self._folder = os.path.join(workdir, "features")
        self._task, self._rows, self._progress = task, rows, progress
        self._parts = rows_lib.merge_parts(rows)
        self._entries = _Entries(os.path.join(self._folder, "entries.json"), config, task)
        self.refused: tuple[str, ...] = ()

    def column(self, scale: str, view: protocols_lib.Protocol) -> list[dict[str, Any]]:
        """Returns the entry of each row at a scale; the first process trains the SVMs of all."""
        config = self._config
        extracted = extraction.extract_to(
            os.path.join(self._folder, f"{scale}.npy"),
            self._model,
            self._variables,
            self._task.source,
            extraction.Request(
                self._parts,
                view,
                batch_size=config.batch_size,
                num_programs=config.num_programs,
                num_workers=config.data.num_workers,
            ),
            progress=self._progress,
        )
        self.refused = extracted.refused
        entries: list[dict[str, Any]] = []
        with cluster.together():
            if cluster.is_first():
                kernels = rows_lib.Kernels(self._model, self._parts, extracted.features)
                entries = [self._entry(scale, row, extracted, kernels) for row in self._rows]
        return cluster.gather(entries)[0]

    def _entry(
        self,
        scale: str,
        row: config_lib.Row,
        extracted: feature_files.Extracted,
        kernels: rows_lib.Kernels,
    ) -> dict[str, Any]:
        entry = self._entries.get(row, extracted)
        if entry is None:
            kernel = np.mean([kernels.of_part(part) for part in row], axis=0)
            entry = {
                "layer": rows_lib.label(row),
                "scale": scale,
                "num_features": features.num_features(self._model, row),
                **score_splits(self._task, kernel, extracted.indices, self._config),
            }
            self._entries.put(row, extracted, entry)
        self._progress.say(f"{entry['layer']} | {scale} | {percent(entry)}")
        return entry


def percent(entry: dict[str, Any]) -> str:
    """Returns the number of an entry: mAP by 11 points (and area), or accuracy, in percent."""
    if "map" in entry:
        return f"{100 * entry['map']:.2f} ({100 * entry['map_area']:.2f})"
    spread = f" ± {100 * entry['deviation']:.2f}" if len(entry["splits"]) > 1 else ""
    return f"{100 * entry['mean_class_accuracy']:.2f}{spread}"


def score_splits(
    task: task_lib.Task, kernel: np.ndarray, indices: np.ndarray, config: config_lib.SvmConfig
) -> dict[str, Any]:
    """Trains and tests on each split; returns what an entry says of them.

    Args:
        task: the splits and targets.
        kernel: inner products of the examples that could be read.
        indices: which examples these are.
        config: C, loss and seed.
    """
    place = {int(index): row for row, index in enumerate(indices)}
    tested: list[tuple[np.ndarray, np.ndarray]] = []
    is_scored = np.ones(len(task.class_names), bool)
    for split in task.splits:
        train, test = ([i for i in part.tolist() if i in place] for part in split)
        if not train or not test:
            raise errors.InputError("no image to train on, or none to test on, can be read")
        decisions = machines.decisions(
            kernel,
            np.asarray([place[i] for i in train]),
            np.asarray([place[i] for i in test]),
            task.targets[train],
            c=config.c,
            loss=config.loss,
            seed=config.seed,
        )
        tested.append((decisions, task.targets[test]))
        is_scored &= task_lib.is_scorable(task, train, test)
    if not np.any(is_scored):
        raise errors.InputError("no class has images to train on and to test that can be read")
    shared = {
        "num_examples": len(tested[-1][1]),
        "unscored": [name for name, ok in zip(task.class_names, is_scored) if not ok],
    }
    if task.is_ranked:
        ((decisions, targets),) = tested
        return shared | _mean_precisions(task.class_names, decisions, targets, is_scored)
    return shared | _mean_accuracies(tested, is_scored)


def _mean_precisions(
    names: tuple[str, ...], decisions: np.ndarray, targets: np.ndarray, is_scored: np.ndarray
) -> dict[str, Any]:
    aps = np.array([average_precision.of_scores(d, t) for d, t in zip(decisions.T, targets.T)])
    means = aps[is_scored].mean(axis=0)
    by_class = [
        {n: float(ap) if ok else None for n, ap, ok in zip(names, column, is_scored)}
        for column in aps.T
    ]
    return {
        "map": float(means[0]),
        "map_area": float(means[1]),
        "ap_11point": by_class[0],
        "ap_area": by_class[1],
    }


def _mean_accuracies(
    tested: list[tuple[np.ndarray, np.ndarray]], is_scored: np.ndarray
) -> dict[str, Any]:
    values = []
    for decisions, targets in tested:
        labels = np.argmax(targets, axis=1)
        rows = is_scored[labels]
        values.append(machines.mean_class_accuracy(decisions[rows], labels[rows]))
    return {
        "mean_class_accuracy": float(np.mean(values)),
        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "splits": values,
    }


class _Entries:
    """The entries of an interrupted call, by everything they depend on."""

    def __init__(self, path: str, config: config_lib.SvmConfig, task: task_lib.Task):
        self._path = path
        digest = hashlib.sha256(task.targets.tobytes())
        for part in (part for split in task.splits for part in split):
            digest.update(part.astype(np.int64).tobytes() + b"|")
        self._shared = [config.seed, config.c, config.loss, digest.hexdigest()]
        try:
            self._entries: dict[str, Any] = files.read_checked(path) if os.path.exists(path) else {}
        except (OSError, ValueError) as e:
            raise errors.InputError(f"{path} is damaged; remove it") from e

    def _key(self, row: config_lib.Row, extracted: feature_files.Extracted) -> str:
        return json.dumps([rows_lib.label(row), extracted.metadata["facts"], self._shared])

    def get(self, row: config_lib.Row, extracted: feature_files.Extracted) -> dict[str, Any] | None:
        return self._entries.get(self._key(row, extracted))

    def put(
        self, row: config_lib.Row, extracted: feature_files.Extracted, entry: dict[str, Any]
    ) -> None:
        self._entries[self._key(row, extracted)] = entry
        files.write_checked(self._path, self._entries)
