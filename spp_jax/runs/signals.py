"""Ctrl-C and SIGTERM: a wish to stop after the step under way."""

import signal
from typing import Any


class StopSignal:
    """Catches the first SIGINT or SIGTERM; a second one ends the process as usual."""

    def __init__(self):
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
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
