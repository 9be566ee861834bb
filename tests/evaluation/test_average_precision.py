"""Average precision, worked by hand."""

import numpy as np
import pytest

from spp_jax.evaluation import average_precision


def test_by_hand():
    # Right at ranks 1, 3 and 4 of 5, of 4 to find: precision 1, 2/3, 3/4 at recall 1/4, 2/4, 3/4.
    curve = average_precision.precision_recall(np.array([1, 0, 1, 1, 0], bool), 4)
    np.testing.assert_allclose(curve[0], [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(curve[1], [1 / 4, 1 / 4, 2 / 4, 3 / 4, 3 / 4])
    # Recalls 0, .1, .2: 1; .3 to .7: 3/4, the best there is at no less recall; .8 to 1: 0.
    assert average_precision.eleven_point(*curve) == pytest.approx((3 + 5 * 0.75) / 11, abs=1e-12)
    assert average_precision.area(*curve) == pytest.approx(0.25 * (1 + 0.75 + 0.75), abs=1e-12)


def test_what_is_difficult_is_not_there():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    with_it = average_precision.of_scores(scores, np.array([0, 1, -1, 1]))
    assert with_it == average_precision.of_scores(scores[1:], np.array([1, -1, 1]))
    # Precision 1 up to recall 1/2 (six of eleven points), then 2/3.
    assert with_it == pytest.approx(((6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2), abs=1e-12)


def test_perfect_and_hopeless():
    scores = np.array([3.0, 2.0, 1.0])
    assert average_precision.of_scores(scores, np.array([1, 1, -1])) == (1.0, 1.0)
    assert average_precision.of_scores(scores, np.array([-1, -1, -1])) == (0.0, 0.0)
    assert average_precision.of_scores(np.zeros(0), np.zeros(0)) == (0.0, 0.0)


def test_tenths_are_those_of_the_python_evaluations():
    # Ten found in order: each recall i/10 is met by rank i, but for .3, .6 and .7: as in
    # np.arange(0, 1.1, 0.1) they are a little more.
    is_right = np.array([True] * 3 + [False] * 7 + [True] * 7)
    curve = average_precision.precision_recall(is_right, 10)
    assert average_precision.eleven_point(*curve) == pytest.approx((3 + 8 * 10 / 17) / 11)
