"""VOC's detections files: comp4_det_SPLIT_CLASS.txt, a line "ID SCORE X1 Y1 X2 Y2" a detection.

Corners there are counted from 1, right and bottom inclusive; here boxes are counted from 0, right
and bottom exclusive, so only x1 and y1 differ, by one.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from spp_jax import errors, files
from spp_jax.detection import mean_ap


def file_name(split: str, class_name: str) -> str:
    """Returns the name of a class's file."""
    return f"comp4_det_{split}_{class_name}.txt"


def _check_name(class_name: str) -> None:
    if os.path.basename(class_name) != class_name:
        raise errors.InputError(f"class {class_name!r} cannot be part of a file's name")


def write(
    folder: str,
    split: str,
    image_ids: Sequence[str],
    detections: Mapping[str, mean_ap.Detections],
) -> None:
    """Writes a file a class, best detections first.

    Args:
        folder: where.
        split: of the images.
        image_ids: of the images that detections count.
        detections: by class.
    """
    for name, found in detections.items():
        _check_name(name)
        order = np.argsort(-found.scores, kind="stable")
        path = os.path.join(folder, file_name(split, name))
        with files.replacing(path, "w") as f:
            for i in order.tolist():
                x1, y1, x2, y2 = found.boxes[i]
                f.write(
                    f"{image_ids[int(found.image[i])]} {found.scores[i]:.6f} "
                    f"{x1 + 1:.3f} {y1 + 1:.3f} {x2:.3f} {y2:.3f}\n"
                )


def read(
    folder: str, split: str, image_ids: Sequence[str], class_names: Sequence[str]
) -> dict[str, mean_ap.Detections]:
    """Reads the files of the classes that have one.

    Raises:
        InputError: no class has one, an image is not of the split, or a line is no detection.
    """
    if not os.path.isdir(folder):
        raise errors.InputError(f"--detections={folder}: no such folder")
    index = {image_id: i for i, image_id in enumerate(image_ids)}
    found = {}
    for name in class_names:
        path = os.path.join(folder, file_name(split, name))
        if os.path.exists(path):
            found[name] = _read_file(path, index, split)
    if not found:
        raise errors.InputError(
            f"{folder} holds no {file_name(split, 'CLASS')} of {', '.join(class_names)}"
        )
    return found


def _read_file(path: str, index: Mapping[str, int], split: str) -> mean_ap.Detections:
    try:
        with open(path, encoding="utf-8") as f:
            rows = [(number, line.split()) for number, line in enumerate(f, start=1)]
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InputError(f"{path} cannot be read: {e}") from e
    rows = [(number, row) for number, row in rows if row]
    values = np.zeros((len(rows), 5))
    image = np.zeros(len(rows), np.int64)
    for i, (number, row) in enumerate(rows):
        shown = f"{path}:{number}: {' '.join(row)[:80]!r}"
        if len(row) != 6:
            raise errors.InputError(f"{shown} is not an image id and 5 numbers")
        try:
            values[i] = row[1:]
        except ValueError as e:
            raise errors.InputError(f"{shown} is not an image id and 5 numbers") from e
        if not np.isfinite(values[i]).all():
            raise errors.InputError(f"{shown} is no number")
        if row[0] not in index:
            raise errors.InputError(f"{path}:{number}: image {row[0]} is not in split {split}")
        image[i] = index[row[0]]
    return mean_ap.Detections(image, values[:, 0], values[:, 1:] - [1, 1, 0, 0])
