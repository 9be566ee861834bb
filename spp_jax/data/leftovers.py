"""What killed preparations leave of TFDS sets, and who may remove it.

TFDS writes a set in FOLDER/incomplete.RANDOM_VERSION and renames that to FOLDER/VERSION. A process
that is killed leaves it, and the next one takes another name.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from spp_jax.runs import lock

# In a folder on the way, says that it is ours: TFDS knows no locks, and one of TFDS's own processes
# may be writing beside it.
MARK = "spp_jax.mark"


@contextlib.contextmanager
def alone(
    final: str | os.PathLike[str],
    *,
    marked: bool,
    on_wait: Callable[[str], object] | None = None,
) -> Iterator[None]:
    """Holds the folder that a set is made in, and removes what killed processes left there.

    Args:
        final: where the set will be, FOLDER/VERSION.
        marked: remove only what `mark` was called on, as others make that set too.
        on_wait: as of `lock.hold`, whose errors are raised.
    """
    folder, version = os.path.split(os.path.abspath(final))
    with lock.hold(folder, on_wait=on_wait) as is_locked:
        if is_locked:  # otherwise another process may be at it
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                is_ours = not marked or os.path.exists(os.path.join(path, MARK))
                # TFDS's six letters and digits.
                if is_ours and re.fullmatch(
                    rf"incomplete\.[A-Z0-9]{{6}}_{re.escape(version)}", name
                ):
                    shutil.rmtree(path, ignore_errors=True)
        yield


def mark(builder: Any) -> None:
    """Makes a builder of TFDS mark the folder that it writes; `unmark` ends that."""
    write = builder._download_and_prepare

    def write_marked(*args: Any, **options: Any) -> None:
        path = os.path.join(builder.data_path, MARK)  # of the folder on the way
        with open(path, "xb"):
            pass
        write(*args, **options)

    builder._download_and_prepare = write_marked


def unmark(builder: Any) -> None:
    """Removes the mark of a set that is finished.

    Not before TFDS has renamed its folder: until then a process that is killed leaves it to others.
    A set that keeps its mark, as its process was killed just then, is read like any other.
    """
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(builder.data_path, MARK))
