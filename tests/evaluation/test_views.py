"""Test views by hand."""

import cv2
import numpy as np
import pytest

from spp_jax.evaluation import views


def _columns(height, width):
    return np.tile(np.arange(width, dtype=np.uint8)[None, :, None], (height, 1, 3))


def _encode(image):
    return cv2.imencode(".png", image)[1].tobytes()


def test_center_is_the_middle_of_the_resized_image():
    data = _encode(_columns(20, 60))
    found = views.View("center", 20, 10)(data, "columns")
    np.testing.assert_array_equal(found, _columns(20, 60)[5:15, 25:35])


@pytest.mark.parametrize(
    ("shape", "expected"), [((20, 60), (10, 30)), ((60, 21), (29, 10)), ((5, 5), (10, 10))]
)
def test_full_keeps_the_aspect(shape, expected):
    assert views.View("full", 10, 8)(_encode(_columns(*shape)), "x").shape == (*expected, 3)


def test_warp_gives_it_up():
    assert views.View("warp", 10, 8)(_encode(_columns(20, 60)), "x").shape == (8, 8, 3)


def test_canvas_rounds_both_sides_up():
    assert views.canvas(64, 65, 32) == (64, 96)
    assert views.canvas(1, 33, 1) == (1, 33)
