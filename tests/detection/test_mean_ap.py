"""VOC's average precision: by hand, against the devkit's loop, and a published fixture."""

import pathlib

import numpy as np
import pytest

from spp_jax.commands import tables
from spp_jax.detection import boxes
from spp_jax.detection.scoring import mean_ap

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


def devkit_loop(detections, truth, min_iou=0.5):
    """Returns 1 or 0 for each detection that counts, one after the other, as the devkit does."""
    matched, right = set(), []
    for i in np.argsort(-detections.scores, kind="stable"):
        rows = np.flatnonzero(truth.image == detections.image[i])
        overlap = (
            boxes.iou(detections.boxes[i][None], truth.boxes[rows])[0] if len(rows) else np.zeros(0)
        )
        if not len(rows) or overlap.max() < min_iou:
            right.append(0)
            continue
        row = rows[overlap.argmax()]
        if truth.is_difficult[row]:
            continue
        right.append(int(row not in matched))
        matched.add(row)
    return right


def _truth(image, corners, difficult=None):
    difficult = [False] * len(image) if difficult is None else difficult
    return mean_ap.Truth(
        np.asarray(image), np.asarray(corners, float).reshape(-1, 4), np.asarray(difficult, bool)
    )


def _detections(image, scores, corners):
    return mean_ap.Detections(np.asarray(image), np.asarray(scores), np.asarray(corners, float))


def test_duplicates_are_wrong_and_difficult_objects_ignored():
    truth = _truth([0, 0, 1], [(0, 0, 10, 10), (20, 20, 30, 30), (0, 0, 8, 8)], [0, 1, 0])
    detections = _detections(
        [0, 0, 0, 1, 2],
        [0.9, 0.8, 0.7, 0.6, 0.5],
        [(0, 0, 10, 10), (0, 0, 10, 9), (20, 20, 30, 30), (0, 0, 8, 8), (0, 0, 8, 8)],
    )
    curve = mean_ap.score(detections, truth)
    # Right, duplicate, (difficult), right, no such image: 2 objects to find.
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2])
    np.testing.assert_allclose(curve.recall, [0.5, 0.5, 1, 1])
    # Recalls 0 to 0.5: 1; 0.6 to 1: 2/3.
    assert curve.ap_11point == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert curve.ap_area == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_half_an_overlap_is_enough():
    truth = _truth([0], [(0, 0, 10, 10)])
    assert mean_ap.score(_detections([0], [1.0], [(0, 0, 5, 10)]), truth).ap_11point == 1
    assert mean_ap.score(_detections([0], [1.0], [(0, 0, 4.9, 10)]), truth).ap_11point == 0


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_devkits_loop(seed):
    rng = np.random.default_rng(seed)

    def draw(count):
        corner = rng.integers(0, 12, (count, 2))
        return np.concatenate([corner, corner + rng.integers(3, 9, (count, 2))], axis=1)

    truth = _truth(rng.integers(0, 8, 30), draw(30), rng.random(30) < 0.2)
    detections = _detections(rng.integers(0, 9, 200), rng.integers(0, 20, 200) / 20, draw(200))
    right = np.asarray(devkit_loop(detections, truth))
    curve = mean_ap.score(detections, truth)
    np.testing.assert_allclose(curve.precision, np.cumsum(right) / np.arange(1, len(right) + 1))
    np.testing.assert_allclose(curve.recall, np.cumsum(right) / np.sum(~truth.is_difficult))


def test_a_class_without_objects_is_not_in_the_mean():
    truth = {"cat": _truth([0], [(0, 0, 4, 4)]), "dog": _truth([0], [(0, 0, 4, 4)], [1])}
    detections = {"cat": _detections([0], [1.0], [(0, 0, 4, 4)])}
    result = mean_ap.result(mean_ap.score_all(detections, truth))
    assert result["map_11point"] == result["map_area"] == 1
    assert result["ap_11point"] == {"cat": 1.0, "dog": None}
    assert result["recall"] == {"cat": 1.0, "dog": None}
    assert "| dog | - | - | - | 0 |" in tables.of_detections(result)


def test_no_detection_and_no_object_is_no_error():
    curve = mean_ap.score(mean_ap.NONE, _truth([], []))
    assert (curve.ap_11point, curve.ap_area, curve.num_objects) == (0, 0, 0)
    wrong = mean_ap.score(_detections([0], [1.0], [(0, 0, 4, 4)]), _truth([], []))
    assert wrong.precision.tolist() == [0]


FIXTURE = SHARED / "map_fixture" / "test_case_1"


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="shared/data/map_fixture is not here")
@pytest.mark.parametrize(
    ("min_iou", "eleven", "area"),
    [
        (0.1, 0.3333333333, 0.3371980676),
        (0.3, 0.2683982683, 0.2456866804),
        (0.5, 0.0303030303, 0.0222222222),
        (0.75, 0.0, 0.0),
    ],
)
def test_a_published_fixture(min_iou, eleven, area):
    def read(kind, first):
        image, rows = [], []
        for number, path in enumerate(sorted((FIXTURE / kind).glob("*.txt"))):
            for line in path.read_text().splitlines():
                rows.append([float(v) for v in line.split()[1:]])
                image.append(number)
        rows = np.asarray(rows)
        x, y, width, height = rows[:, first:].T
        # Corners x and x + width are both inclusive pixels there.
        return np.asarray(image), rows, np.stack([x, y, x + width + 1, y + height + 1], axis=1)

    image, _, corners = read("gts", 0)
    truth = _truth(image, corners)
    image, rows, corners = read("dets", 1)
    curve = mean_ap.score(_detections(image, rows[:, 0], corners), truth, min_iou)
    assert curve.ap_11point == pytest.approx(eleven, abs=1e-10)
    assert curve.ap_area == pytest.approx(area, abs=1e-10)
