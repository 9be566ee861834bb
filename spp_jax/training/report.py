"""What a run says of itself: lines, metrics.jsonl and TensorBoard."""

import collections
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spp_jax import checkpoint, cluster
from spp_jax.data.loading import streams
from spp_jax.runs import progress as progress_lib
from spp_jax.training import logs, schedule
from spp_jax.training import programs as programs_lib
from spp_jax.training import state as state_lib

# Steps that may be under way on the device: one more keeps it busy while a batch is fetched.
_STEPS_IN_FLIGHT = 2


class Report:
    """What a run says, and what it writes to the logs of its workdir."""

    def __init__(self, workdir: str, resume_step: int, progress: progress_lib.Progress):
        self.say = progress.say
        self._logs = logs.Logs(workdir, resume_step, progress.say) if cluster.is_first() else None

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        if self._logs:
            self._logs.close()

    def write(self, values: dict[str, Any]) -> None:
        """Writes values, one of which is "step", to the logs; the first process has them."""
        if self._logs:
            self._logs.write(values)

    def evaluation(self, step: int, epoch: int, metrics: dict[str, Any]) -> None:
        """Writes the evaluation after an epoch, and says it."""
        self.write({"step": step, **metrics})
        self.say(
            f"epoch {epoch} | {metrics['protocol']} | top1 {metrics['top1']:.4f} | "
            f"top5 {metrics['top5']:.4f} | loss {metrics['loss']:.4f} | "
            f"{metrics['num_examples']} examples"
        )


def parameter_table(params: dict) -> str:
    """Returns a line for each parameter, its shape and its count, and the total."""
    rows = []
    for name, x in checkpoint.named_leaves(params):
        rows.append(f"  {name:28} {'x'.join(map(str, x.shape)):>16} {x.size:>12,}")
    total = sum(x.size for x in jax.tree.leaves(params))
    return "\n".join([*rows, f"  {'parameters':28} {'':>16} {total:>12,}"])


def program_line(program: programs_lib.Program, batch_size: int) -> str:
    """Returns "224 px: compiled in 8.1 s, 3.40 GFLOP/image, 1.9 GB"."""
    text = f"{size_text(program.size)} px: compiled in {program.seconds:.1f} s"
    if program.flops:
        text += f", {program.flops / batch_size / 1e9:.3g} GFLOP/image"
    if program.bytes:
        text += f", {program.bytes / 1e9:.2g} GB"
    return text


