"""Reads .npz archives, also hostile ones: what a file claims is checked before it is believed."""

import math
import zipfile
from collections.abc import Collection
from typing import Any

import numpy as np

from spp_jax import errors
from spp_jax.runs import files, memory

# The most bytes of the list of an archive's arrays: some 1.5 million arrays, which take 1 GB.
MAX_LIST = 2**27
# numpy writes no others, and what others need to decompress is not said beforehand.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npz(path: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Returns {name: array} of a .npz file, without Python objects.

    Args:
        path: of the file.
        names: the arrays to read, those of them that are there; None: all.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, is no .npz, or claims more than it holds or than this machine's
            memory, or its list of arrays has more than MAX_LIST bytes; one line says which.
    """
    with files.Bounded(files.open_regular(path), MAX_LIST) as f:
        try:
            with zipfile.ZipFile(f) as archive:
                f.limit = memory.physical()
                members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
                wanted = {n: m for n, m in members.items() if names is None or n in names}
                _check_memory(sum(m.file_size for m in wanted.values()))
                return {n: _read_array(archive, m) for n, m in wanted.items()}
        # zipfile, zlib and numpy answer damage with many kinds of exceptions.
        except Exception as e:
            raise ValueError(errors.first_line(e)) from e


def _check_memory(size: int) -> None:
    limit = memory.physical()
    if size > limit:
        raise ValueError(
            f"it claims {size / 2**30:,.0f} GiB, and this machine has {limit / 2**30:,.0f}"
        )


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in _COMPRESSIONS:
        raise ValueError(f"{member.filename} is compressed by no method that numpy writes")
    with archive.open(member) as f:
        return read_npy(f, member.file_size)


def read_npy(f: Any, num_bytes: int) -> np.ndarray:
    """Returns the array of an open .npy file of so many bytes, from where it stands.

    Raises:
        ValueError: it holds Python objects, or its header is damaged or does not fit its size.
    """
    try:
        return _read_npy(f, num_bytes)
    # numpy answers damaged headers with many kinds of exceptions, as tokenize.TokenError.
    except Exception as e:
        raise ValueError(errors.first_line(e)) from e


def _read_npy(f: Any, num_bytes: int) -> np.ndarray:
    start = f.tell()
    version = np.lib.format.read_magic(f)
    is_first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(f)
    # numpy makes room for what the header says before it looks at the rest.
    claimed = f.tell() - start + dtype.itemsize * math.prod(shape)
    if claimed != num_bytes and not dtype.hasobject:
        raise ValueError(f"an array claims {claimed:,} bytes, and has {num_bytes:,}")
    # Such values take no bytes, and each conversion to another type makes room for all of them.
    if dtype.itemsize == 0 and math.prod(shape) > 0:
        raise ValueError(f"an array claims {math.prod(shape):,} values of no bytes")
    f.seek(start)
    return np.lib.format.read_array(f, allow_pickle=False)
