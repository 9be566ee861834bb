"""Resizing and crops, by literals and by what must not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spp_jax.canvas import arithmetic
from spp_jax.data import images
from tests.data.pictures import PHOTO, max_difference


def rows(*values: list[int]) -> np.ndarray:
    """Grey pixels as an RGB image."""
    return np.repeat(np.array(values, np.uint8)[:, :, np.newaxis], 3, axis=2)


def test_resize_literals():
    square = rows([0, 100, 10, 20], [100, 200, 30, 40])
    np.testing.assert_array_equal(images.resize(square, 1, 2), rows([100, 25]))
    np.testing.assert_array_equal(images.resize(square, 2, 2), rows([50, 15], [150, 35]))
    # Linear, pixel centres aligned: the new centres lie at -1/4, 1/4, 3/4, 5/4.
    np.testing.assert_array_equal(images.resize(rows([0, 100]), 1, 4), rows([0, 25, 75, 100]))
    # One side shrinks by areas, then the other grows.
    np.testing.assert_array_equal(
        images.resize(rows([0, 100, 200, 100]), 2, 2), rows([50, 150], [50, 150])
    )
    np.testing.assert_array_equal(
        images.resize(rows([0], [100], [200], [100]), 2, 2), rows([50, 50], [150, 150])
    )


def test_resize_to_the_same_size_is_the_image():
    assert images.resize(PHOTO, 60, 90) is PHOTO
    assert images.resize_shorter(PHOTO, 60) is PHOTO


def test_resize_does_not_alias():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for height in (16, 64, 100):
        small = images.resize(stripes, height, 16)
        assert max_difference(small, np.full((height, 16, 3), 128)) <= 1


@settings(max_examples=50, deadline=None)
@given(
    factors=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_shrinking_by_whole_factors_is_the_block_mean(factors, shape, seed):
    (fy, fx), (height, width) = factors, shape
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height * fy, width * fx, 3), dtype=np.uint8)
    mean = image.reshape(height, fy, width, fx, 3).mean(axis=(1, 3))
    # Half a level of rounding, and up to one more where OpenCV rounds halves otherwise.
    assert np.abs(images.resize(image, height, width) - mean).max() <= 1


@settings(max_examples=50, deadline=None)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    level=st.integers(0, 255),
)
def test_resize_keeps_a_flat_image_flat(old, new, level):
    image = images.resize(np.full((*old, 3), level, np.uint8), *new)
    np.testing.assert_array_equal(image, np.full((*new, 3), level))


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((300, 400), 150, (150, 200)),
        ((400, 300), 150, (200, 150)),
        ((500, 375), 256, (341, 256)),  # 341.33
        ((375, 500), 224, (224, 299)),  # 298.67
        ((2, 5), 1, (1, 3)),  # 2.5
        ((2, 3), 256, (256, 384)),
        ((7, 7), 5, (5, 5)),
    ],
)
def test_resize_shorter_literals(shape, side, expected):
    image = images.resize_shorter(np.zeros((*shape, 3), np.uint8), side)
    assert image.shape == (*expected, 3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40))
def test_resize_shorter_keeps_the_aspect(height, width, side):
    new = images.resize_shorter(np.zeros((height, width, 3), np.uint8), side).shape[:2]
    assert min(new) == side
    for now, before in zip(new, (height, width)):
        assert abs(now - before * side / min(height, width)) <= 0.5


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_resize_refuses_empty_sizes(size):
    with pytest.raises(ValueError, match=f"got {size[0]}x{size[1]}"):
        images.resize(PHOTO, *size)
    with pytest.raises(ValueError, match="at least 1"):
        images.resize_shorter(PHOTO, 0)


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 1), (5, 5, 4), (1, 5, 5, 3), (0, 5, 3)])
def test_functions_refuse_what_is_no_image(shape):
    array = np.zeros(shape, np.uint8)
    for function in (
        lambda: images.resize(array, 2, 2),
        lambda: images.resize_shorter(array, 2),
        lambda: images.crop(array, 0, 0, 1, 1),
        lambda: images.center_crop(array, 1),
    ):
        with pytest.raises(ValueError, match=r"\(H, W, 3\), got"):
            function()


def test_crop_literals():
    grid = rows(*np.arange(20).reshape(4, 5).tolist())
    np.testing.assert_array_equal(images.crop(grid, 1, 2, 2, 3), rows([7, 8, 9], [12, 13, 14]))
    np.testing.assert_array_equal(images.center_crop(grid, 2), rows([6, 7], [11, 12]))
    np.testing.assert_array_equal(images.crop(grid, 0, 0, 4, 5), grid)
    assert np.shares_memory(images.crop(grid, 1, 2, 2, 3), grid)


@pytest.mark.parametrize(
    "box", [(-1, 0, 2, 2), (0, -1, 2, 2), (3, 0, 2, 2), (0, 4, 2, 2), (0, 0, 0, 2), (0, 0, 2, -1)]
)
def test_crop_never_pads(box):
    with pytest.raises(ValueError, match="does not fit an image of 4x5"):
        images.crop(np.zeros((4, 5, 3), np.uint8), *box)


def test_center_crop_never_pads():
    with pytest.raises(ValueError, match="a 5x5 crop does not fit an image of 4x5"):
        images.center_crop(np.zeros((4, 5, 3), np.uint8), 5)


def test_five_crops():
    origins = [arithmetic.five_crop_origin(5, 8, 3, position) for position in range(5)]
    assert origins == [(1, 2), (0, 0), (0, 5), (2, 0), (2, 5)]
    # The corners are the whole image's: the far ones touch both its far edges.
    assert arithmetic.five_crop_origin(256, 341, 224, 4) == (32, 117)
    assert {arithmetic.five_crop_origin(7, 7, 7, position) for position in range(5)} == {(0, 0)}
    with pytest.raises(ValueError, match="got 5"):
        arithmetic.five_crop_origin(5, 8, 3, 5)
    with pytest.raises(ValueError, match="got -1"):
        arithmetic.five_crop_origin(5, 8, 3, -1)
    with pytest.raises(ValueError, match="a 6x6 crop does not fit an image of 5x8"):
        arithmetic.five_crop_origin(5, 8, 6, 0)
    with pytest.raises(ValueError, match="a 0x0 crop"):
        arithmetic.five_crop_origin(5, 8, 0, 0)
