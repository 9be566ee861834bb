"""Files: whole or not at all, regular ones only, names from any text, text of any editor."""

import codecs
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import stat
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from spp_jax import errors

_CHECKSUM = "crc32"
# The most bytes that `read_bytes` reads unless told otherwise.
MAX_BYTES = 2**30


@contextlib.contextmanager
def replacing(path: str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a new file beside `path`, and puts it in its place in one step when it is written.

    Where that ends with an error, nothing is left of the new one. `mode` is "wb", or "w" for UTF-8
    text.

    Raises:
        OSError: the file cannot be written; its `filename` is `path`.
    """
    new = f"{path}.{uuid.uuid4().hex}"  # processes may write the same file
    try:
        # "x" follows no link that somebody put there.
        with open(new, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as f:
            yield f
        os.replace(new, path)
    except BaseException as e:
        with contextlib.suppress(OSError):
            os.remove(new)
        # A full disk is told of without a name, or of the new file.
        if isinstance(e, OSError) and e.errno and e.filename in (None, new):
            raise OSError(e.errno, e.strerror, path) from e
        raise


def write_all(f: io.RawIOBase, data: bytes) -> None:
    """Writes to an unbuffered file, which may take a part at a time; raises OSError as it does."""
    left = memoryview(data)
    while left:
        left = left[f.write(left) or 0 :]


def remove_leftovers(folder: str) -> None:
    """Removes what processes that were killed in `replacing` have left in a folder.

    That is files of its names that nobody has written to for an hour.
    """
    oldest = time.time() - 3600
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_new = re.fullmatch(r".+\.[0-9a-f]{32}", entry.name) and entry.is_file()
            if is_new and entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.remove(entry.path)


def no_links(path: str, flags: int) -> int:
    """Opens a file as `open` does, but raises OSError if it is a link: its `opener`.

    For files that are written in place at a name that others can foretell.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_json(path: str, value: Any, indent: int | None = None) -> None:
    """Writes JSON in one step, as `replacing`."""
    with replacing(path, "w") as f:
        json.dump(value, f, indent=indent)


def write_checked(path: str, entries: dict[str, Any], indent: int | None = None) -> None:
    """Writes an object with a checksum of its entries, its last entry "crc32", for `read_checked`.

    The file is written in one step, as `replacing`.
    """
    write_json(path, {**entries, _CHECKSUM: checksum(entries)}, indent)


def read_checked(path: str) -> dict[str, Any]:
    """Returns the entries of an object that `write_checked` wrote.

    A file without a checksum, of an older version, is taken as it is, with an InputWarning.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, holds no object, or its entries are not as they were saved.
    """
    entries = read_object(path)
    if _CHECKSUM not in entries:
        warn_unchecked(path)
        return entries
    stored = entries.pop(_CHECKSUM)
    try:
        is_same = stored == checksum(entries)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    if not is_same:
        raise ValueError("its entries are not as saved: their checksum is another")
    return entries


def warn_unchecked(path: str) -> None:
    """Warns that a file is of a version that stored no checksum."""
    warnings.warn(
        f"{path} is of a version without checksums: damage cannot be seen",
        errors.InputWarning,
        stacklevel=3,
    )


def checksum(value: Any) -> int:
    """Returns a CRC-32 of a value as JSON stores it; the order of an object's entries is none."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def open_regular(
    path: str | os.PathLike[str], limit: int | None = None, *, links: bool = True
) -> io.BufferedReader:
    """Opens a regular file for reading.

    Args:
        path: of the file.
        limit: the most bytes that the file may have; None: any number.
        links: whether the path may be a link to the file.

    Raises:
        OSError: there is no such file, or it is a folder, a pipe or a device, of which reading
            might never end; or the file has more bytes than the limit, or is a link.
    """
    path = os.fspath(path)
    if "\0" in path:
        raise OSError(errno.EINVAL, "its name holds a zero byte", path)
    # A pipe that nobody writes to would otherwise be waited for.
    follow = 0 if links else os.O_NOFOLLOW
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
    status = os.fstat(number)
    if stat.S_ISREG(status.st_mode) and (limit is None or status.st_size <= limit):
        return os.fdopen(number, "rb")
    os.close(number)
    if stat.S_ISREG(status.st_mode):
        reason = f"it has {status.st_size:,} bytes, more than the limit of {limit:,}"
        raise OSError(errno.EFBIG, reason, path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "it is no regular file", path)


def read_bytes(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> bytes:
    """Returns the bytes of a regular file.

    Raises:
        OSError: as `open_regular`, or it has more bytes than the limit.
    """
    with open_regular(path, limit) as f:
        return f.read(os.fstat(f.fileno()).st_size)


def check_below(folder: str, limits: Mapping[str, int]) -> None:
    """Raises OSError for a file below a folder that is no regular one, or is too large.

    Args:
        folder: whose folders are all looked into; links to folders are not.
        limits: {name of a file, in whichever folder: the most bytes}; others may have any number.
    """
    for inner, _, names in os.walk(folder):
        for name in names:
            open_regular(os.path.join(inner, name), limits.get(name)).close()


class Bounded(io.BufferedReader):
    """A file as `open_regular` opens it, of which no single read may return more than a limit.

    For readers of archives, which read as many bytes at once as a header in the file claims.

    Attributes:
        limit: the most bytes of one read.
    """

    def __init__(self, file: io.BufferedReader, limit: int):
        super().__init__(file.detach())
        self.limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns at most so many bytes; raises ValueError where that is more than the limit."""
        if size is not None and size > self.limit:
            raise ValueError(f"a part of it claims {size:,} bytes, more than {self.limit:,}")
        return super().read(size)


def read_json(path: str) -> Any:
    """Returns what a JSON file holds; raises OSError or ValueError."""
    return parse_json(read_bytes(path).decode())


def read_object(path: str) -> dict[str, Any]:
    """Returns the object that a JSON file holds; raises OSError or ValueError."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, no object {{...}}")
    return value


def parse_json(text: str) -> Any:
    """Returns what a JSON text holds; raises ValueError, also for one nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def read_text(path: str, limit: int = MAX_BYTES) -> str:
    """Returns the text of a file as an editor wrote it, lines ended by "\\n".

    UTF-8 with or without a byte order mark, or UTF-16 with one (Notepad, PowerShell's ">").
    Raises OSError as `read_bytes`, or UnicodeDecodeError for any other encoding.
    """
    data = read_bytes(path, limit)
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
