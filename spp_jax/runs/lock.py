"""One run at a time in a folder."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator

from spp_jax import errors
from spp_jax.runs import files

LOCK_FILE = "lock.json"


@contextlib.contextmanager
def hold(folder: str, *, on_wait: Callable[[str], object] | None = None) -> Iterator[bool]:
    """Holds a folder for this process, so that no other run writes there.

    The lock is the operating system's own (flock) on FOLDER/lock.json, which names the host, the
    process and the time. It ends with the process, however that ends; the file stays. A file
    system that has no locks is not locked.

    Args:
        folder: made if missing.
        on_wait: is told who holds the folder, and that this process waits; None: it does not wait.

    Yields:
        Whether the folder is locked, so that no other process is in it.

    Raises:
        InputError: another process holds the folder, and this one does not wait; or nothing can be
            written there.
    """
    path = os.path.join(folder, LOCK_FILE)
    try:
        os.makedirs(folder, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as e:
        raise errors.InputError(f"{path} cannot be written: {e.strerror}") from e
    with os.fdopen(number, "r+b", buffering=0) as f:
        is_locked = True
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            in_use = f"{folder} is in use by {_holder(f.read(1000))}"
            if on_wait is None:
                raise errors.InputError(f"{in_use}; wait for it, or take another folder") from e
            on_wait(f"{in_use}; waiting for it")
            fcntl.flock(f, fcntl.LOCK_EX)
        except OSError:
            is_locked = False  # no locks here, as on some network file systems
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its words
            f.seek(0)  # where a holder's words were read
            f.truncate()
            f.write(json.dumps(_self()).encode())
        files.remove_leftovers(folder)
        yield is_locked


def _self() -> dict[str, object]:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": now}


def _holder(content: bytes) -> str:
    try:
        stored = files.parse_json(content.decode())
        return errors.printable("process {process} of {host} since {since}".format(**stored))
    except (ValueError, TypeError, KeyError):
        return "another process"
