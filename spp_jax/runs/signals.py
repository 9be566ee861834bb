"""Ctrl-C, SIGTERM and SIGHUP: a wish to stop after the step under way, or at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal, whose number it holds, ended the work, as Ctrl-C does."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def number_of(interrupt: KeyboardInterrupt) -> int:
    """Returns the number of the signal behind an exception: SIGINT, but for `Ended`."""
    return interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT


class Stop:
    """Whether a signal has come; nothing sets the `signal` of this one by itself.

    Long work enters it as a context, and looks at `signal` after each step to see whether to stop.

    Attributes:
        signal: the number of the signal that asked, or None.
    """

    signal: int | None = None

    def __enter__(self) -> "Stop":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def end_like_interrupts() -> Stop:
    """Makes the first SIGINT, SIGTERM or SIGHUP of this process raise `Ended`, where the work is.

    A second one ends the process as usual. Ignored signals, as SIGHUP under nohup, stay so.

    Returns:
        Whose `signal` is the number of the one that came. An exception after it may be what came of
        it: a library written in C that is just being loaded makes an ImportError of `Ended`.
    """
    ended = Stop()

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        ended.signal = number
        raise Ended(number)

    def end_again(lost: Any) -> None:
        # Python drops what is raised in a callback of its garbage collector, and JAX has one.
        if not isinstance(lost.exc_value, Ended):
            others(lost)
            return
        number = lost.exc_value.number
        signal.signal(number, end)
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()

    others, sys.unraisablehook = sys.unraisablehook, end_again
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    return ended


class StopSignal(Stop):
    """Is asked by the first SIGINT, SIGTERM or SIGHUP; a second one ends the process as usual.

    Commands give this to long work: no library installs signal handlers on its own.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, _: Any) -> None:
        # To say it may be to learn that the terminal is gone, which is a signal again.
        if self.signal is None:
            self.signal = number
            self._say(f"\n{signal.Signals(number).name}: stopping after this step")
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
