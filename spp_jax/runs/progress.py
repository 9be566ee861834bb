"""What long work tells whoever waits for it: lines, and how far it is."""

import contextlib
from collections.abc import Callable, Iterator


class Progress:
    """Hears what long work tells. This one keeps it to itself; that of the commands shows it."""

    def say(self, text: str) -> None:
        """Takes a line, or several lines."""
        del text

    @contextlib.contextmanager
    def bar(self, title: str, total: int, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Opens a bar for `total` things, of which `done` are done; closes it, whatever happens.

        Yields:
            A function that is told how many more are done.
        """
        del title, total, done
        yield lambda count: None


SILENT = Progress()
