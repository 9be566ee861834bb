"""The console: lines as they come, and bars, or one line per minute where there is no terminal."""

import contextlib
import ctypes
import errno
import faulthandler
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from spp_jax.runs import progress as progress_lib

_LINE_EVERY_SECONDS = 60.0


class Output(io.TextIOWrapper):
    """A stream of the process that raises BrokenPipeError once when nobody reads it any more.

    That is so of a pipe whose reader has ended, and of a terminal that is closed. From then on it
    drops what is printed.
    """

    def write(self, text: str, /) -> int:
        with self._guarded():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._guarded():
            super().flush()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            if e.errno not in (errno.EPIPE, errno.EIO):
                raise
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed") from e


def guard_streams() -> None:
    """Makes standard output and error an `Output` each, which also prints names of any encoding."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            options: Any = {
                # A file's name that is no UTF-8 is no reason to stop.
                "errors": "backslashreplace",
                "encoding": stream.encoding,
                "line_buffering": stream.line_buffering,
                "write_through": stream.write_through,
            }
            stream.flush()
            setattr(sys, name, Output(stream.detach(), **options))


def keep_stdout() -> None:
    """Keeps standard output for what Python prints: gloo tells there of every connection."""
    sys.stdout.flush()
    own = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    options: Any = {"errors": "backslashreplace", "encoding": sys.stdout.encoding}
    sys.stdout = Output(os.fdopen(own, "wb", 0), write_through=True, **options)


def complain(sentence: str) -> None:
    """Prints a sentence to standard error, if anybody reads that."""
    with contextlib.suppress(BrokenPipeError):
        print(sentence, file=sys.stderr, flush=True)


class Console(progress_lib.Progress):
    """Shows what long work tells."""

    def say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            _hang_up()

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

        with progress.Progress(*columns, console=_rich_console()) as bars:
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


def for_all() -> progress_lib.Progress:
    """Returns what shows the work of all processes: the console of the first, nothing else."""
    from spp_jax import cluster

    return Console() if cluster.is_first() else progress_lib.SILENT


def end_at_once(sentence: str, *, show_threads: bool = False) -> NoReturn:
    """Says an error and, if asked to, where each thread stands; the exit code is 3.

    For threads: the main one may wait for another process, where no exception reaches it.
    """
    complain(f"error: {sentence}")
    if show_threads:
        faulthandler.dump_traceback(2)
    os._exit(3)


def end_aborts(sentence: str) -> None:
    """Makes an abort of a library in C++ say an error, and end this process with exit code 3."""
    global _end_abort
    _end_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: end_at_once(sentence))
    # Python's own handlers would wait for the main thread.
    ctypes.CDLL(None).signal(signal.SIGABRT, _end_abort)


_end_abort: Any = None  # C holds no reference to it


def _hang_up() -> None:
    """Does to this process what a terminal does that is closed."""
    signal.raise_signal(signal.SIGHUP)


def _rich_console() -> Any:
    from rich import console

    class Quiet(console.Console):
        def on_broken_pipe(self) -> None:  # rich would end the process with 1
            _hang_up()

    return Quiet()
