"""An end for tests that might wait for ever."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises KeyboardInterrupt in its body after so many seconds."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
