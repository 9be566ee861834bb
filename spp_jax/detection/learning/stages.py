"""Trains a detector, stage by stage: each leaves a file in the workdir and is not done again.

proposals -> (fine-tuning) -> box regression -> SVMs with hard negatives (section 4.1).
"""

import os
from typing import NamedTuple

import numpy as np

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.data.sources import objects
from spp_jax.detection import dataset, detector
from spp_jax.detection import workdir as workdirs
from spp_jax.detection.learning import examples as examples_lib
from spp_jax.detection.learning import finetune, mining
from spp_jax.detection.proposals import proposing
from spp_jax.detection.windows import regions
from spp_jax.runs import lock, signals
from spp_jax.runs import progress as progress_lib


def train(
    config: config_lib.DetectionConfig,
    workdir: str,
    *,
    stop: signals.Stop | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> int | None:
    """Trains a detector, or goes on with the stages that the workdir does not have yet.

    Args:
        config: of the detector.
        workdir: made if missing.
        stop: asks fine-tuning to stop, or never.
        progress: is told the lines of each stage, and how far it is.

    Returns:
        The signal that stopped it while it was fine-tuning, else None.

    Raises:
        InputError: the config, the network, the data and the workdir do not fit, or another run is
            in the workdir.
    """
    checked = check(config, workdir, progress)
    with lock.hold(workdir):
        return _train(config, workdir, checked, stop, progress)


def _train(
    config: config_lib.DetectionConfig,
    workdir: str,
    checked: "Checked",
    stop: signals.Stop | None,
    progress: progress_lib.Progress,
) -> int | None:
    start, data, further, stored = checked
    digests = [x.digest() for x in (data, further) if x] + [stored.digest if stored else ""]
    workdirs.record(config, workdir, data, "".join(digests), start)
    proposer = proposing.provide(
        config.proposals, workdir, data, stored, testing=False, progress=progress
    )
    if config.finetune.enabled:
        result = finetune.train(
            config, workdir, data, proposer, start.step_dir, stop=stop, progress=progress
        )
        if result.stopped_by is not None:
            return result.stopped_by
    _learn(config, workdir, data, further, proposer, progress)
    return None


class Checked(NamedTuple):
    """What a detector is trained from: its network, splits, and windows from files."""

    start: workdirs.Start
    data: dataset.Dataset
    further: dataset.Dataset | None
    stored: proposing.Stored | None


def check(
    config: config_lib.DetectionConfig, workdir: str, progress: progress_lib.Progress
) -> Checked:
    """Reads what a detector is trained from; raises InputError where anything does not fit."""
    workdirs.validate(config, workdir)
    workdirs.check(config, workdir)
    start = workdirs.load_start(config, workdir)
    if start.is_own:
        progress.say(
            f"config.checkpoint={config.checkpoint!r} is no checkpoint: the detector goes on with "
            f"its own copy of the network, {start.step_dir}"
        )
    regions.check_features(start.model, config.features, fc6_rank=config.test.fc6_rank)
    if config.finetune.enabled:
        finetune.check(config.finetune, start.model)
    objects.make_embedded(config.data, progress)
    data, further = _read_splits(config, progress)
    stored = proposing.read_stored(config.proposals)
    proposing.check(config.proposals, data, stored, testing=False)
    _check_test(config, data.class_names, stored)
    return Checked(start, data, further, stored)


def _learn(
    config: config_lib.DetectionConfig,
    workdir: str,
    data: dataset.Dataset,
    further: dataset.Dataset | None,
    proposer: proposing.Proposer,
    progress: progress_lib.Progress,
) -> None:
    """Fits box regression and trains the SVMs, whichever the workdir does not have yet."""
    svm_file, regression_file = (
        os.path.join(workdir, name) for name in (detector.SVM_FILE, detector.REGRESSION_FILE)
    )
    has_svm = detector.load_arrays(svm_file) is not None
    has_regression = detector.load_arrays(regression_file) is not None
    if has_svm and (has_regression or not config.regression.enabled):
        progress.say(f"the detector in {workdir} is trained already")
        return
    model, variables, _ = checkpoint.load(detector.network_dir(workdir) or "")
    learnt_from = detector.origin(config, workdir, variables)
    pools = regions.Regions(model, variables, config.features)
    passes = examples_lib.Passes(config, data, proposer, pools, progress)
    examples = passes.gather(further)
    if config.regression.enabled and not has_regression:
        regressor = examples.fit(config.regression, progress)
        detector.save_learnt(regression_file, regressor, learnt_from)
        progress.say(f"box regression -> {regression_file}")
    if not has_svm:
        linear = _mine(config, data, passes, examples, progress)
        detector.save_learnt(svm_file, linear, learnt_from)
        progress.say(f"SVMs -> {svm_file}")


def _mine(
    config: config_lib.DetectionConfig,
    data: dataset.Dataset,
    passes: examples_lib.Passes,
    examples: examples_lib.Examples,
    progress: progress_lib.Progress,
) -> mining.Linear:
    """Trains the SVMs in one pass over all windows."""
    miner = mining.Miner(
        config.svm, examples.positives, factor=examples.factors[0], seed=config.seed
    )

    def choose(index: int, proposals: np.ndarray) -> np.ndarray:
        # Objects of one class are negatives of the others.
        return np.concatenate([data.objects[index].boxes, proposals])

    for pooled in passes.over_split(choose, "hard negatives"):
        truth = data.objects[pooled.image]
        miner.add(pooled.layer, pooled.row, pooled.windows, truth.boxes, truth.labels)
    linear = miner.finish()
    if not np.isfinite(linear.bias).any():
        raise errors.InputError("no class has both objects and windows to tell them from")
    empty = [n for n, b in zip(data.class_names, linear.bias) if not np.isfinite(b)]
    if empty:
        progress.say(f"no examples to tell apart, so no SVM, of {', '.join(empty)}")
    progress.say(
        f"{sum(len(x) for x in examples.positives)} objects, {miner.num_negatives} hard "
        f"negatives kept, {miner.num_trainings} trainings"
    )
    return linear


def _read_splits(
    config: config_lib.DetectionConfig, progress: progress_lib.Progress
) -> tuple[dataset.Dataset, dataset.Dataset | None]:
    """Returns the training split, and that of `config.data.positives_split`, and says counts."""
    name, path = config.data.name, config.data.path
    data = dataset.read(objects.open_objects(name, path, config.data.split), skip_damaged=True)
    progress.say(data.lines())
    if not config.data.positives_split:
        return data, None
    source = objects.open_objects(name, path, config.data.positives_split)
    further = dataset.read(source, data.class_names, skip_damaged=True)
    progress.say(further.lines())
    return data, further


def _check_test(
    config: config_lib.DetectionConfig,
    class_names: tuple[str, ...],
    stored: proposing.Stored | None,
) -> None:
    """Raises InputError for what evaluation would find wrong, before the work."""
    if not config.data.eval_split:
        return
    source = objects.open_objects(config.data.name, config.data.path, config.data.eval_split)
    tested = dataset.read(source, class_names)
    proposing.check(config.proposals, tested, stored, testing=True)
