"""How the preparation of ImageNet shows where it is."""

import time
from collections.abc import Iterator
from typing import Any

from rich import progress

_LOG_EVERY_SECONDS = 60.0  # where there is no terminal to draw a bar on


class Display:
    """A bar on a terminal, else a line a minute."""

    def __init__(self):
        self._bar = progress.Progress(
            *progress.Progress.get_default_columns(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
        )
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def track(self, results: Iterator[Any], total: int, what: str) -> Iterator[Any]:
        """Yields the results and draws a bar of how many there were."""
        task = self._bar.add_task(what, total=total, rate="")
        for result in results:
            yield result
            self._bar.advance(task)

    def count(self, num_kept: int, total: int) -> None:
        """Begins to show images; `num_kept` of `total` are there from an earlier call."""
        self._task = self._bar.add_task("images", total=total, completed=num_kept, rate="")
        self._num_kept, self._total, self._start = num_kept, total, time.monotonic()

    def update(self, num_done: int) -> None:
        """Shows that `num_done` images were made since `count`."""
        now = time.monotonic()
        rate = num_done / max(now - self._start, 1e-3)
        completed = self._num_kept + num_done
        self._bar.update(self._task, completed=completed, rate=f"{rate:,.0f} images/s")
        if not self._bar.console.is_terminal and now - self._last_line > _LOG_EVERY_SECONDS:
            left = (self._total - completed) / max(rate, 1e-3) / 60
            line = f"{completed:,} of {self._total:,} images, {rate:,.0f} images/s, {left:.0f} min"
            print(line, "left", flush=True)
            self._last_line = now
