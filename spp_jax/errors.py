"""The exceptions of the package that are about its input, not about its code."""

import errno
import os

# What disks answer where nothing can be written.
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that names the value.

    The commands print it without a traceback and exit with code 2.
    """


class OthersError(InputError):
    """An InputError of all processes of a command, in one that leaves it to the first to say."""


class ImageError(InputError):
    """A file that cannot be used as an image; the message is "NAME: reason"."""


class InputWarning(UserWarning):
    """Input that is used, and of which its user should know something; commands print it."""


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's message, or its type where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def disk_reason(error: Exception) -> str:
    """Returns why nothing was written: the system's words, which libraries wrap in long ones."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = (os.strerror(number) for number in OF_DISKS)
    return next((w for w in words if w in str(error)), first_line(error)[:200])


def printable(name: str) -> str:
    """Returns a name as one line for any terminal: what cannot be printed is escaped, as \\n.

    A file's name may hold a new line, or bytes that are no UTF-8 (\\udcff for byte 255).
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
