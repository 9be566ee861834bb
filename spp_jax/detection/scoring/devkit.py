"""VOC's detections files: comp4_det_SPLIT_CLASS.txt, one line "ID SCORE X1 Y1 X2 Y2" per detection.

Corners in the files are counted from 1, right and bottom inclusive. Boxes of this package are
counted from 0, right and bottom exclusive, so only x1 and y1 differ, by one.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from spp_jax import errors
from spp_jax.data.sources import image_sets
from spp_jax.detection import boxes
from spp_jax.detection.scoring import mean_ap
from spp_jax.runs import files


def file_name(split: str, class_name: str) -> str:
    """Returns the name of a class's file, with the class's name escaped as by `files.escape`."""
    return files.escape(f"comp4_det_{split}_{class_name}") + ".txt"


def write(
    folder: str,
    split: str,
    image_ids: Sequence[str],
    detections: Mapping[str, mean_ap.Detections],
) -> None:
    """Writes one file per class, best detections first.

    Args:
        folder: gets the files.
        split: of the images.
        image_ids: of all images; a detection's `image` is an index in them.
        detections: by class.
    """
    for name, of_class in detections.items():
        order = np.argsort(-of_class.scores, kind="stable")
        path = os.path.join(folder, file_name(split, name))
        with files.replacing(path, "w") as f:
            for i in order.tolist():
                x1, y1, x2, y2 = of_class.boxes[i]
                f.write(
                    f"{image_ids[int(of_class.image[i])]} {of_class.scores[i]:.6f} "
                    f"{x1 + 1:.3f} {y1 + 1:.3f} {x2:.3f} {y2:.3f}\n"
                )


def read(
    folder: str, split: str, image_ids: Sequence[str], class_names: Sequence[str]
) -> dict[str, mean_ap.Detections]:
    """Returns the detections of each class that has a file, by class.

    Args:
        folder: with files named as `file_name` says.
        split: of the images.
        image_ids: of all images; a detection's `image` is an index in them.
        class_names: the classes whose files are read.

    Raises:
        InputError: no class has a file, an image is not in the split, a line is no detection, or a
            file's boxes are not corners in pixels.
    """
    if not os.path.isdir(folder):
        raise errors.InputError(
            f"{folder}: no such folder; it is to hold {file_name(split, 'CLASS')}"
        )
    index = {image_id: i for i, image_id in enumerate(image_ids)}
    detections = {}
    for name in class_names:
        path = os.path.join(folder, file_name(split, name))
        if os.path.exists(path):
            detections[name] = _read_file(path, index, split)
    if not detections:
        raise errors.InputError(
            f"{folder} holds no {file_name(split, 'CLASS')} of {', '.join(class_names)}"
        )
    return detections


def _read_file(path: str, index: Mapping[str, int], split: str) -> mean_ap.Detections:
    try:
        lines = files.read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InputError(f"{path} cannot be read: {e}") from e
    # An id may have spaces in it.
    rows = [(number, line.rsplit(None, 5)) for number, line in enumerate(lines, start=1)]
    rows = [(number, row) for number, row in rows if row]
    values = np.zeros((len(rows), 5))
    image = np.zeros(len(rows), np.int64)
    quoted = [f"{path}:{number}: {' '.join(row)[:80]!r}" for number, row in rows]
    for i, (number, row) in enumerate(rows):
        try:
            _, a, b, c, d, e = row
            values[i] = a, b, c, d, e
        except ValueError as error:  # too few, or no number
            raise errors.InputError(f"{quoted[i]} is not an image id and 5 numbers") from error
        image_id = row[0] if row[0] in index else image_sets.match(row[0].strip(), index)
        if image_id is None:
            raise errors.InputError(f"{path}:{number}: image {row[0]} is not in split {split}")
        image[i] = index[image_id]
    is_finite = np.isfinite(values).all(axis=1)
    if not is_finite.all():
        raise errors.InputError(f"{quoted[int(np.argmin(is_finite))]} is no number")
    _check_corners(values[:, 1:], path, quoted)
    return mean_ap.Detections(image, values[:, 0], values[:, 1:] - [1, 1, 0, 0])


# With inclusive corners a box of no width, such as one cut at the side of its image, ends one pixel
# before it begins; a larger difference is not due to rounding.
_EMPTY = 1.01


def _check_corners(corners: np.ndarray, path: str, quoted: Sequence[str]) -> None:
    """Raises InputError if rows (D, 4) of a file are not x1, y1, x2, y2 in pixels.

    Args:
        corners: (D, 4).
        path: of the file.
        quoted: for each row, its place and text, which errors name.
    """
    form = "VOC's rows are ID SCORE X1 Y1 X2 Y2, in pixels counted from 1"
    is_turned = (corners[:, 2:] < corners[:, :2] - _EMPTY).any(axis=1)
    if is_turned.any():
        first, count = quoted[int(np.argmax(is_turned))], int(is_turned.sum())
        raise errors.InputError(
            f"{first} has x2 < x1 or y2 < y1, as have {count} of {len(corners)} rows there: "
            f"{form}, not X Y WIDTH HEIGHT"
        )
    # Shares may reach a little beyond 0 to 1, as boxes may beyond their image; x1 and y1 stay below
    # 1, where no pixel has its left edge.
    is_share = (corners > -0.1) & (corners < [1, 1, 1.1, 1.1])
    if len(corners) and is_share.all() and (corners % 1 > 0).any():
        raise errors.InputError(
            f"{path} has all of its {len(corners)} boxes between 0 and 1, as shares of the image's "
            f"sides: {form}"
        )


def check_outside(
    detections: Mapping[str, mean_ap.Detections],
    limits: Mapping[int, tuple[float, float]],
    image_ids: Sequence[str],
) -> str:
    """Returns a sentence about boxes that lie by more than half outside their image, or "".

    Args:
        detections: by class.
        limits: {index: (height, width)} of the images whose size is known.
        image_ids: of all images.

    Raises:
        InputError: many boxes reach beyond their images, and none would with x and y swapped.
    """
    count, total, first, beyond, swapped = 0, 0, "", 0, 0
    sides = np.full((len(image_ids), 4), np.inf)  # no box is outside an image of unknown size
    for i, (height, width) in limits.items():
        sides[i] = width, height, width, height
    for name, of_class in detections.items():
        image, corners = of_class.image, of_class.boxes
        inside = boxes.area(np.clip(corners, 0, sides[image]))
        is_outside = inside < 0.5 * boxes.area(corners)
        if is_outside.any() and not first:
            first = f"{image_ids[image[int(np.argmax(is_outside))]]} of class {name}"
        count, total = count + int(is_outside.sum()), total + len(is_outside)
        image_sides = sides[image, :2]
        beyond += int(boxes.reaches_beyond(corners, image_sides).sum())
        swapped += int(boxes.reaches_beyond(corners[:, [1, 0, 3, 2]], image_sides).sum())
    if boxes.are_swapped(total, beyond, swapped):
        raise errors.InputError(
            f"{beyond} of {total} boxes reach beyond their image, but none would with x and y "
            "swapped: VOC's rows are ID SCORE X1 Y1 X2 Y2"
        )
    if not count:
        return ""
    return (
        f"{count} of {total} boxes lie for more than half outside their image, the first in image "
        f"{first}: are they in pixels of these images?"
    )
