"""Wrong and extreme configs: refused in one line that names the field, or accepted and buildable.

They go through what the commands do before they write: `train.py --dry_run` without its programs,
`detect.py train --dry_run`, and the beginning of `eval.py --protocol=svm`.
"""

import functools
import math
import pathlib
import re
import resource
import time
import typing
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from spp_jax import checkpoint, errors, network
from spp_jax import config as config_lib
from spp_jax.config import fields
from spp_jax.detection.learning import stages
from spp_jax.detection.windows import regions
from spp_jax.evaluation import features, protocols
from spp_jax.evaluation.svm import benchmark
from spp_jax.evaluation.svm import rows as rows_lib
from spp_jax.evaluation.svm import task as task_lib
from spp_jax.models import backbones, sppnet
from spp_jax.runs import progress as progress_lib
from spp_jax.training import classifier, loop
from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage

_FAULTS = 10  # of a case
_SECONDS = 5.0
_MORE_MEMORY = 2**30

_WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, -(2**31), 2**31, 2**63, 2**64, 10**30, 10**400, -(10**5000)),
    *(0.0, -0.0, 0.5, -1.5, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf, 1j),
    *(
        "",
        "a",
        "a\nb",
        "a\0b",
        "\udcff",
        "None",
        "()",
        "x" * 5000,
        "~nobody",
        "\u202e",
        "../..",
        "/",
    ),
    *("/dev/zero", "gs://none", "%s%n{}", " ", "1", "fc6", "max", b"bytes", [], [1], {}, {"a": 1}),
    *((), (0,), (-1,), (1, 1), (2, 1), (1.5,), ("a",), (None,), (math.nan,), (math.inf,), ((1,),)),
    *((10**5000,), (2**63, 2**64), (1,) * 2000, tuple(range(1, 1001)), (True,), ("\n",), (b"",)),
    *(np.int64(3), np.float32(0.5), np.zeros((3, 3)), np.array([]), object(), len, range(3)),
)


def _extreme(entry: fields.Entry, rng: np.random.Generator) -> Any:
    """Returns a value at a limit of a field, or its own where it has none."""
    rule, kind = entry.rule, entry.kind
    if rule.one_of and not isinstance(entry.value, tuple):
        return rule.one_of[int(rng.integers(len(rule.one_of)))]
    if kind is bool:
        return bool(rng.integers(2))
    if entry.path == "model.name":
        return sorted(backbones.BACKBONES)[int(rng.integers(len(backbones.BACKBONES)))]
    is_tuple = typing.get_origin(kind) is tuple or isinstance(entry.value, tuple)
    if kind not in (int, float) and not (is_tuple and not rule.one_of):
        return entry.value
    is_float = kind is float
    low: Any = rule.at_least if rule.at_least is not None else rule.above
    high: Any = rule.ceiling if rule.ceiling is not None else rule.at_most
    high = rule.below if high is None else high
    low = -(high or 1e6) if low is None else low
    low = low if rule.above is None else math.nextafter(low, math.inf) if is_float else low + 1
    high = 1e6 if high is None else high
    if rule.below is not None:
        high = math.nextafter(rule.below, 0) if is_float else rule.below - 1
    value = low if rng.integers(2) else high
    value = value if is_float else int(value)
    if not is_tuple:
        return value
    count = int(rng.choice([1, 2, 1000]))
    start = max(1, int(low) if low > 0 else 1)
    many = tuple(range(start, start + count)) if rng.integers(2) else (int(high),) * count
    return many if not rule.is_increasing else tuple(sorted(set(many)))


