"""The loop that trains: whatever the batches are of, and whatever the step does with them.

`run` reads from top to bottom: what it starts from, state, programs, then one loop.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from spp_jax import checkpoint, cluster, errors, sharding
from spp_jax import config as config_lib
from spp_jax.data.loading import streams
from spp_jax.models import sppnet
from spp_jax.runs import lock, signals
from spp_jax.runs import progress as progress_lib
from spp_jax.training import checks, schedule, steps, stopping, transfer
from spp_jax.training import programs as programs_lib
from spp_jax.training import report as report_lib
from spp_jax.training import state as state_lib


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
        learning_rate: (step counted from 0, optimizer state) -> the rate, for reports.
        rate_field: the config's field of the first rate, with its value, for errors.
        pace: how often the run writes, saves and is evaluated.
        evaluate: scores the network between epochs; None where there is nothing to score it on.
        constants: makes those of a new network that starts from no other one.
    """

    stream: streams.Stream
    class_names: tuple[str, ...]
    num_examples: int
    about: str
    model: sppnet.SPPNet
    optimizer: optax.GradientTransformationExtraArgs
    step: steps.TrainStep
    learning_rate: Callable[[int, Any], float]
    rate_field: str
    pace: schedule.Pace
    evaluate: Callable[[dict], dict[str, Any]] | None = None
    constants: Callable[[signals.Stop], dict[str, Any]] = lambda stop: {}


def run(
    config: config_lib.Config,
    workdir: str,
    job: Job,
    saved: checks.Saved | None,
    *,
    stop: signals.Stop | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> Result:
    """Trains, or goes on from a checkpoint, until done or asked to stop.

    The workdir gets config.json, checkpoints/, metrics.jsonl and tensorboard/. Where it is asked to
    stop, the run finishes the step under way, saves and returns.

    Args:
        config: of the run, which checkpoints store.
        workdir: made if missing.
        job: what is trained.
        saved: of `checks.find_saved`.
        stop: asks to stop, or never; entered as a context.
        progress: is told the lines of the run.

    Raises:
        InputError: the workdir does not fit or another run is in it, or too many images cannot be
            read.
    """
    num_steps = job.stream.num_steps
    plan = check(config, workdir, job, saved)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop or signals.Stop())
        mesh = sharding.make_mesh()
        agreed = stopping.AgreedStop(stop)
        constants = _find_constants(job, saved, plan, stop)
        if (by := agreed.look()) is not None:
            return _stopped(by, 0, num_steps, progress)
        with cluster.together():
            if cluster.is_first():
                stack.enter_context(lock.hold(workdir))
        state = _make_state(config, job, saved, plan, mesh, constants)
        start_step = saved.meta.step if saved else 0
        with cluster.together():
            if cluster.is_first():
                checks.write_config(config, workdir)
            report = stack.enter_context(report_lib.Report(workdir, start_step, progress))
        _introduce(report, job, state, plan, mesh)
        if start_step == num_steps:
            report.say(f"{workdir} is already trained to its last step, {num_steps}")
            return Result(None, start_step)
        spec = state_lib.state_spec(state)
        programs = compile_programs(config, job, spec, start_step, mesh, report.say, stop=stop)
        if (by := agreed.look()) is not None:
            return _stopped(by, start_step, num_steps, progress)
        if saved:
            report.say(f"resuming from step {start_step} of {num_steps}")
        metrics = saved.meta.metrics if saved else {}
        start = _Start(start_step, state, metrics, programs, mesh)
        step = _train(config, workdir, job, start, report, agreed)
        if agreed.signal is None:
            return Result(None, step)
        return _stopped(agreed.signal, step, num_steps, progress)


def check(
    config: config_lib.Config, workdir: str, job: Job, saved: checks.Saved | None
) -> transfer.Plan | None:
    """Returns what is taken from `config.init_from`, if anything; raises InputError as `run`."""
    if saved:
        num_steps = job.stream.num_steps
        checks.check_saved(saved, workdir, num_steps, job.num_examples, job.class_names)
    elif config.init_from:
        return transfer.make_plan(config.init_from, job.model, job.class_names)
    return None


class _Start(NamedTuple):
    """What the loop starts from: its step, state and last evaluation, and the programs it runs."""

    step: int
    state: state_lib.TrainState
    metrics: dict[str, Any]
    programs: dict[programs_lib.Size, programs_lib.Program]
    mesh: Mesh