def size_text(size: streams.Size) -> str:
    """Returns "224", or "688x916" of a canvas."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def step_line(values: dict[str, Any], num_steps: int, seconds_left: float) -> str:
    """Returns the console line of an interval; `values` as written to metrics.jsonl."""
    minutes, seconds = divmod(round(seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    eta = f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
    step = values["step"]
    return (
        f"step {step}/{num_steps} {100 * step // num_steps}% | size {values['size']} | "
        f"loss {values['loss']:.3f} | top1 {values['top1']:.3f} | "
        f"lr {values['learning_rate']:.2g} | {values['images_per_second']:.0f} img/s | "
        f"data {100 * values['data_share']:.0f}% | eta {eta}"
    )


class Interval:
    """Sums metrics and times between two lines, and writes the lines."""

    def __init__(
        self,
        report: Report,
        stream: streams.Stream,
        pace: schedule.Pace,
        *,
        learning_rate: Callable[[int, Any], float],
        rate_field: str,
        max_bad_steps: int,
    ):
        self._report, self._stream, self._pace = report, stream, pace
        self._learning_rate, self._rate_field = learning_rate, rate_field
        self._num_steps, self._max_bad_steps = stream.num_steps, max_bad_steps
        self._num_bad_in_row = 0
        self._in_flight: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._num_summed = 0
        self.restart()

    def restart(self) -> None:
        """Starts the clock anew, so that an evaluation does not count as training time."""
        self._start = time.monotonic()
        self._waited = 0.0
        self._num_timed = 0

    def add(
        self,
        step: int,
        size: streams.Size,
        batch: streams.Batch,
        sums: dict[str, jax.Array],
        waited: float,
        state: state_lib.TrainState,
    ) -> None:
        """Takes in a step; after the last one of an interval writes its line."""
        self._in_flight.append((step, sums))
        self._waited += waited
        self._num_timed += 1
        is_due = self.is_due(step)
        self.drain(0 if is_due else _STEPS_IN_FLIGHT)
        if is_due:
            self._write(step, size, batch, state)

    def is_due(self, step: int) -> bool:
        """Whether a step is the last one of an interval."""
        # After an epoch as well: the next one may be of another size.
        is_last = step == self._num_steps or self._pace.ends_epoch(step)
        return is_last or step % self._pace.log_every_steps == 0

    def drain(self, num_left: int = 0) -> None:
        """Waits until at most `num_left` steps are under way.

        Raises:
            InputError: too many steps in a row changed nothing.
        """
        while len(self._in_flight) > num_left:
            step, sums = self._in_flight.popleft()
            self._num_summed += 1
            values = jax.device_get(sums)
            for name, value in values.items():
                self._sums[name] += float(value)
            self._watch(step, values["bad"])

    def _watch(self, step: int, bad: float) -> None:
        self._num_bad_in_row = self._num_bad_in_row + 1 if bad else 0
        if self._num_bad_in_row > self._max_bad_steps:
            cluster.fail(
                f"the loss or the gradient was no finite number in {self._num_bad_in_row} steps in "
                f"a row, up to step {step}, which changed nothing; {self._rate_field} may be too "
                "high, and the last checkpoint is from before them"
            )
        if self._num_bad_in_row == 1:
            self._report.say(
                f"step {step}: the loss or the gradient is no finite number; the step changes "
                "nothing"
            )

    def _write(
        self, step: int, size: streams.Size, batch: streams.Batch, state: state_lib.TrainState
    ) -> None:
        seconds = time.monotonic() - self._start
        weight = max(self._sums["weight"], 1)
        rate = self._num_timed * self._stream.batch_size / seconds
        values = {
            "step": step,
            "size": size if isinstance(size, int) else size_text(size),
            "loss": self._sums["loss"] / weight,
            "top1": self._sums["top1"] / weight,
            "grad_norm": self._sums["grad_norm"] / max(self._num_summed - self._sums["bad"], 1),
            "bad_steps": int(self._sums["bad"]),
            "learning_rate": self._learning_rate(step - 1, state.opt_state),
            "images_per_second": rate,
            "data_share": self._waited / seconds,
            # Of all rows of this step: equal runs see equal batches.
            "batch_hash": f"{_hash(batch):08x}",
        }
        seconds_left = (self._num_steps - step) * self._stream.batch_size / rate
        self._report.write(values)
        self._report.say(step_line(values, self._num_steps, seconds_left))
        self._sums.clear()
        self._num_summed = 0
        self.restart()


def _hash(batch: streams.Batch) -> int:
    """Returns a CRC-32 of the global batch, from those of each process's rows."""
    arrays = [np.ascontiguousarray(batch[name]).data.cast("B") for name in sorted(batch)]
    parts = cluster.gather([(zlib.crc32(array), len(array)) for array in arrays])
    value = 0
    for of_array in zip(*parts):
        for crc, length in of_array:
            # A CRC goes on by that of what follows and that of as many zeros.
            zeros = bytes(length)
            value = zlib.crc32(zeros, value) ^ zlib.crc32(zeros) ^ crc
    return value


class Refusals:
    """Names each unreadable file once and stops the run when too many are of training."""

    def __init__(self, report: Report, num_examples: int, max_share: float):
        self._report = report
        self._num_examples = num_examples
        self._max_share = max_share
        self._named: set[str] = set()
        self._in_training: set[str] = set()
        self._untold: list[str] = []

    def name(self, refused: list[str]) -> None:
        """Prints the sentences that were not printed before."""
        for sentence in refused:
            if sentence not in self._named:
                self._named.add(sentence)
                self._report.say(f"refused ({len(self._named)}): {sentence}")

    def add(self, refused: list[str]) -> None:
        """Names and counts images of a training batch; those of other processes, see `share`."""
        if cluster.count() > 1:
            self._untold.extend(refused)
        else:
            self._count(refused)

    def share(self) -> None:
        """Names and counts what several processes have added; every one of them calls it."""
        if cluster.count() > 1:
            told, self._untold = cluster.gather(self._untold), []
            self._count([sentence for part in told for sentence in part])

    def _count(self, refused: list[str]) -> None:
        self.name(refused)
        self._in_training.update(refused)
        if len(self._in_training) > self._max_share * self._num_examples:
            cluster.fail(
                f"{len(self._in_training)} of {self._num_examples} training images cannot be "
                f"read, more than the share config.data.max_refused={self._max_share}"
            )
