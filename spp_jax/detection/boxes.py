"""Boxes: areas, overlap, deltas, and non-maximum suppression (NMS) on the device.

Shapes: R boxes or windows · K classes · M boxes that NMS keeps per class, padded. Boxes are
(x1, y1, x2, y2) in image pixels, right and bottom exclusive, so that a width is x2 - x1: VOC's
"+ 1" is in the coordinates already. Deltas are (dx, dy, dw, dh): the way from a window's centre to
a box's centre, in widths and heights of the window, and the logarithms of the ratios of the box's
width and height to the window's.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas (...) of boxes (..., 4); 0 where a box is empty."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union, (R, S), of each of (R, 4) with each of (S, 4) boxes.

    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    upper = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(lower - upper, 0), axis=-1)
    total = area(boxes)[:, None] + area(others)[None] - shared
    return shared / np.maximum(total, np.finfo(np.float64).tiny)


def clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns boxes (..., 4) cut off at the sides of an image, pixels."""
    return np.clip(boxes, 0, [width, height, width, height])


def reaches_beyond(boxes: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Returns a mask (R,) of the boxes that leave their image by more than a pixel.

    Rounding may move a side by up to a pixel, so that much does not count.

    Args:
        boxes: (R, 4), of any images.
        sides: (R, 2) or (2,), the (width, height) of the images.
    """
    return np.any((boxes < -1) | (boxes > np.tile(sides, 2) + 1), axis=1)


def are_swapped(num_boxes: int, num_beyond: int, num_beyond_swapped: int) -> bool:
    """Returns whether x and y of all boxes are swapped.

    They are if many boxes reach beyond their image, and none would with x and y exchanged. Many is
    more than a twentieth, which careless annotation does not reach.

    Args:
        num_boxes: of all images.
        num_beyond: number of boxes that reach beyond their image.
        num_beyond_swapped: number of boxes that would with x and y exchanged.
    """
    return num_beyond > 0.05 * num_boxes and not num_beyond_swapped


def encode_deltas(windows: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Returns the deltas (R, 4) that lead from windows (R, 4) to objects (R, 4)."""
    sides, wanted = windows[:, 2:] - windows[:, :2], objects[:, 2:] - objects[:, :2]
    shift = (objects[:, :2] + wanted / 2 - windows[:, :2] - sides / 2) / sides
    return np.concatenate([shift, np.log(wanted / sides)], axis=1)


def decode_deltas(windows: jax.Array | np.ndarray, deltas: jax.Array | np.ndarray) -> jax.Array:
    """Returns the boxes (R, K, 4) to which deltas (R, K, 4) lead from windows (R, 4)."""
    sides = (windows[:, 2:] - windows[:, :2])[:, None]
    centers = windows[:, None, :2] + sides / 2 + deltas[..., :2] * sides
    halves = jnp.exp(deltas[..., 2:]) * sides / 2
    return jnp.concatenate([centers - halves, centers + halves], axis=-1)


class Selection(NamedTuple):
    """The boxes that NMS keeps of each class, best first.

    Attributes:
        row: (K, M) int32 row of each box among those given; 0 in the places after the last box.
        is_kept: (K, M) which places hold a box.
    """

    row: jax.Array
    is_kept: jax.Array


@functools.partial(jax.jit, static_argnames=("max_kept",))
def nms(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_kept: int,
) -> Selection:
    """Returns the boxes that greedy non-maximum suppression keeps, for all classes at once.

    Each round takes the best remaining box of each class and drops all boxes that overlap it by
    more than `iou_threshold`. So there are as many rounds as boxes in the class that keeps most.
    The result is that of the usual loop over sorted boxes; of equal scores the first is taken.

    >>> boxes = jnp.array([[0.0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10]])
    >>> scores = jnp.array([[0.5], [0.9], [0.7]])
    >>> selection = nms(boxes, scores, iou_threshold=0.3, score_threshold=0.0, max_kept=3)
    >>> selection.row.tolist(), selection.is_kept.tolist()
    ([[1, 2, 0]], [[True, True, False]])

    Args:
        boxes: (R, 4), or (R, K, 4) where each class has its own.
        scores: (R, K); only boxes with scores above `score_threshold` take part.
        iou_threshold: 0 to 1; section 4.1 uses 0.3.
        score_threshold: any number, -inf for all boxes.
        max_kept: M, the most boxes to keep per class.
    """
    num_classes = scores.shape[1]
    per_class = boxes[:, None] if boxes.ndim == 2 else boxes
    # (4, K, R): rows of boxes last, where the loop is over long contiguous vectors.
    corners = jnp.broadcast_to(per_class, (scores.shape[0], num_classes, 4)).transpose(2, 1, 0)
    sizes = jnp.prod(jnp.maximum(corners[2:] - corners[:2], 0), axis=0)
    left = jnp.where(score_threshold < scores.T, scores.T, -jnp.inf)
    classes = jnp.arange(num_classes)

    def goes_on(carry):
        i, left, *_ = carry
        return (i < max_kept) & jnp.any(left > -jnp.inf)

    def take(carry):
        i, left, index, is_kept = carry
        best = jnp.argmax(left, axis=1)
        is_left = left[classes, best] > -jnp.inf
        box = corners[:, classes, best][..., None]
        sides = jnp.minimum(corners[2:], box[2:]) - jnp.maximum(corners[:2], box[:2])
        shared = jnp.prod(jnp.maximum(sides, 0), axis=0)
        # Compares products, not quotients, so that two empty boxes need no division by 0.
        total = sizes + sizes[classes, best][:, None] - shared
        drop = shared > iou_threshold * total
        left = jnp.where(drop, -jnp.inf, left).at[classes, best].set(-jnp.inf)
        index = index.at[:, i].set(jnp.where(is_left, best, 0).astype(jnp.int32))
        return i + 1, left, index, is_kept.at[:, i].set(is_left)

    index = jnp.zeros((num_classes, max_kept), jnp.int32)
    carry = (0, left, index, jnp.zeros((num_classes, max_kept), bool))
    _, _, index, is_kept = jax.lax.while_loop(goes_on, take, carry)
    return Selection(index, is_kept)
