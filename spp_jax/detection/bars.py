"""The progress bar of detection's long loops."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yields items behind a progress bar; `total` is their number where they do not tell it."""
    columns = (*progress.Progress.get_default_columns(), progress.MofNCompleteColumn())
    with progress.Progress(*columns) as bar:
        yield from bar.track(items, total=total, description=title)
