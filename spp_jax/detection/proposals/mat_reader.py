"""Reads windows from .mat files, as a program of its own: python -P mat_reader.py KIND BYTES.

scipy.io.loadmat trusts the bytes of a file: a damaged one can end the process. So `window_files`
starts this program, which imports nothing of the package, as a child, and survives the child's end.

Standard input holds the paths, with a zero byte after each. KIND is "cells" for R-CNN's files of
many images, with variables `images` and `boxes`, or "boxes" for files of one image each. BYTES is
the most memory that it may take. For each file, in turn, this program writes to standard output,
per image, a line {"id": ..., "count": R} and R x 4 float64 after it; and at last a line
{"end": ""}, or {"end": REASON} if the file cannot be read.
"""

import json
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import scipy.io


class KindError(Exception):
    """A .mat file is not damaged but holds no windows; the message says why."""


def read(path: str, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the id of each image, "" if the file is of one image, and its rows (R, 4) as stored.

    Raises:
        KindError: the file holds no windows.
        Exception: of nearly any type, from scipy or numpy: the file is damaged.
    """
    names = ["images", "boxes"] if kind == "cells" else ["boxes"]
    variables = scipy.io.loadmat(path, variable_names=names)
    missing = [name for name in names if name not in variables]
    if missing:
        raise KindError(f"it has no variable {missing[0]!r}")
    if kind == "boxes":
        yield "", _rows(variables["boxes"])
        return
    cells = np.ravel(variables["images"]), np.ravel(variables["boxes"])
    if len(cells[0]) != len(cells[1]):
        raise KindError(f"it has {len(cells[0])} images and boxes of {len(cells[1])}")
    ids = [str(np.ravel(cell)[0]) for cell in cells[0]]
    twice = len(ids) - len(set(ids))
    if twice:
        raise KindError(f"{twice} of its {len(ids)} images are named twice")
    for image_id, rows in zip(ids, cells[1]):
        yield image_id, _rows(rows)


def _rows(value: np.ndarray) -> np.ndarray:
    if value.size and value.shape[-1] != 4:
        raise KindError(f"its rows of boxes are not 4 numbers, but {value.shape[-1]}")
    return np.ascontiguousarray(value, np.float64).reshape(-1, 4)


def main(kind: str, paths: list[str], out: BinaryIO) -> None:
    """Writes the windows of the files to `out`, in the form that the module's docstring says."""
    for path in paths:
        reason = ""
        try:
            for image_id, rows in read(path, kind):
                head = json.dumps({"id": image_id, "count": len(rows)}).encode()
                out.write(head + b"\n" + rows.tobytes())
        except KindError as e:
            reason = str(e)
        except NotImplementedError:
            reason = "it is of MATLAB's version 7.3; save it with -v7"
        except MemoryError:
            limit = resource.getrlimit(resource.RLIMIT_AS)[0]
            reason = f"it is damaged, or takes more than {limit / 2**30:.1f} GiB of memory"
        # Damaged bytes make scipy raise nearly anything, and all of it means the same.
        except Exception as e:
            message = " ".join(traceback.format_exception_only(e)[-1].split())
            reason = f"it is damaged, or no .mat file ({message[:200]})"
        out.write(json.dumps({"end": reason}).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    # Prints of libraries go to standard error, so that they do not mix with the windows.
    most = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    output = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
    os.dup2(2, 1)
    files = [os.fsdecode(path) for path in sys.stdin.buffer.read().split(b"\0") if path]
    main(sys.argv[1], files, output)
    output.close()
