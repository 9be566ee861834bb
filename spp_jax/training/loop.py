"""Trains a network as its config says: from a workdir to a workdir.

Reads from top to bottom: data, programs, state, then one loop.
"""

import collections
import dataclasses
import json
import math
import os
import signal
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spp_jax import checkpoint, errors, sharding
from spp_jax import config as config_lib
from spp_jax.data import pipeline, sources
from spp_jax.models import sppnet
from spp_jax.training import programs as programs_lib
from spp_jax.training import report as report_lib
from spp_jax.training import schedule, steps
from spp_jax.training import state as state_lib

CONFIG_FILE = "config.json"

# Steps that may be under way on the device: one more keeps it busy while a batch is fetched.
_STEPS_IN_FLIGHT = 2

# (model, variables, config, source) -> {"protocol": ..., "top1": ...}; evaluation.classify has it.
Evaluate = Callable[[sppnet.SPPNet, dict, config_lib.Config, sources.Source], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Result:
    """How training ended: the signal that stopped it, or None, and the last step."""

    stopped_by: int | None
    step: int


def train(config: config_lib.Config, workdir: str, evaluate: Evaluate) -> Result:
    """Trains, or goes on from the workdir's newest checkpoint, until done or asked to stop.

    The workdir gets config.json, checkpoints/, metrics.jsonl and tensorboard/. SIGINT and SIGTERM
    finish the step under way, save and return.

    Args:
        config: a valid one (`config.validate`).
        workdir: a directory, made if missing.
        evaluate: scores the network on the evaluation examples between epochs.

    Raises:
        InputError: the data, the workdir or the number of devices does not fit the config, or
            too many examples cannot be read.
    """
    with _StopSignal() as stop:
        return _train(config, workdir, evaluate, stop)


def _train(
    config: config_lib.Config, workdir: str, evaluate: Evaluate, stop: "_StopSignal"
) -> Result:
    data, train = config.data, config.train

    # What can be wrong is found before anything compiles or is written.
    sharding.check_batch_size(data.batch_size, "config.data.batch_size")
    step_dir = _check_workdir(config, workdir)
    source = sources.open_train(data.name, data.path, data.split, data.held_out, config.seed)
    class_names = _class_names(config, source)
    held_out = sources.open_held_out(
        data.name, data.path, data.eval_split, data.held_out, config.seed, source.class_names
    )
    stream = pipeline.TrainStream(
        source,
        pipeline.TrainView(data.view, data.shorter_side, data.crop_size),
        config.seed,
        data.batch_size,
        schedule.epoch_sizes(train, config.seed),
        jax.process_index(),
        jax.process_count(),
    )
    if stream.steps_per_epoch < 1:
        raise errors.InputError(
            f"{len(source)} training examples are fewer than one batch of {data.batch_size} "
            "(config.data.batch_size)"
        )
    num_steps = train.num_epochs * stream.steps_per_epoch
    start_step = checkpoint.read_meta(step_dir).step if step_dir else 0

    # State and programs.
    mesh = sharding.make_mesh()
    model = config_lib.make_model(config, len(class_names))
    optimizer = schedule.make_optimizer(train, stream.steps_per_epoch)
    state = state_lib.init_state(model, optimizer, config.seed, train.sizes[0], mesh)
    if step_dir:
        state = _restore(step_dir, state)
    _write_config(config, workdir)
    report = report_lib.Report(workdir, start_step)
    report.say(
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), mesh {dict(mesh.shape)}, "
        f"jax {jax.__version__}"
    )
    report.say(
        f"{data.name}: {len(source)} training examples of {len(source.class_names)} classes, "
        f"{len(held_out) if held_out else 0} to evaluate on; {stream.steps_per_epoch} steps "
        f"of {data.batch_size} an epoch, {train.num_epochs} epochs"
    )
    report.say(report_lib.parameter_table(state.params))
    if start_step == num_steps:
        report.say(f"{workdir} is already trained to its last step, {num_steps}")
        report.close()
        return Result(None, start_step)
    step_fn = steps.make_train_step(
        model, optimizer, seed=config.seed, flip=train.flip, color_noise=train.color_noise
    )
    first_epoch = start_step // stream.steps_per_epoch
    programs = programs_lib.compile_programs(
        step_fn,
        state_lib.state_spec(state),
        stream.epoch_sizes[first_epoch:],
        data.batch_size,
        mesh,
        deterministic=train.deterministic,
    )
    for program in programs.values():
        report.say(report_lib.program_line(program, data.batch_size))
    if step_dir:
        report.say(f"resuming from step {start_step} of {num_steps}")

    # The loop. A step is evaluated and saved before the next one consumes its state.
    writer = checkpoint.Writer(workdir, train.keep_checkpoints)
    batches = pipeline.TrainBatches(stream, start_step, data.num_workers)
    interval = _Interval(report, config, stream, num_steps)
    refusals = _Refusals(report, len(source), data.max_refused)
    metrics: dict[str, Any] = {}
    saved_step = start_step
    step = start_step

    def save() -> None:
        writer.save(step, state.params, state.opt_state, config, class_names, metrics)

    try:
        for step in range(start_step + 1, num_steps + 1):
            if stop.signal is not None:
                step -= 1
                break
            waited_from = time.monotonic()
            batch, refused = next(batches)
            waited = time.monotonic() - waited_from
            refusals.add(refused)
            size = stream.epoch_sizes[(step - 1) // stream.steps_per_epoch]
            state, sums = programs[size].run(state, sharding.put_batch(batch, mesh))
            interval.add(step, size, batch, sums, waited, state)

            epoch, step_of_epoch = divmod(step, stream.steps_per_epoch)
            is_last = step == num_steps
            if (
                step_of_epoch == 0
                and held_out is not None
                and train.eval_every_epochs
                and (is_last or epoch % train.eval_every_epochs == 0)
            ):
                metrics = evaluate(model, {"params": state.params}, config, held_out)
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
        name = signal.Signals(stop.signal).name
        print(f"{name}: saved step {step} of {num_steps}; the same command goes on from there")
    return Result(stop.signal, step)


def evaluation_line(metrics: dict[str, Any], epoch: int) -> str:
    """Returns the console line of an evaluation after an epoch."""
    return (
        f"epoch {epoch} | {metrics['protocol']} | top1 {metrics['top1']:.4f} | "
        f"top5 {metrics['top5']:.4f} | loss {metrics['loss']:.4f} | "
        f"{metrics['num_examples']} examples"
    )


def _check_workdir(config: config_lib.Config, workdir: str) -> str | None:
    """Returns the step directory to go on from, None for a new run."""
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise errors.InputError(f"workdir {workdir} is not a directory")
    path = os.path.join(workdir, CONFIG_FILE)
    step_dir = checkpoint.latest_step_dir(workdir) if os.path.isdir(workdir) else None
    if step_dir:
        old = checkpoint.read_meta(step_dir).config
    elif os.path.exists(path):
        try:
            with open(path, encoding="utf-8") as f:
                old = config_lib.from_dict(json.load(f))
        except (json.JSONDecodeError, AttributeError, TypeError) as e:
            raise errors.InputError(f"{path} is no config of spp_jax: {e}") from e
    else:
        return None
    changed = config_lib.difference(old, config)
    if changed:
        raise errors.InputError(f"workdir {workdir} is of another config: {changed}")
    return step_dir


def _write_config(config: config_lib.Config, workdir: str) -> None:
    os.makedirs(workdir, exist_ok=True)
    path = os.path.join(workdir, CONFIG_FILE)
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(config_lib.to_dict(config), f, indent=2)
    os.replace(path + ".new", path)


def _class_names(config: config_lib.Config, source: sources.Source) -> tuple[str, ...]:
    """Returns a name for each output; those beyond the data's classes are named by number."""
    wanted, found = config.model.num_classes, len(source.class_names)
    if wanted and wanted < found:
        raise errors.InputError(
            f"config.model.num_classes={wanted} but {config.data.name} has {found} classes"
        )
    return source.class_names + tuple(f"class {i}" for i in range(found, wanted))


def _restore(step_dir: str, state: state_lib.TrainState) -> state_lib.TrainState:
    spec = state_lib.state_spec(state)
    found = checkpoint.restore(step_dir, params=spec.params, optimizer=spec.opt_state)
    step = jax.device_put(np.int32(checkpoint.read_meta(step_dir).step), state.step.sharding)
    return state_lib.TrainState(step, found["params"], found["optimizer"])


class _Interval:
    """Sums metrics and times between two lines, and writes the lines."""

    def __init__(
        self,
        report: report_lib.Report,
        config: config_lib.Config,
        stream: pipeline.TrainStream,
        num_steps: int,
    ):
        self._report = report
        self._config = config
        self._stream = stream
        self._num_steps = num_steps
        self._in_flight: collections.deque[dict[str, jax.Array]] = collections.deque()
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._num_timed = 0
        self.restart()

    def restart(self) -> None:
        """Starts the clock anew, so that an evaluation does not count as training time."""
        self._start = time.monotonic()
        self._waited = 0.0
        self._num_timed = 0

    def add(
        self,
        step: int,
        size: int,
        batch: pipeline.Batch,
        sums: dict[str, jax.Array],
        waited: float,
        state: state_lib.TrainState,
    ) -> None:
        """Takes in a step; after the last one of an interval writes its line."""
        self._in_flight.append(sums)
        self._waited += waited
        self._num_timed += 1
        is_due = step % self._config.train.log_every_steps == 0 or step == self._num_steps
        while len(self._in_flight) > (0 if is_due else _STEPS_IN_FLIGHT):
            for name, value in jax.device_get(self._in_flight.popleft()).items():
                self._sums[name] += float(value)
        if is_due:
            self._write(step, size, batch, state)

    def _write(
        self, step: int, size: int, batch: pipeline.Batch, state: state_lib.TrainState
    ) -> None:
        seconds = time.monotonic() - self._start
        weight = max(self._sums["weight"], 1)
        loss = self._sums["loss"] / weight
        if not math.isfinite(loss):
            raise errors.InputError(
                f"the loss is {loss} at step {step}; "
                f"config.train.learning_rate={self._config.train.learning_rate} may be too high"
            )
        rate = self._num_timed * self._stream.batch_size / seconds
        values = {
            "step": step,
            "size": size,
            "loss": loss,
            "top1": self._sums["top1"] / weight,
            "learning_rate": schedule.learning_rate(
                self._config.train, self._stream.steps_per_epoch, step - 1, state.opt_state
            ),
            "images_per_second": rate,
            "data_share": self._waited / seconds,
            # Of this step's rows on the first host: equal runs see equal batches.
            "batch_hash": f"{_hash(batch):08x}",
        }
        seconds_left = (self._num_steps - step) * self._stream.batch_size / rate
        self._report.write(values)
        self._report.say(report_lib.step_line(values, self._num_steps, seconds_left))
        self._sums.clear()
        self.restart()


def _hash(batch: pipeline.Batch) -> int:
    value = 0
    for name in sorted(batch):
        value = zlib.crc32(np.ascontiguousarray(batch[name]).data, value)
    return value


class _Refusals:
    """Names each unreadable file once and stops the run when they are too many."""

    def __init__(self, report: report_lib.Report, num_examples: int, max_share: float):
        self._report = report
        self._num_examples = num_examples
        self._max_share = max_share
        self._seen: set[str] = set()

    def add(self, refused: list[str]) -> None:
        for sentence in refused:
            if sentence not in self._seen:
                self._seen.add(sentence)
                self._report.say(f"refused ({len(self._seen)}): {sentence}")
        if len(self._seen) > self._max_share * self._num_examples:
            raise errors.InputError(
                f"{len(self._seen)} of {self._num_examples} training images cannot be read, more "
                f"than the share config.data.max_refused={self._max_share}"
            )


class _StopSignal:
    """Catches the first SIGINT or SIGTERM; a second one ends the process as usual."""

    def __init__(self):
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, _: Any) -> None:
        self.signal = number
        print(f"\n{signal.Signals(number).name}: stopping after this step", flush=True)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
