"""Paths as users write them, and files that are there whole or not at all."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any


def whole_path(path: str | os.PathLike[str]) -> str:
    """Returns the absolute path of what a user wrote: "~" is home, "" stays "".

    An address, "gs://bucket/folder", is returned as it is.
    """
    path = os.fspath(path)
    return os.path.abspath(os.path.expanduser(path)) if path and "://" not in path else path


@contextlib.contextmanager
def replacing(path: str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a new file beside `path`, and puts it in its place in one step when it is written.

    Where that ends with an error, nothing is left of the new one. `mode` is "wb", or "w" for UTF-8
    text.
    """
    new = f"{path}.{uuid.uuid4().hex}"  # processes may write the same file
    try:
        with open(new, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(new)
        raise


def write_json(path: str, value: Any, indent: int | None = None) -> None:
    """Writes JSON in one step, as `replacing`."""
    with replacing(path, "w") as f:
        json.dump(value, f, indent=indent)


def read_json(path: str) -> Any:
    """Returns what a JSON file holds; raises OSError or ValueError."""
    with open(path, encoding="utf-8") as f:
        return json.load(f)
