"""How training ends before its end: all processes after the same step, or one that stands still."""

import collections
import threading
import time
from typing import Any

from spp_jax import cluster, sharding
from spp_jax.runs import signals

# All processes stop so many steps after a signal: what they told each other at a step is then there
# without waiting.
_STEPS_LATER = 2


class AgreedStop:
    """A wish to stop that all processes learn of at the same step.

    Attributes:
        signal: the number of the signal that all of them stop for, or None.
    """

    def __init__(self, stop: signals.Stop):
        """Takes this process's own wish."""
        self._stop = stop
        self._signal: int | None = None
        self._pending: collections.deque[Any] = collections.deque()

    @property
    def signal(self) -> int | None:
        return self._stop.signal if cluster.count() == 1 else self._signal

    def before_step(self) -> int | None:
        """Returns `signal`; every process calls it before every step, and tells its own wish."""
        if cluster.count() > 1:
            self._pending.append(sharding.largest(self._stop.signal or 0))
            if len(self._pending) > _STEPS_LATER:
                self._signal = int(self._pending.popleft()) or None
        return self.signal

    def look(self) -> int | None:
        """Returns `signal`, of all wishes up to now; waits for every process."""
        self._signal = max(cluster.gather(self._stop.signal or 0)) or None
        return self.signal


class Watchdog:
    """Ends this process where its training stands still; the other processes then miss it.

    A single process has none to keep waiting, and is left alone: somebody may have stopped it.
    """

    def __init__(self, seconds: float):
        """Watches from the first call of `tell` on; `seconds` is the most of a step, 0: any."""
        self._seconds = seconds
        self._last: float | None = None
        self._is_closed = threading.Event()
        if seconds and cluster.count() > 1:
            threading.Thread(target=self._watch, daemon=True).start()

    def tell(self) -> None:
        """Says that a step begins."""
        self._last = time.monotonic()

    def pause(self) -> None:
        """Watches nothing until the next step begins."""
        self._last = None

    def close(self) -> None:
        """Ends watching."""
        self._is_closed.set()

    def _watch(self) -> None:
        while not self._is_closed.wait(min(1.0, self._seconds / 4)):
            last = self._last
            if last is not None and time.monotonic() - last > self._seconds:
                cluster.end_alone(
                    f"a step took more than config.run.max_step_seconds={self._seconds:g}; started "
                    "again, the run goes on from its last checkpoint; its threads stand here:"
                )
