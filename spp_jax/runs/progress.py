"""What long work tells whoever waits for it: lines, and how far it is."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


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

    def track(self, items: Iterable[T], title: str, total: int) -> Generator[T, None, None]:
        """Yields the items, `total` in number, behind a bar that advances after each."""
        with self.bar(title, total) as advance:
            for item in items:
                yield item
                advance(1)


SILENT = Progress()
