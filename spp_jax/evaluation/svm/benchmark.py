"""The paper's two SVM benchmarks as a table, layer by scale (sections 3.2, 3.3, Tables 6 and 7).

Shapes: n examples, of all splits · K classes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data.sources import base, folders, voc
from spp_jax.evaluation import average_precision, extraction, feature_files, features
from spp_jax.evaluation.svm import machines
from spp_jax.models import sppnet, topology
from spp_jax.runs import files

RESULT = "eval_svm.json"


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


def evaluate(
    model: sppnet.SPPNet, variables: dict, config: config_lib.SvmConfig, workdir: str
) -> dict[str, Any]:
    """Extracts the features, trains and scores the SVMs of every row and scale.

    What is done is kept in the workdir, features/SCALE.npy and features/entries.json, and the same
    call goes on after it.

    Returns:
        What eval_svm.json holds: mean_class_accuracy or map (11-point) with map_area, both of the
        last row at `config.main_scale`; num_examples (tested, of one split); class_names; refused;
        and `rows`, an entry for each row and scale.

    Raises:
        InputError: the config, the network and the data do not fit, or the workdir holds something
            else.
    """
    config_lib.validate(config)
    size = config.size or model.backbone.size
    views = {str(s): extraction.make_view(str(s), size) for s in config.scales}
    for view in views.values():
        extraction.check_view(model, view)
    rows = [features.check_parts(model, row) for row in config.rows or default_rows(model)]
    task = open_task(config)
    if not np.any(is_scorable(task, *task.splits[0])):
        raise errors.InputError(f"no class of {config.data.path} is in both splits")
    try:
        os.makedirs(os.path.join(workdir, "features"), exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"workdir {workdir} cannot be written: {e.strerror}") from e
    print(
        f"{len(task.source)} images of {len(task.class_names)} classes, {len(task.splits)} "
        f"split(s), {len(rows)} rows x {len(views)} scales",
        *task.source.notes,
        sep="\n",
        flush=True,
    )
    entries: list[dict[str, Any]] = []
    done = _Done(os.path.join(workdir, "features", "entries.json"), config, task)
    refused: tuple[str, ...] = ()
    parts = merge_parts(rows)
    for scale, view in views.items():
        found = extraction.extract_to(
            os.path.join(workdir, "features", f"{scale}.npy"),
            model,
            variables,
            task.source,
            extraction.Request(
                parts,
                view,
                batch_size=config.batch_size,
                num_programs=config.num_programs,
                num_workers=config.data.num_workers,
            ),
            has_progress_bar=True,
        )
        refused = found.refused
        kernels = Kernels(model, parts, found.features)
        for row in rows:
            entry = done.get(row, found)
            if entry is None:
                kernel = np.mean([kernels.of_part(part) for part in row], axis=0)
                entry = {
                    "layer": label(row),
                    "scale": scale,
                    "num_features": features.num_features(model, row),
                    **score(task, kernel, found.indices, config),
                }
                done.put(row, found, entry)
            entries.append(entry)
            print(f"{entry['layer']} | {scale} | {_percent(entry)}", flush=True)
    unscored = sorted({name for e in entries for name in e["unscored"]})
    if unscored:
        print(f"not scored, as there are none to train on or none to test: {', '.join(unscored)}")
    main = next(e for e in reversed(entries) if e["scale"] == config.main_scale)
    result = {
        "protocol": "svm",
        **{k: main[k] for k in ("mean_class_accuracy", "map", "map_area") if k in main},
        "num_examples": main["num_examples"],
        "main": f"{main['layer']} | {main['scale']}",
        "num_splits": len(task.splits),
        "class_names": list(task.class_names),
        "refused": list(refused),
        "network": model.backbone.name,
        "config": dataclasses.asdict(config),
        "rows": entries,
    }
    files.write_json(os.path.join(workdir, RESULT), result, indent=2)
    return result


def default_rows(model: sppnet.SPPNet) -> tuple[config_lib.Row, ...]:
    """Returns rows that show what the bins add: 1, 5, 14 and 50 of the last map.

    Then the fully connected layers, and last the 14 bins of the last map together with those of the
    last map of twice its resolution.
    """
    part, backbone = config_lib.Part, model.backbone
    last = backbone.layers[-1].name
    strides = {layer.name: topology.geometries(backbone)[layer.name] for layer in backbone.layers}
    finer = [n for n, geometry in strides.items() if geometry.stride < strides[last].stride]
    pyramids = ((1,), (2, 1), (3, 2, 1), (6, 3, 2, 1))
    rows: list[config_lib.Row] = [(part(last, levels),) for levels in pyramids]
    rows += [(part(f"fc{6 + i}"),) for i in range(len(backbone.hidden))]
    if finer:
        rows.append((part(finer[-1], (3, 2, 1)),))
        rows.append((part(last, (3, 2, 1)), part(finer[-1], (3, 2, 1))))
    return tuple(rows)


def merge_parts(rows: Sequence[config_lib.Row]) -> tuple[config_lib.Part, ...]:
    """Returns one part for each layer and reduction, with every level that a row has of it."""
    levels: dict[tuple[str, Any], set[int]] = {}
    for part in (part for row in rows for part in row):
        levels.setdefault((part.layer, part.reduce), set()).update(part.levels)
    return tuple(
        config_lib.Part(layer, tuple(sorted(found, reverse=True)), reduce)
        for (layer, reduce), found in levels.items()
    )


def label(row: config_lib.Row) -> str:
    """Returns what a row is called: "conv5 {3,2,1} 14 bins"."""
    names = []
    for part in row:
        bins = sum(n * n for n in part.levels)
        pyramid = f" {{{','.join(map(str, part.levels))}}} {bins} bin{'s' * (bins > 1)}"
        names.append(part.layer + (pyramid if bins else "") + " mean" * (part.reduce == "mean"))
    return " + ".join(names)


def open_task(config: config_lib.SvmConfig) -> Task:
    """Returns the data of a config.

    Raises:
        InputError: it is missing, or a class has too few images.
    """
    data = config.data
    if data.name == "voc":
        root = voc.find_root(data.path)
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


def score(
    task: Task, kernel: np.ndarray, indices: np.ndarray, config: config_lib.SvmConfig
) -> dict[str, Any]:
    """Trains and tests on each split; returns what an entry says of them.

    Args:
        task: the splits and targets.
        kernel: inner products of the examples that could be read.
        indices: which examples these are.
        config: C, loss and seed.
    """
    place = {int(index): row for row, index in enumerate(indices)}
    found = []
    num_examples = 0
    is_scored = np.ones(len(task.class_names), bool)
    for split in task.splits:
        train, test = ([i for i in part.tolist() if i in place] for part in split)
        if not train or not test:
            raise errors.InputError("no image to train on, or none to test on, can be read")
        decided = machines.decisions(
            kernel,
            np.asarray([place[i] for i in train]),
            np.asarray([place[i] for i in test]),
            task.targets[train],
            c=config.c,
            loss=config.loss,
            seed=config.seed,
        )
        found.append((decided, task.targets[test]))
        num_examples = len(test)
        is_scored &= is_scorable(task, train, test)
    shared = {
        "num_examples": num_examples,
        "unscored": [name for name, ok in zip(task.class_names, is_scored) if not ok],
    }
    if not np.any(is_scored):
        raise errors.InputError("no class has images to train on and to test that can be read")
    if task.is_ranked:
        ((decided, targets),) = found
        aps = np.array([average_precision.of_scores(d, t) for d, t in zip(decided.T, targets.T)])
        means = aps[is_scored].mean(axis=0)
        listed = [
            {n: float(ap) if ok else None for n, ap, ok in zip(task.class_names, column, is_scored)}
            for column in aps.T
        ]
        return {
            "map": float(means[0]),
            "map_area": float(means[1]),
            **shared,
            "ap_11point": listed[0],
            "ap_area": listed[1],
        }
    values = []
    for decided, targets in found:
        labels = np.argmax(targets, axis=1)
        kept = is_scored[labels]
        values.append(machines.mean_class_accuracy(decided[kept], labels[kept]))
    return {
        "mean_class_accuracy": float(np.mean(values)),
        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        **shared,
        "splits": values,
    }


def is_scorable(
    task: Task, train: Sequence[int] | np.ndarray, test: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Returns (K,): whether a class is there to learn in some examples and to find in others."""
    return np.any(task.targets[train] > 0, axis=0) & np.any(task.targets[test] > 0, axis=0)


