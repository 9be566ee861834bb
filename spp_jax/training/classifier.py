"""Trains a classifier as its config says: opens the data, makes the network, runs the loop."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from spp_jax import cluster, errors, network, sharding
from spp_jax import config as config_lib
from spp_jax.data.loading import reading, streams, views
from spp_jax.data.sources import base, opening
from spp_jax.models import sppnet
from spp_jax.runs import files, signals
from spp_jax.runs import progress as progress_lib
from spp_jax.training import checks, loop, schedule, steps, transfer

# (model, variables, config, source) -> {"protocol": ..., "top1": ...}; evaluation.classify has it.
Evaluate = Callable[[sppnet.SPPNet, dict, config_lib.Config, base.Source], dict[str, Any]]


def train(
    config: config_lib.Config,
    workdir: str,
    evaluate: Evaluate,
    *,
    stop: signals.Stop | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> loop.Result:
    """Trains a classifier, or goes on from the workdir's newest checkpoint, as `loop.run`.

    Args:
        config: a valid one (`config.validate`, `network.check`).
        workdir: a directory, made if missing.
        evaluate: scores the network on the evaluation examples between epochs.
        stop: asks to stop, or never.
        progress: is told how far it is.

    Raises:
        InputError: the data, the workdir or the number of devices does not fit the config, or
            too many examples cannot be read.
    """
    job, saved = prepare(config, workdir, evaluate, progress)
    return loop.run(config, workdir, job, saved, stop=stop, progress=progress)


def prepare(
    config: config_lib.Config, workdir: str, evaluate: Evaluate, progress: progress_lib.Progress
) -> tuple[loop.Job, checks.Saved | None]:
    """Opens the data; returns what is to be trained, and the checkpoint to go on from, if any.

    Writes nothing but an embedded set that is not there yet. Arguments and errors as `train`.
    """
    with cluster.together():
        sharding.check_batch_size(config.data.batch_size, "config.data.batch_size")
        saved = checks.find_saved(config, workdir)
        if config.init_from and not saved:
            transfer.find_step_dir(config.init_from)
        job = _make_job(config, evaluate, progress)
        stream: Any = job.stream
        if saved and config.data.name == "folder" and not stream.source.split:
            checks.check_held_out(saved, workdir, stream.num_steps)
    if cluster.count() > 1:
        fixed = {e.path: e.value for e in config_lib.entries(config) if not e.rule.may_change}
        cluster.agree("the config", files.checksum(fixed))
        cluster.agree("the classes", list(job.class_names))
        names = "\n".join(stream.source.name(i) for i in range(len(stream.source)))
        where = config_lib.whole_path(config.data.path)
        cluster.agree(
            "the training data", [len(stream.source), zlib.crc32(names.replace(where, "").encode())]
        )
        cluster.agree("the checkpoint to go on from", saved.meta.step if saved else None)
    return job, saved


def _make_job(
    config: config_lib.Config, evaluate: Evaluate, progress: progress_lib.Progress
) -> loop.Job:
    data, train = config.data, config.train
    opening.make_embedded(
        data.name,
        data.path,
        (data.split, data.eval_split),
        lambda builder, name: _class_names(config, opening.read_class_names(builder, name)),
        progress,
        check_counts=lambda counts: _make_stream(config, range(counts[0])),
    )
    source = opening.open_train(data.name, data.path, data.split, data.held_out, config.seed)
    class_names = _class_names(config, source.class_names)
    held_out = opening.open_held_out(
        data.name, data.path, data.eval_split, data.held_out, config.seed, source.class_names
    )
    stream = _make_stream(config, source)
    model = network.make(config.model, len(class_names))
    optimizer = schedule.make_optimizer(train, stream.steps_per_epoch)
    return loop.Job(
        stream=stream,
        class_names=class_names,
        num_examples=len(source),
        about=_describe(config, source, held_out, stream.steps_per_epoch),
        model=model,
        optimizer=optimizer,
        step=steps.make_train_step(
            model, optimizer, seed=config.seed, flip=train.flip, color_noise=train.color_noise
        ),
        learning_rate=lambda step, state: schedule.learning_rate(
            train, stream.steps_per_epoch, step, state
        ),
        rate_field=f"config.train.learning_rate={train.learning_rate}",
        pace=schedule.Pace(
            train.log_every_steps,
            train.checkpoint_every_steps,
            train.keep_checkpoints,
            epoch_steps=stream.steps_per_epoch,
            eval_every_epochs=train.eval_every_epochs,
        ),
        evaluate=None if held_out is None else lambda v: evaluate(model, v, config, held_out),
        constants=lambda stop: _compute_mean(config, stream, stop, progress),
    )


def _make_stream(config: config_lib.Config, source: Any) -> streams.TrainStream:
    """Returns the order of training; of the source only the length is looked at."""
    data, train = config.data, config.train
    return streams.TrainStream(
        source,
        views.TrainView(data),
        config.seed,
        data.batch_size,
        schedule.epoch_sizes(train, config.seed),
        process_index=cluster.index(),
        process_count=cluster.count(),
        cache=streams.ReadCache(data.cache_mb * 2**20),
        max_steps_per_epoch=train.steps_per_epoch,
    )


def _describe(
    config: config_lib.Config, source: base.Source, held_out: base.Source | None, epoch_steps: int
) -> str:
    """Returns lines that say what the data is."""
    counts = (
        f"{config.data.name}: {len(source)} training examples of {len(source.class_names)} "
        f"classes, {len(held_out) if held_out else 0} to evaluate on; "
        f"{epoch_steps} steps of {config.data.batch_size} an epoch, "
        f"{config.train.num_epochs} epochs"
    )
    notes = [*source.notes, *(held_out.notes if held_out else ())]
    return "\n".join([counts, *dict.fromkeys(notes)])


def _class_names(config: config_lib.Config, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a name for each output; those beyond the data's classes are named by number."""
    wanted, present = config.model.num_classes, len(names)
    if wanted and wanted < present:
        raise errors.InputError(
            f"config.model.num_classes={wanted} but {config.data.name} has {present} classes"
        )
    return names + tuple(f"class {i}" for i in range(present, wanted))


def _compute_mean(
    config: config_lib.Config,
    stream: streams.TrainStream,
    stop: signals.Stop,
    progress: progress_lib.Progress,
) -> dict[str, np.ndarray]:
    """Returns the constants of a new network: the mean of an even sample of its training images.

    That is none if its config says so, and a partial one when asked to stop.
    """
    data = config.data
    if data.mean == "constant":
        return {}
    indices = reading.even_sample(len(stream.source), data.mean_examples)
    size = data.crop_size if data.view == "corners" else config.train.sizes[0]
    total, count = reading.sum_images(
        stream.source,
        stream.view,
        size,
        data.num_workers,
        cluster.share(indices),
        stop=stop,
        progress=progress,
    )
    parts = cluster.gather_arrays({"total": total, "count": np.asarray(count)})
    count = sum(int(part["count"]) for part in parts)
    if not count:
        raise errors.InputError(f"none of {len(indices)} images can be read for their mean")
    total = np.sum([part["total"] for part in parts], axis=0)
    mean = (total / count).astype(np.float32)
    return {"mean": mean.mean((0, 1)) if data.mean == "channel" else mean}
