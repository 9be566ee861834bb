"""Precision, recall and average precision of detections by PASCAL VOC's rules (section 4.1).

Shapes: D detections of a class · G objects of a class, in all images. Boxes are (x1, y1, x2, y2),
right and bottom exclusive.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spp_jax.detection import boxes as boxes_lib
from spp_jax.evaluation import average_precision


@dataclasses.dataclass(frozen=True)
class Truth:
    """The objects of a class in all images.

    Attributes:
        image: (G,) the index of each one's image.
        boxes: (G, 4).
        is_difficult: (G,) mask of the objects that are not scored.
    """

    image: np.ndarray
    boxes: np.ndarray
    is_difficult: np.ndarray


@dataclasses.dataclass(frozen=True)
class Detections:
    """The detections of a class in all images, in any order.

    Attributes:
        image: (D,) the index of each one's image.
        scores: (D,), higher is more certain.
        boxes: (D, 4).
    """

    image: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


NONE = Detections(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall of the detections of a class.

    Attributes:
        precision, recall: (n,) 0 to 1, after each of the n detections that count, best first.
        num_objects: number of objects that are not difficult.
    """

    precision: np.ndarray
    recall: np.ndarray
    num_objects: int

    @property
    def ap_11point(self) -> float:
        """VOC 2007's average precision, at 11 recalls; 0 to 1."""
        return average_precision.eleven_point(self.precision, self.recall)

    @property
    def ap_area(self) -> float:
        """The average precision of VOC since 2010, the area under the curve; 0 to 1."""
        return average_precision.area(self.precision, self.recall)


def score(detections: Detections, truth: Truth, min_iou: float = 0.5) -> Curve:
    """Returns the curve of a class: its detections, ranked by score, against its objects.

    A detection belongs to the object of its image that it overlaps most, if that is by `min_iou` or
    more. The best detection of an object is right; all others are wrong. Detections of difficult
    objects do not count at all, nor do these objects.
    """
    order = np.argsort(-detections.scores, kind="stable")
    image, ranked = detections.image[order], detections.boxes[order]
    nearest = np.full(len(order), -1)
    rows_of = _group(image)
    for number, objects in _group(truth.image).items():
        rows = rows_of.get(number)
        if rows is not None:
            overlap = boxes_lib.iou(ranked[rows], truth.boxes[objects])
            best = overlap.argmax(axis=1)
            is_near = overlap[np.arange(len(rows)), best] >= min_iou
            nearest[rows] = np.where(is_near, objects[best], -1)
    is_near = nearest >= 0
    is_ignored = is_near & truth.is_difficult[nearest] if len(truth.image) else ~is_near & False
    is_right = np.zeros(len(order), bool)
    near_rows = np.flatnonzero(is_near & ~is_ignored)
    # np.unique returns the first of several detections of an object, which is the best.
    is_right[near_rows[np.unique(nearest[near_rows], return_index=True)[1]]] = True
    num_objects = int(np.sum(~truth.is_difficult))
    curve = average_precision.precision_recall(is_right[~is_ignored], num_objects)
    return Curve(*curve, num_objects)


def score_all(
    detections: Mapping[str, Detections],
    truth: Mapping[str, Truth],
    min_iou: float = 0.5,
) -> dict[str, Curve]:
    """Returns {class: its curve} for every class of `truth`, also those without detections."""
    return {name: score(detections.get(name, NONE), truth[name], min_iou) for name in truth}


def result(curves: Mapping[str, Curve]) -> dict[str, Any]:
    """Returns the entries of a result's JSON; precisions and recalls are shares, 0 to 1.

    map_11point and map_area are means over the classes that have an object that is not difficult;
    for the other classes ap_11point, ap_area and recall are None.
    """
    scored = [c for c in curves.values() if c.num_objects]

    def of_each(value) -> dict[str, Any]:
        return {name: float(value(c)) if c.num_objects else None for name, c in curves.items()}

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        "map_11point": mean([c.ap_11point for c in scored]),
        "map_area": mean([c.ap_area for c in scored]),
        "ap_11point": of_each(lambda c: c.ap_11point),
        "ap_area": of_each(lambda c: c.ap_area),
        "recall": of_each(lambda c: c.recall[-1] if len(c.recall) else 0.0),
        "num_objects": {name: c.num_objects for name, c in curves.items()},
        "num_detections": {name: len(c.recall) for name, c in curves.items()},
    }


def _group(image: np.ndarray) -> dict[int, np.ndarray]:
    """Returns {image: its rows, in order}."""
    order = np.argsort(image, kind="stable")
    numbers, first = np.unique(image[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, first[1:]))) if len(order) else {}
