"""Damaged checkpoints, detectors, features and unfinished work: refused by name, or read unharmed.

A file that only users read cannot be protected, and is left out: the pictures and tables that
commands write, and a .npy of features where np.load reads it. The package reads that file through
`feature_files`, with a checksum.
"""

import contextlib
import functools
import json
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from spp_jax import checkpoint, errors, sharding
from spp_jax.detection import detector
from spp_jax.detection.proposals import search
from spp_jax.evaluation import feature_files
from spp_jax.runs import files
from tests.faults import mutations
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

Loader = Callable[[pathlib.Path], dict[str, Any]]

_MUTATIONS = (
    mutations.flip_bit,
    mutations.change_byte,
    mutations.truncate,
    mutations.zero_block,
    mutations.append,
)


def _arrays(tree: Any) -> dict[str, Any]:
    return {name: np.asarray(x) for name, x in checkpoint.named_leaves(tree)}


def _load_checkpoint(folder: pathlib.Path) -> dict[str, Any]:
    model, variables, meta = checkpoint.load_with_meta(folder)
    step_dir = checkpoint.latest_step_dir(str(folder))
    assert step_dir is not None
    whole = sharding.replicated(sharding.make_mesh())
    spec = checkpoint.stored_spec(step_dir, "optimizer", whole)
    optimizer = checkpoint.restore(step_dir, optimizer=spec)["optimizer"] if spec else None
    return {"model": model, "meta": meta, **_arrays(variables), **_arrays({"o": optimizer})}


def _load_detector(folder: pathlib.Path) -> dict[str, Any]:
    loaded = detector.load(str(folder))
    regressor = loaded.regressor
    arrays = {"svm": (loaded.svm.weights, loaded.svm.bias), "network": loaded.regions._variables}
    arrays["regressor"] = (regressor.weights, regressor.bias) if regressor else ()
    return {"config": loaded.config, "names": loaded.class_names, **_arrays(arrays)}


def _load_features(folder: pathlib.Path, original: pathlib.Path) -> dict[str, Any]:
    """Reads features as the command that made them does, when it finds them finished."""
    name = "x" + original.suffix
    facts, description = _described(original)
    features = feature_files.read_finished(str(folder / name), facts, description)
    if features is None:
        raise errors.InputError(f"{folder / name} is not there, and is made anew")
    return {
        "features": np.array(features.features),  # no map of the file that is to be damaged
        "indices": features.indices,
        "refused": features.refused,
        "metadata": features.metadata,
    }


@functools.cache
def _described(original: pathlib.Path) -> tuple[dict[str, Any], feature_files.Description]:
    if original.suffix == ".npz":
        with np.load(original) as archive:
            stored = {name: archive[name].tolist() for name in archive.files}
        stored["metadata"] = json.loads(stored["metadata"])
    else:
        stored = json.loads(pathlib.Path(f"{original}.json").read_text())
    examples = dict(zip(stored["indices"], zip(stored["paths"], stored["labels"])))
    names = tuple(stored["class_names"])
    return stored["metadata"]["facts"], feature_files.Description(examples, names)


def _load_unfinished(folder: pathlib.Path, original: pathlib.Path) -> dict[str, Any]:
    """Reads what a killed extraction has left."""
    facts, description = _described(original)
    shape = np.load(original, mmap_mode="r").shape
    unfinished = feature_files.Unfinished(str(folder / "x.npy"), facts, description, shape[1])
    done = sorted(unfinished.done())
    rows = np.load(folder / "x.npy.part/features.npy")
    # Rows that are not known to be done are computed again.
    return {"refused": unfinished._refused, **{f"row {i}": rows[i] for i in done}}


def _load_windows(folder: pathlib.Path) -> dict[str, Any]:
    """Reads cached windows; those that are damaged are searched for again."""
    settings = _Key()
    names = [path.name for path in folder.iterdir()]
    windows = {name: search.read_cached(str(folder), settings, name.encode()) for name in names}
    return {name: w for name, w in windows.items() if w is not None}


class _Key(search.Settings):
    """Takes the name of a file for the image whose windows it keeps."""

    def __init__(self):
        super().__init__("fast", 1, 1, 1)

    def key(self, data: bytes) -> str:
        return data.decode()


