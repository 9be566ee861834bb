"""Whether the files and folders of a run can be made, asked before its work."""

import os
from collections.abc import Iterable

from spp_jax import errors


def unwritable(folder: str) -> str:
    """Returns a sentence that says why nothing can be written in a folder; "" where it can.

    Args:
        folder: perhaps one that is not there yet.
    """
    parent = os.path.abspath(folder)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        return f"{folder} cannot be written: {parent} is not a folder"
    if os.access(parent, os.W_OK):
        return ""
    if os.path.abspath(folder) == parent:
        return f"{folder} is read-only: nothing can be written there"
    return f"{folder} cannot be written: {parent} is read-only"


def check(folder: str, *, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Raises InputError, which names the path, where a run could not write; writes nothing.

    Args:
        folder: of the run; made later if missing.
        files: names in it of files that the run writes, or replaces.
        folders: names in it of folders that the run writes in.
    """
    for path in (folder, *(os.path.join(folder, name) for name in folders)):
        # A link that leads nowhere is in the way of a folder as well.
        if os.path.lexists(path) and not os.path.isdir(path):
            raise errors.InputError(f"{path} is no folder, which a run writes in; move it away")
        reason = unwritable(path)
        if reason:
            raise errors.InputError(reason)
    for name in files:
        path = os.path.join(folder, name)
        if os.path.exists(path) and not os.path.isfile(path):
            raise errors.InputError(f"{path} is no file, which a run writes; move it away")
