"""Trains a network as its config says: from a workdir to a workdir.

`train` makes of a config what there is to train on; `run` reads from top to bottom: state,
programs, then one loop.
"""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from rich import progress

from spp_jax import checkpoint, errors, network, sharding
from spp_jax import config as config_lib
from spp_jax.data.loading import streams
from spp_jax.data.sources import base, opening
from spp_jax.models import sppnet
from spp_jax.runs import files, signals
from spp_jax.training import programs as programs_lib
from spp_jax.training import report as report_lib
from spp_jax.training import schedule, steps, transfer
from spp_jax.training import state as state_lib

CONFIG_FILE = "config.json"

# (model, variables, config, source) -> {"protocol": ..., "top1": ...}; evaluation.classify has it.
Evaluate = Callable[[sppnet.SPPNet, dict, config_lib.Config, base.Source], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Result:
    """How training ended: the signal that stopped it, or None, and the last step."""

    stopped_by: int | None
    step: int


@dataclasses.dataclass(frozen=True)
class Job:
    """What `run` trains.

    Attributes:
        stream: every batch.
        class_names: of the network's outputs.
        num_examples: images to train on.
        about: lines that say what the data is.
        model: the network.
        optimizer: of `schedule.make_optimizer`, or what masks it.
        step: the training step.
        evaluate: scores the network between epochs; None where there is nothing to score it on.
        constants: makes those of a new network that starts from no other one; it is told how to
            ask whether to stop.
    """

    stream: streams.Stream
    class_names: tuple[str, ...]
    num_examples: int
    about: str
    model: sppnet.SPPNet
    optimizer: optax.GradientTransformationExtraArgs
    step: steps.TrainStep
    evaluate: Callable[[dict], dict[str, Any]] | None = None
    constants: Callable[[signals.StopSignal], dict[str, Any]] = lambda stop: {}


def train(config: config_lib.Config, workdir: str, evaluate: Evaluate) -> Result:
    """Trains a classifier, or goes on from the workdir's newest checkpoint, as `run`.

    Args:
        config: a valid one (`config.validate`).
        workdir: a directory, made if missing.
        evaluate: scores the network on the evaluation examples between epochs.

    Raises:
        InputError: the data, the workdir or the number of devices does not fit the config, or
            too many examples cannot be read.
    """
    data, train = config.data, config.train
    sharding.check_batch_size(data.batch_size, "config.data.batch_size")
    step_dir = _check_workdir(config, workdir)
    source = opening.open_train(data.name, data.path, data.split, data.held_out, config.seed)
    class_names = _class_names(config, source)
    held_out = opening.open_held_out(
        data.name, data.path, data.eval_split, data.held_out, config.seed, source.class_names
    )
    stream = streams.TrainStream(
        source,
        streams.TrainView(data.view, data.shorter_side, data.crop_size, data.jitter),
        config.seed,
        data.batch_size,
        schedule.epoch_sizes(train, config.seed),
        jax.process_index(),
        jax.process_count(),
        streams.ReadCache(data.cache_mb * 2**20),
        train.steps_per_epoch,
    )
    if step_dir and data.name == "folder" and not source.split:
        _check_held_out(step_dir, workdir, stream.num_steps)
    model = network.make(config.model, len(class_names))
    optimizer = schedule.make_optimizer(train, stream.steps_per_epoch)
    job = Job(
        stream,
        class_names,
        len(source),
        "\n".join(
            [
                f"{data.name}: {len(source)} training examples of {len(source.class_names)} "
                f"classes, {len(held_out) if held_out else 0} to evaluate on; "
                f"{stream.steps_per_epoch} steps of {data.batch_size} an epoch, "
                f"{train.num_epochs} epochs",
                *dict.fromkeys([*source.notes, *(held_out.notes if held_out else ())]),
            ]
        ),
        model,
        optimizer,
        steps.make_train_step(
            model, optimizer, seed=config.seed, flip=train.flip, color_noise=train.color_noise
        ),
        None if held_out is None else lambda v: evaluate(model, v, config, held_out),
        lambda stop: _compute_mean(config, stream, stop),
    )
    return run(config, workdir, job)


def run(config: config_lib.Config, workdir: str, job: Job) -> Result:
    """Trains, or goes on from the workdir's newest checkpoint, until done or asked to stop.

    The workdir gets config.json, checkpoints/, metrics.jsonl and tensorboard/. SIGINT and SIGTERM
    finish the step under way, save and return.

    Raises:
        InputError: the workdir does not fit, or too many images cannot be read.
    """
    with signals.StopSignal() as stop:
        return _run(config, workdir, job, stop)


def _run(config: config_lib.Config, workdir: str, job: Job, stop: signals.StopSignal) -> Result:
    train, stream, model = config.train, job.stream, job.model

    # What can be wrong is found before anything compiles or is written.
    step_dir = _check_workdir(config, workdir)
    num_steps = stream.num_steps
    meta = checkpoint.read_meta(step_dir) if step_dir else None
    start_step = meta.step if meta else 0
    if start_step > num_steps:
        raise errors.InputError(
            f"workdir {workdir} was trained to step {start_step}, beyond the {num_steps} steps of "
            f"config.train.num_epochs={train.num_epochs}"
        )
    if meta and (meta.class_names, meta.num_examples) != (job.class_names, job.num_examples):
        raise errors.InputError(
            f"workdir {workdir} was trained on {meta.num_examples} examples of classes "
            f"{', '.join(meta.class_names[:3])} ..., not on these {job.num_examples} of "
            f"{', '.join(job.class_names[:3])} ..."
        )
    plan = None
    if config.init_from and not step_dir:
        plan = transfer.make_plan(config.init_from, model, job.class_names)

    # State and programs.
    mesh = sharding.make_mesh()
    if step_dir:
        constants = checkpoint.read_constants(step_dir)
    elif plan:
        constants = plan.constants
    else:
        constants = job.constants(stop)
        if stop.signal is not None:
            return _stopped(stop.signal, 0, num_steps)
    size = model.backbone.size
    state = state_lib.init_state(model, job.optimizer, config.seed, size, mesh, constants)
    if step_dir:
        state = _restore(step_dir, start_step, state)
    elif plan:
        state = transfer.apply_plan(plan, state)
    _write_config(config, workdir)
    report = report_lib.Report(workdir, start_step)
    report.say(
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), mesh {dict(mesh.shape)}, "
        f"jax {jax.__version__}"
    )
    report.say(job.about)
    report.say(report_lib.parameter_table(state.params))
    if constants:
        mean = np.asarray(constants["mean"])
        report.say(f"mean of the images, {mean.shape}: RGB {mean.reshape(-1, 3).mean(0).round(1)}")
    if plan:
        report.say(plan.lines())
    if start_step == num_steps:
        report.say(f"{workdir} is already trained to its last step, {num_steps}")
        report.close()
        return Result(None, start_step)
    programs = programs_lib.compile_programs(
        job.step,
        state_lib.state_spec(state),
        stream.sizes_from(start_step),
        stream.batch_spec,
        mesh,
        deterministic=train.deterministic,
    )
    for program in programs.values():
        report.say(report_lib.program_line(program, stream.batch_size))
    if step_dir:
        report.say(f"resuming from step {start_step} of {num_steps}")

    # The loop. A step is evaluated and saved before the next one consumes its state.
    writer = checkpoint.Writer(workdir, train.keep_checkpoints)
    batches = streams.TrainBatches(stream, start_step, config.data.num_workers)
    interval = report_lib.Interval(report, config, stream)
    refusals = report_lib.Refusals(report, job.num_examples, config.data.max_refused)
    metrics = meta.metrics if meta else {}
    saved_step = start_step
    step = start_step

    def save() -> None:
        interval.drain()  # nothing is saved after a loss that is no number
        meta = checkpoint.Meta(step, config, job.class_names, job.num_examples, metrics)
        parts = {"params": state.params, "optimizer": state.opt_state, "constants": state.constants}
        writer.save(meta, parts)

    try:
        for step in range(start_step + 1, num_steps + 1):
            if stop.signal is not None:
                step -= 1
                break
            waited_from = time.monotonic()
            batch, refused = next(batches)
            waited = time.monotonic() - waited_from
            refusals.add(refused)
            size = stream.size_at(step - 1)
            state, sums = programs[size].run(state, sharding.put_batch(batch, mesh))
            interval.add(step, size, batch, sums, waited, state)

            epoch, step_of_epoch = divmod(step, stream.steps_per_epoch)
            is_last = step == num_steps
            if (
                step_of_epoch == 0
                and job.evaluate is not None
                and train.eval_every_epochs
                and (is_last or epoch % train.eval_every_epochs == 0)
            ):
                metrics = job.evaluate(state.variables)
                refusals.name(metrics.pop("refused"))
                report.write({"step": step, **metrics})
                report.say(evaluation_line(metrics, epoch))
                interval.restart()
            if step % train.checkpoint_every_steps == 0 or is_last:
                save()
                saved_step = step
        if stop.signal is not None and saved_step != step:
            save()
    finally:
        batches.close()
        writer.close()
        report.close()
    if stop.signal is not None:
        return _stopped(stop.signal, step, num_steps)
    return Result(None, step)