def _train(
    config: config_lib.Config,
    workdir: str,
    job: Job,
    start: _Start,
    report: report_lib.Report,
    agreed: stopping.AgreedStop,
) -> int:
    """Trains to the last step, or until asked to stop; returns the last step that was made.

    A step is evaluated and saved before the next one consumes its state.
    """
    stream, pace, num_steps = job.stream, job.pace, job.stream.num_steps
    writer = checkpoint.Writer(workdir, pace.keep_checkpoints)
    batches = streams.TrainBatches(stream, start.step, config.data.num_workers)
    interval = _make_interval(config, job, report)
    refusals = report_lib.Refusals(report, job.num_examples, config.data.max_refused)
    state, metrics, step, saved_step = start.state, start.metrics, start.step, start.step

    def save() -> None:
        interval.drain()  # too many bad steps in a row end the run before another is saved
        _save(writer, config, job, step, state, metrics)

    watchdog = stopping.Watchdog(config.run.max_step_seconds)
    try:
        for step in range(start.step + 1, num_steps + 1):
            watchdog.tell()
            if agreed.before_step() is not None:
                step -= 1
                break
            waited_from = time.monotonic()
            batch, refused = next(batches)
            waited = time.monotonic() - waited_from
            refusals.add(refused)
            if interval.is_due(step):
                refusals.share()
            size = stream.size_at(step - 1)
            state, sums = start.programs[size].run(state, sharding.put_batch(batch, start.mesh))
            interval.add(step, size, batch, sums, waited, state)

            if job.evaluate is not None and pace.evaluates_after(step, num_steps):
                watchdog.pause()
                metrics = job.evaluate(state.variables)
                refusals.name(metrics.pop("refused"))
                report.evaluation(step, step // pace.epoch_steps, metrics)
                interval.restart()
            if step % pace.checkpoint_every_steps == 0 or step == num_steps:
                watchdog.pause()
                save()
                saved_step = step
        watchdog.pause()
        if agreed.signal is not None and saved_step != step:
            save()
    finally:
        watchdog.close()
        batches.close()
        writer.close()
    return step


def _make_interval(
    config: config_lib.Config, job: Job, report: report_lib.Report
) -> report_lib.Interval:
    return report_lib.Interval(
        report,
        job.stream,
        job.pace,
        learning_rate=job.learning_rate,
        rate_field=job.rate_field,
        max_bad_steps=config.train.max_bad_steps,
    )


def _save(
    writer: checkpoint.Writer,
    config: config_lib.Config,
    job: Job,
    step: int,
    state: state_lib.TrainState,
    metrics: dict[str, Any],
) -> None:
    """Saves a step; raises InputError if a number of its network is not finite."""
    # On the host, where saving copies them anyway: no program is compiled for it.
    for name, leaf in checkpoint.named_leaves(state.params):
        if not np.isfinite(leaf).all():
            raise errors.InputError(
                f"{name} is no longer finite at step {step}, which is not saved; {job.rate_field} "
                "may be too high"
            )
    meta = checkpoint.Meta(step, config, job.class_names, job.num_examples, metrics)
    parts = {"params": state.params, "optimizer": state.opt_state, "constants": state.constants}
    writer.save(meta, parts)


def _find_constants(
    job: Job, saved: checks.Saved | None, plan: transfer.Plan | None, stop: signals.Stop
) -> dict[str, Any]:
    """Returns the constants of the network that training starts from."""
    if saved:
        return checkpoint.read_constants(saved.step_dir)
    return plan.constants if plan else job.constants(stop)


def _make_state(
    config: config_lib.Config,
    job: Job,
    saved: checks.Saved | None,
    plan: transfer.Plan | None,
    mesh: Mesh,
    constants: dict[str, Any],
) -> state_lib.TrainState:
    """Returns the state that training starts from."""
    size = job.model.backbone.size
    state = state_lib.init_state(
        job.model, job.optimizer, config.seed, size, mesh, constants=constants
    )
    if plan:
        return transfer.apply_plan(plan, state)
    return _restore(saved, state) if saved else state


def _restore(saved: checks.Saved, state: state_lib.TrainState) -> state_lib.TrainState:
    spec = state_lib.state_spec(state)
    parts = checkpoint.restore(saved.step_dir, params=spec.params, optimizer=spec.opt_state)
    return dataclasses.replace(
        state,
        step=jax.device_put(np.int32(saved.meta.step), state.step.sharding),
        params=parts["params"],
        opt_state=parts["optimizer"],
    )


def _introduce(
    report: report_lib.Report,
    job: Job,
    state: state_lib.TrainState,
    plan: transfer.Plan | None,
    mesh: Mesh,
) -> None:
    """Says what is trained, on what, and from where it starts."""
    report.say(
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), mesh {dict(mesh.shape)}, "
        f"jax {jax.__version__}"
    )
    report.say(job.about)
    report.say(report_lib.parameter_table(state.params))
    if state.constants:
        mean = np.asarray(state.constants["mean"])
        report.say(f"mean of the images, {mean.shape}: RGB {mean.reshape(-1, 3).mean(0).round(1)}")
    if plan:
        report.say(plan.lines())


def compile_programs(
    config: config_lib.Config,
    job: Job,
    spec: state_lib.TrainState,
    start_step: int,
    mesh: Mesh,
    say: Callable[[str], None],
    *,
    stop: signals.Stop | None = None,
) -> dict[programs_lib.Size, programs_lib.Program]:
    """Compiles the programs of all steps from `start_step` on, and says what each one costs."""
    programs = programs_lib.compile_programs(
        job.step,
        spec,
        job.stream.sizes_from(start_step),
        job.stream.batch_spec,
        mesh,
        deterministic=config.train.deterministic,
        stop=stop,
    )
    for program in programs.values():
        say(report_lib.program_line(program, job.stream.batch_size))
    return programs


def _stopped(by: int, step: int, num_steps: int, progress: progress_lib.Progress) -> Result:
    done = f"saved step {step} of {num_steps}" if step else "nothing was trained yet"
    progress.say(f"{signal.Signals(by).name}: {done}; the same command goes on from there")
    return Result(by, step)
