"""The console: lines as they come, and bars, or one line per minute where there is no terminal."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from spp_jax.runs import progress as progress_lib

_LINE_EVERY_SECONDS = 60.0


def mute(stream: TextIO) -> None:
    """Lets nothing more be printed to a stream of this process."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def complain(sentence: str) -> None:
    """Prints a sentence to standard error, if anybody reads that."""
    try:
        print(sentence, file=sys.stderr, flush=True)
    except BrokenPipeError:
        mute(sys.stderr)


class Console(progress_lib.Progress):
    """Shows what long work tells."""

    def say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # Whoever read the lines is gone, as a terminal that is closed.
            mute(sys.stdout)
            signal.raise_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def bar(self, title: str, total: int, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        from rich import progress  # imported here: `--help` needs none of it

        start = last_line = time.monotonic()
        completed = done
        columns = (
            *progress.Progress.get_default_columns(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
        )

        with progress.Progress(*columns) as bars:
            task = bars.add_task(title, total=total, completed=done, rate="")

            def advance(count: int) -> None:
                nonlocal completed, last_line
                completed += count
                now = time.monotonic()
                rate = (completed - done) / max(now - start, 1e-3)
                bars.update(task, completed=completed, rate=f"{rate:,.0f}/s")
                if not bars.console.is_terminal and now - last_line > _LINE_EVERY_SECONDS:
                    left = (total - completed) / max(rate, 1e-3) / 60
                    line = (
                        f"{title}: {completed:,} of {total:,}, {rate:,.1f}/s, {left:.0f} min left"
                    )
                    print(line, flush=True)
                    last_line = now

            yield advance