def _load_entries(folder: pathlib.Path) -> dict[str, Any]:
    try:
        stored = files.read_checked(str(folder / "entries.json"))
        # They are asked for by name: a checksum under another name is an entry nobody asks for.
        return {name: entry for name, entry in stored.items() if name.startswith("row")}
    except (OSError, ValueError) as e:
        raise errors.InputError(f"{folder / 'entries.json'} is damaged ({e})") from e


def _difference(loaded: dict[str, Any], whole: dict[str, Any], *, partial: bool) -> str:
    """Returns the name of what differs from the undamaged, or "" for none."""
    missing = set() if partial else whole.keys() - loaded.keys()
    for name in sorted({*missing, *loaded}):
        if name not in loaded or name not in whole:
            return name
        old, new = whole[name], loaded[name]
        if isinstance(old, np.ndarray):
            is_same = old.dtype == new.dtype and old.shape == new.shape
            is_same = is_same and old.tobytes() == new.tobytes()
        else:
            is_same = old == new
        if not is_same:
            return name
    return ""


def _damage(
    folder: pathlib.Path, other: pathlib.Path | None, rng: np.random.Generator
) -> tuple[str, pathlib.Path]:
    """Damages a file of a folder; returns how, and which."""
    paths = mutations.files_of(folder)
    # Checkpoints have many small files: each entry of the folder is as likely to be hit.
    entries = sorted({path.relative_to(folder).parts[0] for path in paths})
    entry = folder / entries[int(rng.integers(len(entries)))]
    inner = [path for path in paths if path.is_relative_to(entry)]
    path = inner[int(rng.integers(len(inner)))]
    kind = int(rng.integers(len(_MUTATIONS) + 3))
    if kind < len(_MUTATIONS):
        change, data = _MUTATIONS[kind], path.read_bytes()
        path.write_bytes(change(data, rng) if data else b"\0")
        return change.__name__, path
    if kind == len(_MUTATIONS):
        path.unlink()
        return "removed", path
    if kind == len(_MUTATIONS) + 1 and other is not None:
        # Names of data files are random: the other's first of the same folder and length of name.
        beside = other / path.parent.relative_to(folder)
        names = sorted(p for p in beside.glob("*") if p.is_file())
        alike = [p for p in names if p.name == path.name] or [
            p for p in names if len(p.name) == len(path.name)
        ]
        if alike:
            path.write_bytes(alike[0].read_bytes())
            return "of another version", path
    second = paths[int(rng.integers(len(paths)))]
    first_bytes, second_bytes = path.read_bytes(), second.read_bytes()
    path.write_bytes(second_bytes)
    second.write_bytes(first_bytes)
    return f"swapped with {second}", path


