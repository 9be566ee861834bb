"""From a source to batches: what step t trains on depends on (seed, t) only.

Not on the number of loader workers, of hosts, or on where the run was resumed: the place of an
example in the stream gives its epoch, its row in the global batch and its random numbers.

Images are (H, W, 3) uint8 RGB.
"""

import dataclasses
import functools
import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import grain
import numpy as np
from absl import flags

from spp_jax import errors
from spp_jax.canvas import arithmetic
from spp_jax.data import images
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


@dataclasses.dataclass(frozen=True)
class TrainView:
    """How a training image becomes a square: the fields of `config.DataConfig` of these names."""

    view: str
    shorter_side: int
    crop_size: int
    jitter: float = 0.0

    def read(self, data: bytes, name: str) -> np.ndarray:
        """Decodes an image: the part that is the same in every epoch.

        Returns (H, W, 3); the shorter side is `shorter_side`, or for "warp" may be longer.
        """
        image = images.decode(data, name, shorter_side=self.shorter_side)
        return image if self.view == "warp" else images.resize_shorter(image, self.shorter_side)

    def square(self, rng: np.random.Generator, image: np.ndarray, size: int) -> np.ndarray:
        """Returns the (size, size, 3) view of a read image."""
        if self.view == "warp":
            return images.resize(self._cut(rng, image), size, size)
        position = int(rng.integers(arithmetic.NUM_POSITIONS))
        return images.resize(images.five_crop(image, self.crop_size, position), size, size)

    def middle(self, image: np.ndarray, size: int) -> np.ndarray:
        """Returns the (size, size, 3) view of a read image that chance has no part in."""
        if self.view != "warp":
            image = images.center_crop(image, self.crop_size)
        return images.resize(image, size, size)

    def _cut(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Cuts off a share of each side, uniform from 0 to `jitter`, at a random place."""
        shares, places = rng.random((2, 2))
        whole = np.asarray(image.shape[:2])
        kept = np.maximum(1, np.rint(whole * (1 - self.jitter * shares))).astype(int)
        top, left = np.floor(places * (whole - kept + 1)).astype(int)
        return images.crop(image, int(top), int(left), int(kept[0]), int(kept[1]))


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
        InputError: fewer examples than one batch.
    """

    source: base.Source
    view: TrainView
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
        found = self.cache.get(index)
        if found is None:
            try:
                example = self.source[index]
                found = self.view.read(example.data, example.name), example.label
            except errors.ImageError as e:
                black = np.zeros((size, size, 3), np.uint8)
                return _row(black, 0, str(e))
            self.cache.put(index, *found)
        image, label = found
        rng = np.random.default_rng([self.seed, _VIEW, step, row])
        return _row(self.view.square(rng, image, size), label, "")


def _row(image: np.ndarray, label: int, refused: str) -> dict[str, Any]:
    weight = np.float32(not refused)
    return {"image": image, "label": np.int32(label), "weight": weight, "refused": refused}


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


def _collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
        rows = stream.local_batch_size
        places = range(start_step * rows, stream.num_steps * rows)
        batches = grain.MapDataset.source(places).map(stream.example).batch(rows, batch_fn=_collate)
        self._iterator = _iterate(batches, num_workers, buffer_size=4)

    def __iter__(self) -> Iterator[tuple[Batch, list[str]]]:
        return self

    def __next__(self) -> tuple[Batch, list[str]]:
        batch = next(self._iterator)
        refused = batch.pop("refused")
        return batch, refused

    def close(self) -> None:
        self._iterator.close()


class EvalExample(NamedTuple):
    """The views of one example; `refused` is a sentence, and `views` None, if it has none."""

    views: Any
    label: int
    refused: str


@dataclasses.dataclass(frozen=True)
class _EvalView:
    source: base.Source
    make_views: Callable[[bytes, str], Any]

    def __call__(self, index: int) -> EvalExample:
        try:
            example = self.source[index]
            return EvalExample(self.make_views(example.data, example.name), example.label, "")
        except errors.ImageError as e:
            return EvalExample(None, 0, str(e))


def eval_examples(
    source: base.Source,
    make_views: Callable[[bytes, str], Any],
    num_workers: int,
    indices: Sequence[int] | None = None,
) -> Generator[EvalExample, None, None]:
    """Yields the views of each example of the source, or of `indices`, exactly once, in order.

    Who stops before its end closes it.
    """
    chosen = range(len(source)) if indices is None else indices
    if not len(chosen):
        return
    examples = grain.MapDataset.source(chosen).map(_EvalView(source, make_views))
    yield from _iterate(examples, num_workers, buffer_size=64)


def even_sample(num_examples: int, count: int) -> list[int]:
    """Returns `count` indices (0: all there are) spread evenly over `num_examples`, in order."""
    count = min(count or num_examples, num_examples)
    return np.linspace(0, num_examples - 1, count).astype(int).tolist()


@dataclasses.dataclass(frozen=True)
class _MeanView:
    view: TrainView
    size: int

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        return self.view.middle(self.view.read(data, name), self.size)


def mean_image(
    source: base.Source,
    view: TrainView,
    size: int,
    num_workers: int,
    indices: Sequence[int],
    goes_on: Callable[[], bool] = lambda: True,
) -> np.ndarray:
    """Returns the mean (size, size, 3), float32, of the middle views of some examples.

    Images that cannot be read are left out, and those after the first for which `goes_on` says
    False. Whole numbers are added up, so that the result is the same for every number of workers.

    Raises:
        InputError: none of them can be read.
    """
    total, count = np.zeros((size, size, 3), np.int64), 0
    for example in eval_examples(source, _MeanView(view, size), num_workers, indices):
        if not example.refused:
            total += example.views
            count += 1
        if not goes_on():
            break
    if not count:
        raise errors.InputError(f"none of {len(indices)} images can be read for their mean")
    return (total / count).astype(np.float32)


def _iterate(
    dataset: grain.MapDataset, num_workers: int, buffer_size: int
) -> Generator[Any, None, None]:
    """Yields what a dataset holds, read ahead in threads, or in processes of `num_workers`."""
    _use_one_thread_an_image()
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer_size)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain's workers ask for its flags' defaults
            flags.FLAGS.mark_as_parsed()
        # Each process reads every num_workers-th element, one at a time.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    iterable = dataset.to_iter_dataset(options)
    if num_workers:
        iterable = iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers),
            worker_init_fn=_init_worker,
        )
    iterator = iter(iterable)
    try:
        yield from map(_take_over, iterator) if num_workers else iterator
    finally:
        iterator.close()
        if num_workers:
            # Each worker's last element is held by the traceback of grain's own StopIteration, a
            # cycle that is not looked for before Python ends.
            gc.collect()


def _take_over(element: Any) -> Any:
    """Returns what a loader process made, in memory of this process.

    It comes in shared memory, which lives as long as its arrays: one that is still held when Python
    ends, also by JAX, which uses arrays where they lie, is a leak to Python.
    """
    if isinstance(element, np.ndarray):
        return np.array(element)  # a plain array, whatever class it was
    if isinstance(element, dict):
        return {name: _take_over(value) for name, value in element.items()}
    if isinstance(element, EvalExample):
        return element._replace(views=_take_over(element.views))
    if type(element) in (tuple, list):
        return type(element)(_take_over(value) for value in element)
    return element


def _use_one_thread_an_image() -> None:
    """The images are read in parallel already; OpenCV's own threads would be too many."""
    cv2.setNumThreads(0)


def _init_worker(index: int, count: int) -> None:
    del index, count
    _use_one_thread_an_image()
    # Ctrl-C reaches every process of a terminal; the main one still wants its batches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
