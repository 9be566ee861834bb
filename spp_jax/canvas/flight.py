"""Batches under way on the device while the host makes the next ones."""

import collections
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Enough to keep the device busy, few enough to be held.
_NUM_BATCHES = 2


def behind(started: Iterable[T], count: int = _NUM_BATCHES) -> Iterator[T]:
    """Yields what was started, in order, each when `count` more are under way or none is left.

    JAX returns from a program's call before the program has run: whoever reads a result at once
    waits for the device, which then waits for the next batch.
    """
    waiting: collections.deque[T] = collections.deque()
    for item in started:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
