"""Worker processes: started cleanly, quiet, and gone when the process that started them is."""

import collections
import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from spp_jax import errors

T = TypeVar("T")
U = TypeVar("U")


@contextlib.contextmanager
def start(
    count: int, init: Callable[..., None] | None = None, *args: Any, kill: bool = False
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Starts `count` processes and ends them, work that nobody waits for included.

    Ctrl-C, which reaches every process of a terminal, is for the main process alone: it ends them.

    Args:
        count: of processes.
        init: is called in each, with `args`, before its first work.
        args: can be sent to a process; also what it shares with the main one.
        kill: end the processes at once where an exception ends the body; else each ends its work.

    Raises:
        InputError: a process died.
    """
    # Spawned: a fork of a process that runs JAX may hang, and inherits locks of threads.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(count, context, _begin, (init, args))
    others = multiprocessing.active_children()
    try:
        # A process that has just started inherits that interrupts are ignored.
        with _interrupts_ignored():
            for _ in range(count):
                pool.submit(os.getpid)
        yield pool
    except concurrent.futures.process.BrokenProcessPool as e:
        raise errors.InputError(
            "a worker process died, most likely for lack of memory; fewer workers need less"
        ) from e
    except BaseException:
        for process in multiprocessing.active_children() if kill else ():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ordered(
    make: Callable[[T], U], items: Iterable[T], count: int, ahead: int
) -> Generator[U, None, None]:
    """Yields what `make` makes of each item in one of `count` processes, in order.

    Who stops before its end closes it, which kills the processes.

    Args:
        make: a function that can be sent to a process, as can what it takes and returns.
        items: what it is called with.
        count: of processes.
        ahead: of how many items the results may wait to be taken.
    """
    with start(count, _set_make, make, kill=True) as pool:
        waiting: collections.deque[concurrent.futures.Future[U]] = collections.deque()
        for item in items:
            waiting.append(pool.submit(_make_one, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_make: Callable[[Any], Any]


def _set_make(make: Callable[[Any], Any]) -> None:
    global _make
    _make = make


def _make_one(item: Any) -> Any:
    return _make(item)


def undisturbed(act: Callable[[], T]) -> T:
    """Returns what a function returns; Ctrl-C is raised after it, not within.

    For libraries that an exception in the midst of their work leaves in disorder.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


def begin() -> None:
    """Makes this process a worker.

    It ignores Ctrl-C, leaves threads to the other workers, and ends when its main process does.
    """
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def terminate_with_parent() -> None:
    """Makes this process get SIGTERM when the one that started it ends, however that ends."""
    death_signal = 1  # Linux's PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM)


def use_one_thread() -> None:
    """Makes OpenCV use one thread in this process: images are read in parallel already."""
    import cv2  # imported here: whoever has no images needs none of it

    cv2.setNumThreads(0)


def _begin(init: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    begin()
    if init is not None:
        init(*args)


def _end_with_parent() -> None:
    # A worker does not notice when the main process is killed: it would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