def _try(
    folder: pathlib.Path, load: Loader, whole: dict[str, Any], what: str, *, partial: bool = False
) -> str:
    """Loads what was damaged; returns how the project held."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = load(folder)
        except errors.InputError as e:
            sentence = str(e)
            names = (str(folder), *whole)
            if "\n" in sentence or not any(name in sentence for name in names):
                raise Broken("sentence", f"{what}: {sentence!r}") from e
            return "refused by name"
    name = _difference(loaded, whole, partial=partial)
    if name:
        raise Broken("silent", f"{what}: {name} differs")
    return "read unharmed"


@functools.cache
def _whole(load: Loader, source: pathlib.Path) -> dict[str, Any]:
    return load(source)


def _copy(source: pathlib.Path, target: pathlib.Path, *, but: tuple[str, ...] = ()) -> None:
    """Copies the files of a folder whose paths in it do not begin with one of `but`."""
    for path in mutations.files_of(source):
        inner = path.relative_to(source)
        if not any(str(inner).startswith(name) for name in but):
            (target / inner).parent.mkdir(parents=True, exist_ok=True)
            (target / inner).write_bytes(path.read_bytes())


# The files of a detector's workdir that hold no part of it.
_OTHER_FILES = (
    *("detections", "proposals", "eval", "lock.json", "finetune/lock.json"),
    *("finetune/tensorboard", "finetune/metrics.jsonl", "finetune/config.json"),
)


def _checkpoint(place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    steps = sorted((place.trained / "checkpoints").iterdir(), key=lambda p: int(p.name))
    source, other = steps[-1], steps[-2]
    copy = folder / "checkpoints" / source.name
    _copy(source, copy)
    how, path = _damage(copy, other, rng)
    whole = _whole(_load_checkpoint, source)
    return _try(copy, _load_checkpoint, whole, f"{path} {how}")


def _detector(place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    source = place.detector
    other = _other_detector(place)
    copy = folder / "detector"
    _copy(source, copy, but=_OTHER_FILES)
    how, path = _damage(copy, other, rng)
    whole = _whole(_load_detector, source)
    return _try(copy, _load_detector, whole, f"{path} {how}")


def _other_detector(place: Stage) -> pathlib.Path:
    """Returns another detector of the same shapes: the same one, said to be of another seed."""
    target = place.root / "damage" / "other"
    if target.exists():
        return target
    new = place.root / "damage" / f"new-{os.getpid()}"
    _copy(place.detector, new, but=_OTHER_FILES)
    config = json.loads((new / "config.json").read_text())
    del config["crc32"]
    config["seed"] = 7
    files.write_checked(str(new / "config.json"), config)
    data = json.loads((new / "data.json").read_text())
    del data["crc32"]
    data["digest"] = data["digest"][::-1]
    files.write_checked(str(new / "data.json"), data)
    _, variables, _ = checkpoint.load(detector.network_dir(str(new)) or "")
    stored = detector.origin(detector.read_config(str(new)), str(new), variables)
    for name in (detector.SVM_FILE, detector.REGRESSION_FILE):
        arrays = detector.load_arrays(str(new / name)) or {}
        changed = {key: arrays[key] * np.float32(1.25) for key in ("weights", "bias")}
        detector.save_arrays(str(new / name), **changed, origin=json.dumps(stored))
    with contextlib.suppress(OSError):  # another process was first
        new.rename(target)
    return target


def _features(place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    source = _as_npz(place) if rng.integers(3) == 0 else place.features
    load = functools.partial(_load_features, original=source)
    name = f"x{source.suffix}"
    for path in (source, pathlib.Path(f"{source}.json")):
        if path.exists():
            (folder / path.name.replace(source.name, name)).write_bytes(path.read_bytes())
    whole = load(folder)
    how, path = _damage(folder, None, rng)
    return _try(folder, load, whole, f"{path} {how}")


def _as_npz(place: Stage) -> pathlib.Path:
    """Returns the stage's features as extract.py writes them to a .npz."""
    target = place.root / "damage" / "features.npz"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        stored = json.loads(pathlib.Path(f"{place.features}.json").read_text())
        del stored["crc32"], stored["metadata"]["features_crc32"]
        stored["metadata"] = json.dumps(stored["metadata"])
        with files.replacing(str(target)) as f:
            np.savez(f, features=np.load(place.features), **stored)
    return target


def _unfinished(place: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Damages the work of a killed extraction, or windows, or the entries of SVMs."""
    kind = int(rng.integers(3))
    if kind == 0:
        part = folder / "x.npy.part"
        facts, description = _described(place.features)
        values = np.load(place.features)
        part.mkdir()
        writer = feature_files.Unfinished(
            str(folder / "x.npy"), facts, description, values.shape[1]
        )
        with writer:
            half = list(description.examples)[: len(values) // 2]
            writer.write(half, values[: len(half)])
        load = functools.partial(_load_unfinished, original=place.features)
        damaged = part
    elif kind == 1:
        damaged = folder / "windows"
        _copy(place.detector / "proposals", damaged)
        load = _load_windows
    else:
        damaged = folder
        entries = {f"row {i}": {"map": float(rng.random()), "splits": [0.5]} for i in range(3)}
        files.write_checked(str(folder / "entries.json"), entries)
        load = _load_entries
    whole = load(folder if kind == 0 else damaged)
    how, path = _damage(damaged, None, rng)
    partial = kind < 2  # what is missing is made again
    return _try(folder if kind == 0 else damaged, load, whole, f"{path} {how}", partial=partial)


def campaigns() -> list[Campaign]:
    """Returns damage to everything that is saved and read again."""
    right = "refused in one line that names it, or read bit for bit as saved"
    kinds = (
        ("checkpoint", "checkpoints damaged", _checkpoint, 200, 4, ("training",)),
        ("detector", "detectors damaged", _detector, 150, 0, ("detection",)),
        ("features", "files of features damaged", _features, 75, 10, ("training", "extraction")),
        (
            "unfinished",
            "unfinished features, windows and entries damaged",
            _unfinished,
            75,
            0,
            ("training", "extraction", "detection"),
        ),
    )
    return [
        Campaign(f"damage-{name}", fault, right, case, count, short, needs=needs)
        for name, fault, case, count, short, needs in kinds
    ]
