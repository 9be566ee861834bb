"""Test views by hand."""

import cv2
import numpy as np
import pytest

from spp_jax.canvas import arithmetic
from spp_jax.evaluation import protocols


def _columns(height, width):
    return np.tile(np.arange(width, dtype=np.uint8)[None, :, None], (height, 1, 3))


def _encode(image):
    return cv2.imencode(".png", image)[1].tobytes()


def test_center_is_the_middle_of_the_resized_image():
    data = _encode(_columns(20, 60))
    view = protocols.Protocol("center", 20, 10)(data, "columns")[0]
    np.testing.assert_array_equal(view, _columns(20, 60)[5:15, 25:35])


@pytest.mark.parametrize(
    ("shape", "expected"), [((20, 60), (10, 30)), ((60, 21), (29, 10)), ((5, 5), (10, 10))]
)
def test_full_keeps_the_aspect(shape, expected):
    assert protocols.Protocol("full", 10, 8)(_encode(_columns(*shape)), "x")[0].shape == (
        *expected,
        3,
    )


def test_warp_gives_it_up():
    assert protocols.Protocol("warp", 10, 8)(_encode(_columns(20, 60)), "x")[0].shape == (8, 8, 3)


def test_canvas_rounds_both_sides_up():
    assert arithmetic.round_up(64, 65, 32) == (64, 96)
    assert arithmetic.round_up(1, 33, 1) == (1, 33)


def test_ten_view_crops_the_corners_of_the_whole_image():
    views = protocols.Protocol("ten_view", 20, 10)(_encode(_columns(20, 60)), "x")
    assert [int(x[0, 0, 0]) for x in views] == [25, 0, 50, 0, 50]


def test_multi_view_shows_each_scale_once():
    protocol = protocols.Protocol("multi_view", 12, 10, (10, 12, 20), has_full_views=True)
    assert [x.shape[:2] for x in protocol(_encode(_columns(20, 60)), "x")] == [
        (10, 30),
        (12, 36),
        (20, 60),
    ]
    alone = protocols.Protocol("multi_view", 16, 10, (10, 12), has_full_views=True)
    assert alone.shown_scales == (10, 12, 16)
    assert protocols.Protocol("multi_view", 16, 10, (12,)).shown_scales == (12,)


@pytest.mark.parametrize(
    ("height", "width", "positions", "expected"),
    [
        (10, 30, 9, [(10, 0), (0, 0), (20, 0)]),
        (31, 10, 5, [(0, 10), (0, 0), (0, 21)]),
        (10, 10, 9, [(0, 0)] * 3),
        (20, 30, 5, [(10, 5), (0, 0), (20, 0), (0, 10), (20, 10)]),
        (
            *(20, 30, 9),
            [(10, 5), (0, 5), (20, 5), (10, 0), (0, 0), (20, 0), (10, 10), (0, 10), (20, 10)],
        ),
    ],
)
def test_view_windows(height, width, positions, expected):
    views = protocols.view_windows(height, width, 10, positions)
    np.testing.assert_array_equal(views, [(x, y, x + 10, y + 10) for x, y in expected])
