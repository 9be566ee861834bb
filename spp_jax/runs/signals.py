"""Ctrl-C and SIGTERM: a wish to stop after the step under way."""

import signal
from collections.abc import Callable
from typing import Any


class Stop:
    """Whether long work is asked to stop; this one never is.

    Long work enters it as a context, and looks at `signal` after each step.

    Attributes:
        signal: the number of the signal that asked, or None.
    """

    signal: int | None = None

    def __enter__(self) -> "Stop":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class StopSignal(Stop):
    """Is asked by the first SIGINT or SIGTERM; a second one ends the process as usual.

    Commands give this to long work: no library installs signal handlers on its own.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, _: Any) -> None:
        self.signal = number
        self._say(f"\n{signal.Signals(number).name}: stopping after this step")
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