class _Done:
    """The entries of an interrupted call, by everything they depend on."""

    def __init__(self, path: str, config: config_lib.SvmConfig, task: Task):
        self._path = path
        digest = hashlib.sha256(task.targets.tobytes())
        for part in (part for split in task.splits for part in split):
            digest.update(part.astype(np.int64).tobytes() + b"|")
        self._shared = [config.seed, config.c, config.loss, digest.hexdigest()]
        try:
            self._entries: dict[str, Any] = files.read_json(path) if os.path.exists(path) else {}
        except ValueError as e:
            raise errors.InputError(f"{path} is damaged; remove it") from e

    def _key(self, row: config_lib.Row, found: feature_files.Extracted) -> str:
        return json.dumps([label(row), found.metadata["facts"], self._shared])

    def get(self, row: config_lib.Row, found: feature_files.Extracted) -> dict[str, Any] | None:
        return self._entries.get(self._key(row, found))

    def put(
        self, row: config_lib.Row, found: feature_files.Extracted, entry: dict[str, Any]
    ) -> None:
        self._entries[self._key(row, found)] = entry
        files.write_json(self._path, self._entries)


class Kernels:
    """Inner products of the parts of rows, each level multiplied out once."""

    def __init__(self, model: sppnet.SPPNet, parts: Sequence[config_lib.Part], values: np.ndarray):
        self._values = values
        self._columns: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._products: dict[tuple[str, str, int], np.ndarray] = {}
        first = 0
        for part, size in zip(parts, features.part_sizes(model, parts)):
            channels = size // max(1, sum(n * n for n in part.levels))
            for n in part.levels or (1,):
                stop = first + channels * n * n
                self._columns[part.layer, part.reduce, n] = first, stop
                first = stop

    def of_part(self, part: config_lib.Part) -> np.ndarray:
        """Returns the inner products of the part's vectors, each of length 1."""
        total: Any = 0
        for n in part.levels or (1,):
            key = part.layer, part.reduce, n
            if key not in self._products:
                first, stop = self._columns[key]
                self._products[key] = machines.inner_products(self._values[:, first:stop])
            total = total + self._products[key]
        return machines.normalize_kernel(total)


def table(result: dict[str, Any]) -> str:
    """Returns a result of `evaluate` as a Markdown table, percent, rows by scales."""
    entries = result["rows"]
    scales = list(dict.fromkeys(e["scale"] for e in entries))
    shown = [s if not s.isdecimal() else f"full {s}" for s in scales]
    name = "mAP, 11-point (area)" if "map" in result else "mean class accuracy"
    lines = [f"| {name} % | features | {' | '.join(shown)} |", "|---" * (2 + len(scales)) + "|"]
    for layer in dict.fromkeys(e["layer"] for e in entries):
        mine = {e["scale"]: e for e in entries if e["layer"] == layer}
        sizes = next(iter(mine.values()))["num_features"]
        cells = [_percent(mine[scale]) for scale in scales]
        lines.append(f"| {layer} | {sizes:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(entry: dict[str, Any]) -> str:
    if "map" in entry:
        return f"{100 * entry['map']:.2f} ({100 * entry['map_area']:.2f})"
    spread = f" ± {100 * entry['deviation']:.2f}" if len(entry["splits"]) > 1 else ""
    return f"{100 * entry['mean_class_accuracy']:.2f}{spread}"
