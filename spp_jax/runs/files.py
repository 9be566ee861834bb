"""Files: whole or not at all, names from any text, text of any editor."""

import codecs
import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from typing import IO, Any


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


def unwritable_parent(path: str) -> str:
    """Returns the nearest folder above a path, or the path, if nothing can be made there; or ""."""
    parent = os.path.abspath(path)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    return "" if os.path.isdir(parent) and os.access(parent, os.W_OK) else parent


def write_json(path: str, value: Any, indent: int | None = None) -> None:
    """Writes JSON in one step, as `replacing`."""
    with replacing(path, "w") as f:
        json.dump(value, f, indent=indent)


def read_json(path: str) -> Any:
    """Returns what a JSON file holds; raises OSError or ValueError."""
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def read_text(path: str) -> str:
    """Returns the text of a file as an editor wrote it, lines ended by "\\n".

    UTF-8 with or without a byte order mark, or UTF-16 with one (Notepad, PowerShell's ">").
    Raises OSError, or UnicodeDecodeError for any other encoding.
    """
    with open(path, "rb") as f:
        data = f.read()
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_wide else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


# Longest escaped name, in bytes: file systems take 255, and `replacing` adds 33.
_MAX_NAME = 200
# What a name cannot hold, or would hide behind: a "/", control characters, a first dot; and a "%"
# that would be read as an escape.
_UNSAFE = re.compile(r"[/\x00-\x1f\x7f-\x9f]|^\.|%(?=[0-9A-Fa-f]{2})")


def escape(name: str) -> str:
    """Returns a name that a file or folder can have; different texts have different names.

    A text that can be a name is returned as it is. In others "%" and two hexadecimal digits stand
    for a character that no name holds, as "%2F" for "/". A name too long for file systems is cut,
    and ends with a hash of all of it.
    """
    escaped = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    whole = escaped.encode("utf-8", "surrogateescape")
    if len(whole) <= _MAX_NAME:
        return escaped
    digest = hashlib.sha256(whole).hexdigest()[:16]
    return whole[: _MAX_NAME - 18].decode("utf-8", "ignore") + "%~" + digest
