"""Boxes: overlap, and greedy suppression of all classes at once on the device.

Shapes: R windows · K classes. Boxes are (x1, y1, x2, y2) in image pixels, right and bottom
exclusive, so that a width is x2 - x1: VOC's "+ 1" is in the coordinates already.
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
    """Returns intersection over union of each box with each other: (R, 4), (S, 4) -> (R, S)."""
    upper = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(lower - upper, 0), axis=-1)
    total = area(boxes)[:, None] + area(others)[None] - shared
    return shared / np.maximum(total, np.finfo(np.float64).tiny)


def clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns boxes (..., 4) cut off at the sides of an image."""
    return np.clip(boxes, 0, [width, height, width, height])


def reaches_beyond(boxes: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Returns (R,): which boxes (R, 4) leave their image by more than a pixel, as rounding does.

    Args:
        boxes: of any images.
        sides: (R, 2) or (2,), the (width, height) of these.
    """
    return np.any((boxes < -1) | (boxes > np.tile(sides, 2) + 1), axis=1)


def are_swapped(num_boxes: int, num_beyond: int, num_beyond_swapped: int) -> bool:
    """Returns whether x and y must be swapped: many boxes reach beyond, and none would then.

    A twentieth is more than careless annotation leaves.
    """
    return num_beyond > 0.05 * num_boxes and not num_beyond_swapped


class Kept(NamedTuple):
    """What suppression keeps, best first.

    Attributes:
        row: (K, M) int32 which of the boxes; 0 where there are no more.
        is_kept: (K, M) whether there is one.
    """

    row: jax.Array
    is_kept: jax.Array


@functools.partial(jax.jit, static_argnames=("max_kept",))
def suppress(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_kept: int,
) -> Kept:
    """Greedy non-maximum suppression of every class at once, equal to the loop over sorted boxes.

    Takes the best box that is left, drops all that overlap it by more than `iou_threshold`, and
    goes on: as many rounds as boxes are kept in the class that keeps most, not as there are boxes.
    Of equal scores the first is taken.

    Args:
        boxes: (R, 4), or (R, K, 4) where each class has its own.
        scores: (R, K); only those above `score_threshold` take part.
        iou_threshold: section 4.1's 0.3.
        score_threshold: any number, -inf for all boxes.
        max_kept: M, most boxes to keep of a class.
    """
    num_classes = scores.shape[1]
    per_class = boxes[:, None] if boxes.ndim == 2 else boxes
    # (4, K, R): rows of windows last, where the loop is over long contiguous vectors.
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
        found = left[classes, best] > -jnp.inf
        box = corners[:, classes, best][..., None]
        sides = jnp.minimum(corners[2:], box[2:]) - jnp.maximum(corners[:2], box[:2])
        shared = jnp.prod(jnp.maximum(sides, 0), axis=0)
        # Of thresholds, not of quotients: also right where both boxes are empty.
        total = sizes + sizes[classes, best][:, None] - shared
        drop = shared > iou_threshold * total
        left = jnp.where(drop, -jnp.inf, left).at[classes, best].set(-jnp.inf)
        index = index.at[:, i].set(jnp.where(found, best, 0).astype(jnp.int32))
        return i + 1, left, index, is_kept.at[:, i].set(found)

    index = jnp.zeros((num_classes, max_kept), jnp.int32)
    carry = (0, left, index, jnp.zeros((num_classes, max_kept), bool))
    _, _, index, is_kept = jax.lax.while_loop(goes_on, take, carry)
    return Kept(index, is_kept)
