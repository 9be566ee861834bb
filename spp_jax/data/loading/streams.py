"""From a source to batches: what step t trains on depends on (seed, t) only.

It does not depend on the number of loader workers or of hosts, nor on where the run was resumed:
the place of an example in the stream gives its epoch, its row in the global batch and its random
numbers.

Images are (H, W, 3) uint8 RGB.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from spp_jax import errors
from spp_jax.data.loading import reading, views
from spp_jax.data.sources import base

# Streams of random numbers that must not meet: the order of an epoch, the view of an example.
_ORDER, _VIEW = 0, 1

Batch = dict[str, np.ndarray]
# What tells programs apart: the side of square images, or the (height, width) of a canvas.
Size = int | tuple[int, int]


class Stream(Protocol):
    """Every step's batch of a run: what `training.loop` trains on.

    Attributes:
        num_steps: of the run.
        steps_per_epoch: that make an epoch.
        batch_size: images of a step, over all processes.
        local_batch_size: this process's.
    """

    @property
    def num_steps(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def local_batch_size(self) -> int: ...

    def sizes_from(self, step: int) -> tuple[Size, ...]:
        """Returns the sizes of the steps from `step`, counted from 0, on."""
        ...

    def size_at(self, step: int) -> Size:
        """Returns the size of a step, counted from 0."""
        ...

    def batch_spec(self, size: Size) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns {name: (shape, dtype)} of the global batch of a size."""
        ...

    def example(self, place: int) -> dict[str, Any]:
        """Returns row `place % local_batch_size` of step `place // local_batch_size`.

        Its arrays by name, and "refused", a sentence or "".
        """
        ...


class ReadCache:
    """Keeps read images up to a number of bytes: a set that fits is decoded once.

    Threads share it, processes do not.
    """

    def __init__(self, num_bytes: int):
        self._num_left = num_bytes
        self._kept: dict[int, tuple[np.ndarray, int]] = {}

    def get(self, index: int) -> tuple[np.ndarray, int] | None:
        """Returns the image and label kept for an example, if they are."""
        return self._kept.get(index)

    def put(self, index: int, image: np.ndarray, label: int) -> None:
        """Keeps an example if there is room for it."""
        if index not in self._kept and image.nbytes <= self._num_left:
            self._num_left -= image.nbytes
            self._kept[index] = image, label


@dataclasses.dataclass(frozen=True)
class TrainStream:
    """Every example of a run in order, this process's rows only.

    Attributes:
        source: the examples.
        view: makes a square image of an encoded one.
        seed: of order and views.
        batch_size: rows of the global batch.
        epoch_sizes: the size of each epoch, pixels.
        process_index, process_count: which rows of each batch are this process's.
        cache: of read images.
        max_steps_per_epoch: 0, or what cuts an epoch short of its len(source) // batch_size steps.

    Raises:
        InputError: fewer examples than one batch, or more steps than 32 bits can count.
    """

    source: base.Source
    view: views.TrainView
    seed: int
    batch_size: int
    epoch_sizes: tuple[int, ...]
    process_index: int = 0
    process_count: int = 1
    cache: ReadCache = dataclasses.field(default_factory=lambda: ReadCache(0))
    max_steps_per_epoch: int = 0

    def __post_init__(self):
        if self.steps_per_epoch < 1:
            raise errors.InputError(
                f"{len(self.source)} training examples are fewer than one batch of "
                f"{self.batch_size} (config.data.batch_size)"
            )
        if self.num_steps >= 2**31:
            raise errors.InputError(
                f"{len(self.epoch_sizes):,} epochs (config.train.num_epochs) of "
                f"{self.steps_per_epoch:,} steps are more steps than 32 bits can count"
            )

    @property
    def num_steps(self) -> int:
        return len(self.epoch_sizes) * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        whole = len(self.source) // self.batch_size
        return min(whole, self.max_steps_per_epoch or whole)

    @property
    def local_batch_size(self) -> int:
        return self.batch_size // self.process_count

    def size_at(self, step: int) -> int:
        return self.epoch_sizes[step // self.steps_per_epoch]

    def sizes_from(self, step: int) -> tuple[int, ...]:
        return self.epoch_sizes[step // self.steps_per_epoch :]

    def batch_spec(self, size: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        rows = self.batch_size
        return {
            "image": ((rows, size, size, 3), np.uint8),
            "label": ((rows,), np.int32),
            "weight": ((rows,), np.float32),
        }

    def example(self, place: int) -> dict[str, Any]:
        """Returns row `place % local_batch_size` of step `place // local_batch_size`.

        An image that cannot be read keeps its row, black, of class 0 and with weight 0.
        """
        step, row = divmod(place, self.local_batch_size)
        row += self.process_index * self.local_batch_size
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.seed, epoch, len(self.source))
        index = int(order[step_of_epoch * self.batch_size + row])
        size = self.epoch_sizes[epoch]
        cached = self.cache.get(index)
        if cached is None:
            try:
                example = self.source[index]
                cached = self.view.read(example.data, example.name), example.label
            except errors.ImageError as e:
                black = np.zeros((size, size, 3), np.uint8)
                return _row(black, 0, str(e))
            self.cache.put(index, *cached)
        image, label = cached
        rng = np.random.default_rng([self.seed, _VIEW, step, row])
        return _row(self.view.square(rng, image, size), label, "")


def _row(image: np.ndarray, label: int, refused: str) -> dict[str, Any]:
    weight = np.float32(not refused)
    return {"image": image, "label": np.int32(label), "weight": weight, "refused": refused}


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


@dataclasses.dataclass(frozen=True)
class _Rows:
    stream: Stream

    def __call__(self, step: int) -> dict[str, Any]:
        """Returns the rows of a step, and "refused", a list."""
        rows = self.stream.local_batch_size
        examples = [self.stream.example(place) for place in range(step * rows, (step + 1) * rows)]
        names = [name for name in examples[0] if name != "refused"]
        arrays: dict[str, Any] = {name: np.stack([e[name] for e in examples]) for name in names}
        return arrays | {"refused": [e["refused"] for e in examples if e["refused"]]}


class TrainBatches:
    """Iterates over (batch, refusals) from a step on; close it when done.

    A batch has the rows of this process, b: of a TrainStream {"image": (b, s, s, 3) uint8, "label":
    (b,) int32, "weight": (b,) float32}; refusals are one sentence for each image that could not be
    read.
    """

    def __init__(self, stream: Stream, start_step: int, num_workers: int):
        steps = range(start_step, stream.num_steps)
        self._iterator = reading.iterate(_Rows(stream), steps, num_workers, buffer_size=4)

    def __iter__(self) -> Iterator[tuple[Batch, list[str]]]:
        return self

    def __next__(self) -> tuple[Batch, list[str]]:
        batch = next(self._iterator)
        refused = batch.pop("refused")
        return batch, refused

    def close(self) -> None:
        self._iterator.close()
