"""Reads examples ahead, in threads or in loader processes, each exactly once and in order.

Images are (H, W, 3) uint8 RGB.
"""

import contextlib
import dataclasses
import io
import os
import zlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

import grain
import numpy as np

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.loading import views
from spp_jax.data.sources import base
from spp_jax.runs import progress as progress_lib
from spp_jax.runs import signals, workers

T = TypeVar("T")


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
    yield from iterate(_EvalView(source, make_views), chosen, num_workers, buffer_size=64)


def even_sample(num_examples: int, count: int) -> list[int]:
    """Returns `count` indices (0: all there are) spread evenly over `num_examples`, in order."""
    count = min(count or num_examples, num_examples)
    return np.linspace(0, num_examples - 1, count).astype(int).tolist()


class Head(NamedTuple):
    """What is known of an image file without its pixels.

    Attributes:
        size: (height, width) of the decoded image.
        crc32: the checksum of the file.
        label: of the example; -1 is none.
    """

    size: tuple[int, int]
    crc32: int
    label: int


def read_heads(
    source: base.Source,
    num_workers: int,
    indices: Sequence[int] | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
    *,
    limits: images.Limits = images.LIMITS,
) -> tuple[dict[int, Head], dict[int, str]]:
    """Reads the headers of all examples, or of `indices`; images beyond the limits are refused.

    Returns:
        {index: head} of the images whose header can be read, {index: sentence} of the others.
    """
    chosen = range(len(source)) if indices is None else indices
    heads: dict[int, Head] = {}
    refused: dict[int, str] = {}
    examples = eval_examples(source, _HeadView(limits), num_workers, chosen)
    with contextlib.closing(examples), progress.bar("sizes", len(chosen)) as advance:
        for index, example in zip(chosen, examples):
            advance(1)
            if example.refused:
                refused[index] = example.refused
            else:
                size, crc32 = example.views
                heads[index] = Head(size, crc32, example.label)
    return heads, refused


@dataclasses.dataclass(frozen=True)
class _HeadView:
    limits: images.Limits

    def __call__(self, data: bytes, name: str) -> tuple[tuple[int, int], int]:
        return images.read_size(io.BytesIO(data), name, self.limits), zlib.crc32(data)


@dataclasses.dataclass(frozen=True)
class _MiddleView:
    view: views.TrainView
    size: int

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        return self.view.middle(self.view.read(data, name), self.size)


def sum_images(
    source: base.Source,
    view: views.TrainView,
    size: int,
    num_workers: int,
    indices: Sequence[int],
    *,
    stop: signals.Stop | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> tuple[np.ndarray, int]:
    """Returns the sum (size, size, 3), int64, of some examples' middle views, and their count.

    Images that cannot be read are left out, and so are those after the one at which `stop` asked to
    stop. Whole numbers add up to the same sum whoever adds them, in any order.
    """
    total, count = np.zeros((size, size, 3), np.int64), 0
    examples = eval_examples(source, _MiddleView(view, size), num_workers, indices)
    with contextlib.closing(examples), progress.bar("mean image", len(indices)) as advance:
        for example in examples:
            if not example.refused:
                total += example.views
                count += 1
            advance(1)
            if stop is not None and stop.signal is not None:
                break
    return total, count


def iterate(
    make: Callable[[int], T], items: Sequence[int], num_workers: int, buffer_size: int
) -> Generator[T, None, None]:
    """Yields what `make` makes of each item, in order, made ahead.

    Who stops before its end closes it.

    Args:
        make: a function of an item; it is sent to processes.
        items: of a range or sequence.
        num_workers: processes to make them in; 0: threads of this one.
        buffer_size: how many threads make ahead; processes make two each.
    """
    if num_workers:
        yield from workers.ordered(make, items, num_workers, 2 * num_workers)
        return
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer_size)
    iterator = iter(grain.MapDataset.source(items).map(make).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()
