"""Overlap by hand, and suppression against the greedy loop over sorted boxes."""

import numpy as np
import pytest

from spp_jax.detection import boxes


def greedy(shown, scores, iou_threshold, score_threshold, max_kept):
    """The loop over one class, as VOC's codes have it; returns rows, best first."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] > score_threshold and all(
            boxes.iou(shown[i][None], shown[j][None])[0, 0] <= iou_threshold for j in kept
        ):
            kept.append(int(i))
    return kept[:max_kept]


def test_overlap_counts_pixels():
    # 1-based inclusive corners (1, 1, 2, 2) and (2, 2, 3, 3): one of 4 + 4 - 1 pixels is shared.
    a, b = np.asarray([[0.0, 0, 2, 2]]), np.asarray([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(boxes.iou(a, b), [[1 / 7, 1, 0]])
    assert boxes.area(np.asarray([[0, 0, 3, 2], [4, 4, 2, 9]])).tolist() == [6, 0]


def test_empty_boxes_overlap_nothing():
    empty = np.asarray([[2.0, 2, 2, 5]])
    assert boxes.iou(empty, empty).tolist() == [[0]]
    assert boxes.iou(np.zeros((0, 4)), empty).shape == (0, 1)


@pytest.mark.parametrize("has_own_boxes", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_suppression_equals_the_greedy_loop(seed, has_own_boxes):
    rng = np.random.default_rng(seed)
    num_boxes, num_classes, max_kept = 120, 3, 25
    corner = rng.integers(0, 40, (num_boxes, num_classes if has_own_boxes else 1, 2))
    sides = rng.integers(1, 30, corner.shape)
    found = np.concatenate([corner, corner + sides], axis=-1).astype(np.float32)
    # Few distinct scores: ties must fall as a stable sort has them.
    scores = rng.integers(-3, 12, (num_boxes, num_classes)).astype(np.float32)
    given = found if has_own_boxes else found[:, 0]
    kept = boxes.suppress(given, scores, iou_threshold=0.3, score_threshold=-1.5, max_kept=max_kept)
    for k in range(num_classes):
        own = found[:, k if has_own_boxes else 0].astype(np.float64)
        expected = greedy(own, scores[:, k], 0.3, -1.5, max_kept)
        assert np.asarray(kept.row[k])[np.asarray(kept.is_kept[k])].tolist() == expected


def test_a_class_may_keep_nothing_and_a_box_on_the_threshold_stays():
    # The second overlaps the first by exactly 1/3, the third by 1/2.
    found = np.asarray([[0, 0, 4, 1], [2, 0, 6, 1], [0, 0, 2, 1]], np.float32)
    scores = np.asarray([[3, -9], [2, -9], [1, -9]], np.float32)
    kept = boxes.suppress(found, scores, iou_threshold=1 / 3, score_threshold=-1.5, max_kept=4)
    assert np.asarray(kept.is_kept).tolist() == [[True, True, False, False], [False] * 4]
    assert np.asarray(kept.row[0]).tolist() == [0, 1, 0, 0]