def _stopped(by: int, step: int, num_steps: int) -> Result:
    done = f"saved step {step} of {num_steps}" if step else "nothing was trained yet"
    print(f"{signal.Signals(by).name}: {done}; the same command goes on from there")
    return Result(by, step)


def evaluation_line(metrics: dict[str, Any], epoch: int) -> str:
    """Returns the console line of an evaluation after an epoch."""
    return (
        f"epoch {epoch} | {metrics['protocol']} | top1 {metrics['top1']:.4f} | "
        f"top5 {metrics['top5']:.4f} | loss {metrics['loss']:.4f} | "
        f"{metrics['num_examples']} examples"
    )


def _check_workdir(config: config_lib.Config, workdir: str) -> str | None:
    """Returns the step directory to go on from, None for a new run."""
    if not workdir or (os.path.exists(workdir) and not os.path.isdir(workdir)):
        raise errors.InputError(f"workdir {workdir!r} is not a directory")
    path = os.path.join(workdir, CONFIG_FILE)
    step_dir = checkpoint.latest_step_dir(workdir) if os.path.isdir(workdir) else None
    if step_dir:
        old = checkpoint.read_meta(step_dir).config
    elif os.path.exists(path):
        try:
            old = config_lib.from_dict(config_lib.Config, files.read_json(path))
        except (OSError, ValueError, AttributeError, TypeError) as e:
            raise errors.InputError(f"{path} is no config of spp_jax: {e}") from e
    else:
        return None
    if not step_dir:
        return None  # nothing was learnt there yet
    if schedule.shares_sizes(old.train, config.train, config.seed):
        old.train.num_epochs = config.train.num_epochs
    changed = config_lib.difference(old, config)
    if changed:
        raise errors.InputError(
            f"workdir {workdir} is of another config: {changed}; take another workdir, with "
            f"config.init_from={workdir} to start from its network"
        )
    return step_dir