def _set(config: Any, path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        config = getattr(config, section)
    setattr(config, name, value)


def _change(config: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Changes one field to a wrong value, or two to extreme ones; returns {path: value}."""
    entries = list(config_lib.entries(config))
    if rng.integers(2):
        chosen = [entries[int(rng.integers(len(entries)))]]
        changed = {chosen[0].path: _WRONG[int(rng.integers(len(_WRONG)))]}
    else:
        chosen = [entries[i] for i in rng.choice(len(entries), 2, replace=False)]
        changed = {entry.path: _extreme(entry, rng) for entry in chosen}
    for path, value in changed.items():
        _set(config, path, value)
    return changed


def _train_config(place: Stage) -> Any:
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.path, config.data.shorter_side = str(place.pictures), 36
    config.data.crop_size, config.data.batch_size = 32, 4
    config.train.sizes, config.train.num_epochs = (32, 24), 4
    return config


def _check_train(config: Any, place: Stage, folder: pathlib.Path) -> None:
    del place
    config_lib.validate(config)
    network.check(config)
    protocols.check_protocol(config, config.train.eval_protocol)
    workdir = str(folder / "workdir")
    job, saved = classifier.prepare(config, workdir, _evaluate, progress_lib.SILENT)
    loop.check(config, workdir, job, saved)
    sppnet.param_shapes(job.model)


def _evaluate(*_: Any) -> dict[str, Any]:
    return {}


def _detect_config(place: Stage) -> Any:
    config = config_lib.DetectionConfig()
    config.checkpoint, config.data.path = str(place.root / "network"), str(place.root / "shapes")
    config.proposals.min_side = 8
    config.features.scales, config.features.levels = (96,), (3, 1)
    config.features.layer = "pool"
    return config


def _check_detect(config: Any, place: Stage, folder: pathlib.Path) -> None:
    del place
    start, data, *_ = stages.check(config, str(folder / "workdir"), progress_lib.SILENT)
    for batch in regions.plan(data.sizes, config.features, 1):
        regions.scale_canvas(batch.canvas, config.features.scales)
    pools = regions.Regions(start.model, start.variables, config.features)
    assert min(pools.num_features) > 0


def _svm_config(place: Stage) -> Any:
    config = config_lib.SvmConfig()
    config.data.path = str(place.pictures)
    config.scales, config.main_scale = ("crop", "48"), "48"
    config.data.num_train = config.data.max_test = 4
    config.data.num_splits = 2
    return config


@functools.cache
def _network(place: Stage) -> sppnet.SPPNet:
    return checkpoint.load(place.root / "network")[0]


def _check_svm(config: Any, place: Stage, folder: pathlib.Path) -> None:
    del folder
    model = _network(place)
    config_lib.validate(config)
    benchmark.make_views(model, config)
    for row in config.rows or rows_lib.default_rows(model):
        features.check_parts(model, row)
    task = task_lib.open_task(config)
    task_lib.is_scorable(task, *task.splits[0])


_Make = Callable[[Stage], Any]
_Check = Callable[[Any, Stage, pathlib.Path], None]


def _case(
    make: _Make, check: _Check, place: Stage, rng: np.random.Generator, folder: pathlib.Path
) -> str:
    # What is done once is no part of the first fault's time.
    check(make(place), place, folder)
    for _ in range(_FAULTS):
        config = make(place)
        changed = _change(config, rng)
        _try(functools.partial(check, config, place, folder), config, changed)
    return "accepted or refused by name"


def _try(check: Callable[[], None], config: Any, changed: dict[str, Any]) -> None:
    what = ", ".join(f"{path}={_short(value)}" for path, value in changed.items())
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check()
        except errors.InputError as e:
            _check_sentence(str(e), config, changed, what)
        except Exception as e:
            raise Broken(type(e).__name__, what) from e
    seconds = time.monotonic() - start
    if seconds > _SECONDS:
        raise Broken("slow", f"{what}: {seconds:.1f} s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > _MORE_MEMORY:
        raise Broken("memory", f"{what}: {grown / 2**30:.1f} GiB")


def _check_sentence(sentence: str, config: Any, changed: dict[str, Any], what: str) -> None:
    if "\n" in sentence or len(sentence) > 20_000:
        raise Broken("lines", f"{what}: {sentence[:1000]!r}")
    paths = list(changed)
    if len(paths) > 1:
        # Either may be refused for another field, which it does not fit.
        paths = [entry.path for entry in config_lib.entries(config)]
    values = [entry.value for entry in config_lib.entries(config) if entry.path in changed]
    if not any(_names(sentence, path) for path in paths) and not any(
        _quotes(sentence, value) for value in (*values, *changed.values())
    ):
        raise Broken("unnamed", f"{what}: {sentence}")


def _names(sentence: str, path: str) -> bool:
    """Returns whether a sentence names a field: "config.model.lrn", or "config.model: lrn"."""
    section, _, name = path.rpartition(".")
    return any(
        re.search(rf"\bconfig\.{re.escape(words)}\b", sentence)
        for words in (path, f"{section}: {name}")
    )


def _quotes(sentence: str, value: Any) -> bool:
    """Returns whether a sentence has a text, such as a path; short ones prove nothing."""
    if not isinstance(value, str) or (len(value) <= 3 and not value.startswith("/")):
        return False
    return re.search(rf"(?<!\w){re.escape(errors.printable(value)[:100])}", sentence) is not None


def _short(value: Any) -> str:
    try:
        return f"{value!r:.80}" if isinstance(value, str) else repr(value)[:80]
    except ValueError:
        return "a number of thousands of digits"


def campaigns() -> list[Campaign]:
    """Returns wrong and extreme configs of each kind."""
    kinds: tuple[tuple[str, str, _Make, _Check, int], ...] = (
        ("train", "training", _train_config, _check_train, 25),
        ("detect", "detectors", _detect_config, _check_detect, 15),
        ("svm", "SVM benchmarks", _svm_config, _check_svm, 10),
    )
    return [
        Campaign(
            f"settings-{name}",
            f"configs of {what} wrong in a field, or extreme in two",
            "refused in one line that names the field, or accepted, in seconds and little memory",
            functools.partial(_case, make, check),
            count,
            1,
            faults=_FAULTS,
        )
        for name, what, make, check, count in kinds
    ]
