"""Overlap and deltas by hand, and NMS against the greedy loop over sorted boxes."""

import numpy as np
import pytest

from spp_jax.detection import boxes


def greedy(candidates, scores, iou_threshold, score_threshold, max_kept):
    """Returns rows, best first, by the loop over one class, as VOC's codes have it."""
    rows = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] > score_threshold and all(
            boxes.iou(candidates[i][None], candidates[j][None])[0, 0] <= iou_threshold for j in rows
        ):
            rows.append(int(i))
    return rows[:max_kept]


def test_overlap_counts_pixels():
    # 1-based inclusive corners (1, 1, 2, 2) and (2, 2, 3, 3): one of 4 + 4 - 1 pixels is shared.
    a, b = np.asarray([[0.0, 0, 2, 2]]), np.asarray([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(boxes.iou(a, b), [[1 / 7, 1, 0]])
    assert boxes.area(np.asarray([[0, 0, 3, 2], [4, 4, 2, 9]])).tolist() == [6, 0]


def test_empty_boxes_overlap_nothing():
    empty = np.asarray([[2.0, 2, 2, 5]])
    assert boxes.iou(empty, empty).tolist() == [[0]]
    assert boxes.iou(np.zeros((0, 4)), empty).shape == (0, 1)


def test_deltas_by_hand():
    window, wanted = np.asarray([[0.0, 0, 10, 20]]), np.asarray([[5.0, 0, 25, 20]])
    deltas = boxes.encode_deltas(window, wanted)
    # The centre moves by 10 of 10 pixels; the width doubles.
    np.testing.assert_allclose(deltas, [[1, 0, np.log(2), 0]])


def test_decoding_undoes_encoding():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (9, 2))
    windows = np.concatenate([corner, corner + rng.uniform(5, 50, (9, 2))], axis=1)
    wanted = windows + rng.uniform(-2, 2, (9, 4))
    deltas = boxes.encode_deltas(windows, wanted).astype(np.float32)
    decoded = boxes.decode_deltas(windows.astype(np.float32), deltas[:, None])
    np.testing.assert_allclose(decoded[:, 0], wanted, atol=1e-3)  # float32 of up to 100 pixels


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_nms_equals_the_greedy_loop(seed, per_class):
    rng = np.random.default_rng(seed)
    num_boxes, num_classes, max_kept = 120, 3, 25
    corner = rng.integers(0, 40, (num_boxes, num_classes if per_class else 1, 2))
    sides = rng.integers(1, 30, corner.shape)
    candidates = np.concatenate([corner, corner + sides], axis=-1).astype(np.float32)
    # Few distinct scores: ties must fall as a stable sort has them.
    scores = rng.integers(-3, 12, (num_boxes, num_classes)).astype(np.float32)
    selection = boxes.nms(
        candidates if per_class else candidates[:, 0],
        scores,
        iou_threshold=0.3,
        score_threshold=-1.5,
        max_kept=max_kept,
    )
    for k in range(num_classes):
        of_class = candidates[:, k if per_class else 0].astype(np.float64)
        expected = greedy(of_class, scores[:, k], 0.3, -1.5, max_kept)
        assert np.asarray(selection.row[k])[np.asarray(selection.is_kept[k])].tolist() == expected


def test_a_class_may_keep_nothing_and_a_box_on_the_threshold_stays():
    # The second overlaps the first by exactly 1/3, the third by 1/2.
    candidates = np.asarray([[0, 0, 4, 1], [2, 0, 6, 1], [0, 0, 2, 1]], np.float32)
    scores = np.asarray([[3, -9], [2, -9], [1, -9]], np.float32)
    selection = boxes.nms(candidates, scores, iou_threshold=1 / 3, score_threshold=-1.5, max_kept=4)
    assert np.asarray(selection.is_kept).tolist() == [[True, True, False, False], [False] * 4]
    assert np.asarray(selection.row[0]).tolist() == [0, 1, 0, 0]