def _check_held_out(step_dir: str, workdir: str, num_steps: int) -> None:
    """Raises InputError if a run of version 0.1.0, which held out other images, is to go on.

    It did not split class by class: images held out then would be trained on.
    """
    meta = checkpoint.read_meta(step_dir)
    if meta.versions.get("spp_jax") == "0.1.0" and meta.step < num_steps:
        raise errors.InputError(
            f"workdir {workdir} was trained by version 0.1.0, which held out other images of a "
            "folder without splits: finish it there, or take another workdir, with "
            f"config.init_from={workdir} to start from its network"
        )


def _write_config(config: config_lib.Config, workdir: str) -> None:
    path = os.path.join(workdir, CONFIG_FILE)
    try:
        os.makedirs(workdir, exist_ok=True)
        files.write_json(path, dataclasses.asdict(config), indent=2)
    except OSError as e:
        raise errors.InputError(f"workdir {workdir} cannot be written: {e.strerror}") from e


def _class_names(config: config_lib.Config, source: base.Source) -> tuple[str, ...]:
    """Returns a name for each output; those beyond the data's classes are named by number."""
    wanted, found = config.model.num_classes, len(source.class_names)
    if wanted and wanted < found:
        raise errors.InputError(
            f"config.model.num_classes={wanted} but {config.data.name} has {found} classes"
        )
    return source.class_names + tuple(f"class {i}" for i in range(found, wanted))


def _restore(step_dir: str, step: int, state: state_lib.TrainState) -> state_lib.TrainState:
    spec = state_lib.state_spec(state)
    found = checkpoint.restore(step_dir, params=spec.params, optimizer=spec.opt_state)
    return dataclasses.replace(
        state,
        step=jax.device_put(np.int32(step), state.step.sharding),
        params=found["params"],
        opt_state=found["optimizer"],
    )


def _compute_mean(
    config: config_lib.Config, stream: streams.TrainStream, stop: signals.StopSignal
) -> dict[str, np.ndarray]:
    """Returns the constants of a new network: the mean of its training images, if it is to have
    one, from an even sample of them; a partial one when asked to stop."""
    data = config.data
    if data.mean == "constant":
        return {}
    indices = streams.even_sample(len(stream.source), data.mean_examples)
    size = data.crop_size if data.view == "corners" else config.train.sizes[0]
    columns = (*progress.Progress.get_default_columns(), progress.MofNCompleteColumn())
    with progress.Progress(*columns) as bar:
        task = bar.add_task("mean image", total=len(indices))

        def goes_on() -> bool:
            bar.advance(task)
            return stop.signal is None

        mean = streams.mean_image(
            stream.source, stream.view, size, data.num_workers, indices, goes_on
        )
    return {"mean": mean.mean((0, 1)) if data.mean == "channel" else mean}
