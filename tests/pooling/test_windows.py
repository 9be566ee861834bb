"""pool_windows: brute force over random windows, the whole map, empty windows, gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from spp_jax.pooling import pyramid, windows
from tests import hlo
from tests.pooling import reference

# One compilation a case in place of one an operation.
POOL_PYRAMID = jax.jit(pyramid.spatial_pyramid_pool)
POOL = jax.jit(windows.pool_windows, static_argnums=2, static_argnames=("levels", "reduce"))


def _random_windows(rng, count, height, width):
    x = np.sort(rng.integers(-3, width + 4, (count, 2)), axis=1)
    y = np.sort(rng.integers(-3, height + 4, (count, 2)), axis=1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.int32)


@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (1, 4, 3, 2), (5,)])
def test_2000_random_windows_equal_brute_force(levels):
    rng = np.random.default_rng(1)
    fmaps = rng.normal(size=(3, 29, 38, 2)).astype(np.float32)
    boxes = _random_windows(rng, 2000, 29, 38)
    index = rng.integers(0, 3, 2000)
    pooled = POOL(fmaps, boxes, levels, map_index=index)
    expected = [reference.pool_window(fmaps[i], w, levels) for i, w in zip(index, boxes)]
    np.testing.assert_array_equal(pooled, np.stack(expected))


def test_mean_of_random_windows_equals_brute_force():
    rng = np.random.default_rng(2)
    fmap = rng.normal(size=(17, 23, 2)).astype(np.float32)
    boxes = _random_windows(rng, 200, 17, 23)
    pooled = POOL(fmap, boxes, (4, 3, 1), reduce="mean")
    expected = [reference.pool_window(fmap, w, (4, 3, 1), np.mean) for w in boxes]
    # Sums of at most 391 float32 numbers of size 1, in another order.
    np.testing.assert_allclose(pooled, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("side", [*range(1, 9), 11, 16])
def test_every_window_of_a_side(side):
    """Also the bins of ceil(a/n) + 1 cells, which random windows can miss."""
    rng = np.random.default_rng(side)
    fmap = rng.normal(size=(side, side, 1)).astype(np.float32)
    ranges = [(a, b) for a in range(side) for b in range(a + 1, side + 1)]
    boxes = np.array([(a, 0, b, side) for a, b in ranges] + [(0, a, side, b) for a, b in ranges])
    pooled = POOL(fmap, boxes, (6, 4, 1))
    expected = np.stack([reference.pool_window(fmap, w, (6, 4, 1)) for w in boxes])
    np.testing.assert_array_equal(pooled, expected)


@pytest.mark.parametrize("size", [(13, 13), (10, 10), (16, 9), (1, 1), (2, 3)])
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (4, 3, 2, 1)])
def test_a_window_of_the_whole_map_is_the_pyramid(size, levels):
    fmap = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    whole = jnp.tile(jnp.array([[0, 0, size[1], size[0]]]), (2, 1))
    pooled = POOL(fmap, whole, levels, map_index=jnp.arange(2))
    np.testing.assert_array_equal(pooled, pyramid.spatial_pyramid_pool(fmap, levels))


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_empty_and_outside_windows_give_zeros_and_no_gradient(reduce):
    fmap = -1 - jnp.arange(20.0).reshape(4, 5, 1)  # negative: zeros are no maximum of it
    boxes = jnp.array([[2, 2, 2, 3], [3, 3, 1, 1], [9, 9, 12, 12], [-5, -5, 0, 0], [0, 0, 0, 0]])

    def total(x):
        return POOL(x, boxes, (2, 1), reduce=reduce).sum()

    np.testing.assert_array_equal(POOL(fmap, boxes, (2, 1), reduce=reduce), 0)
    np.testing.assert_array_equal(jax.grad(total)(fmap), 0)


def test_windows_are_clipped_to_the_map():
    fmap = jnp.arange(20.0).reshape(4, 5, 1)
    boxes = jnp.array([[-3, -3, 2, 2], [0, 0, 2, 2]])
    pooled = POOL(fmap, boxes, (2, 1))
    np.testing.assert_array_equal(pooled[0], [0, 1, 5, 6, 6])
    np.testing.assert_array_equal(pooled[0], pooled[1])


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_gradient_away_from_ties(reduce):
    rng = np.random.default_rng(0)
    fmap = jnp.asarray(rng.permutation(8 * 9 * 2).reshape(8, 9, 2), jnp.float32)
    boxes = jnp.array([[0, 0, 9, 8], [2, 1, 7, 5], [3, 3, 4, 4], [5, 5, 5, 6]])
    check_grads(
        lambda x: POOL(x, boxes, (3, 2, 1), reduce=reduce),
        (fmap,), order=1, modes=("fwd", "rev"), eps=0.25, atol=1e-2, rtol=1e-3,
    )  # fmt: skip


def test_gradient_equals_the_pyramids():
    fmap = jnp.asarray(np.random.default_rng(0).permutation(13 * 10 * 2), jnp.float32)
    fmap = fmap.reshape(1, 13, 10, 2)
    weights = jnp.arange(50.0 * 2)[None]
    whole = jnp.array([[0, 0, 10, 13]])
    from_windows = jax.grad(lambda x: (POOL(x, whole) * weights).sum())(fmap)
    from_pyramid = jax.grad(lambda x: (POOL_PYRAMID(x) * weights).sum())(fmap)
    np.testing.assert_array_equal(from_windows, from_pyramid)


def test_the_gradient_holds_no_select_and_scatter():
    boxes = jnp.array([[0, 0, 9, 8]])
    grad = jax.jit(jax.grad(lambda x: windows.pool_windows(x, boxes).sum()))
    operations = hlo.operations(grad.lower(jnp.zeros((1, 9, 8, 4))))
    assert "select_and_scatter" not in operations


def test_jit_eager_vmap_and_bfloat16_agree():
    rng = np.random.default_rng(3)
    fmaps = jnp.asarray(rng.normal(size=(2, 12, 15, 4)), jnp.float32)
    boxes = jnp.asarray(np.stack([_random_windows(rng, 40, 12, 15) for _ in range(2)]))
    eager = windows.pool_windows(fmaps[1], boxes[1])
    np.testing.assert_array_equal(POOL(fmaps[1], boxes[1]), eager)
    np.testing.assert_array_equal(jax.jit(jax.vmap(windows.pool_windows))(fmaps, boxes)[1], eager)
    rounded = POOL(fmaps[1].astype(jnp.bfloat16), boxes[1])
    chex.assert_type(rounded, jnp.bfloat16)
    np.testing.assert_array_equal(rounded, eager.astype(jnp.bfloat16))


@pytest.mark.parametrize(("count", "levels", "length"), [(0, (6, 3, 2, 1), 50), (7, (4, 2, 1), 21)])
def test_shapes(count, levels, length):
    fmap = jnp.zeros((5, 6, 8), jnp.float32)
    boxes = jnp.zeros((count, 4), jnp.int32)
    shape = jax.eval_shape(lambda f, b: windows.pool_windows(f, b, levels), fmap, boxes)
    chex.assert_shape(shape, (count, length * 8))


@pytest.mark.parametrize(
    ("fmap", "boxes", "map_index", "message"),
    [
        ((4, 4), (1, 4), None, r"fmap must be .* \(4, 4\)"),
        ((0, 4, 1), (1, 4), None, "not empty"),
        ((4, 4, 1), (4,), None, r"windows must be \(R, 4\)"),
        ((2, 4, 4, 1), (3, 4), None, "windows of 2 maps need map_index"),
        ((2, 4, 4, 1), (3, 4), (2,), r"map_index must be \(3,\)"),
    ],
)
def test_wrong_shapes_are_named(fmap, boxes, map_index, message):
    index = None if map_index is None else jnp.zeros(map_index, jnp.int32)
    with pytest.raises(ValueError, match=message):
        windows.pool_windows(jnp.zeros(fmap), jnp.zeros(boxes, jnp.int32), map_index=index)


def test_windows_that_are_no_integers_are_refused():
    with pytest.raises(ValueError, match="windows must be integers, got float32"):
        windows.pool_windows(jnp.zeros((4, 4, 1)), np.zeros((1, 4), np.float32))


@pytest.mark.parametrize(
    ("box", "scale", "extent", "expected"),
    # As released: a 500x375 image, boxes and cells counted from 1, corners inclusive.
    [
        ((1, 1, 500, 375), 480, (29, 39), (1, 1, 39, 29)),
        ((8, 12, 352, 320), 480, (29, 39), (1, 1, 27, 25)),
        ((48, 240, 195, 371), 576, (35, 47), (5, 23, 18, 35)),
        ((100, 100, 199, 199), 688, (42, 56), (12, 12, 22, 22)),
        ((200, 150, 227, 177), 1200, (74, 99), (40, 30, 45, 35)),
        ((490, 1, 500, 11), 1200, (74, 99), (98, 1, 99, 1)),
    ],
)
def test_image_to_cells_of_the_paper(box, scale, extent, expected):
    # The released code's scaling of boxes.
    x1, y1, x2, y2 = (np.asarray(box) - 1) * (scale - 1) / (375 - 1) + 1
    cells = windows.image_to_cells(
        np.asarray([(x1 - 1, y1 - 1, x2, y2)]), extent, stride=16, offset0=21, offset=6.5
    )
    left, top, right, bottom = expected
    assert cells.tolist() == [[left - 1, top - 1, right, bottom]]


def test_image_to_cells_of_views():
    # ZF-5's cells are centred on pixels 21, 37 ... 213 = 21 + 16 * 12, and 1.5 pixels of tolerance:
    # the corner view's 224 pixels hold 13 centres, views further in one more.
    pixels = np.asarray([(16 * i, 0, 16 * i + 224, 224) for i in range(4)])
    cells = windows.image_to_cells(pixels, (13, 20), stride=16, offset0=21, offset=6.5)
    assert cells.tolist() == [[0, 0, 13, 13], [0, 0, 14, 13], [1, 0, 15, 13], [2, 0, 16, 13]]


def test_image_to_cells_of_a_window_beyond_the_map():
    pixels = np.asarray([(-90, -50, -70, -30), (900, 10, 950, 11)])
    cells = windows.image_to_cells(pixels, (4, 5), stride=16, offset0=21, offset=6.5)
    assert cells.tolist() == [[0, 0, 1, 1], [4, 0, 5, 1]]


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_maps_of_different_sides_are_pooled_as_each_alone(reduce):
    rng = np.random.default_rng(3)
    maps = [rng.normal(size=shape).astype(np.float32) for shape in ((7, 9, 3), (2, 16, 5, 3))]
    rects = np.asarray([(0, 0, 9, 7), (2, 1, 30, 30), (0, 3, 5, 16), (4, 6, 5, 7), (6, 0, 9, 2)])
    index = np.asarray([0, 1, 2, 0, 1])  # the last lies outside its map
    pooled = windows.pool_windows(maps, rects, (3, 2), map_index=index, reduce=reduce)
    alone = [maps[0], maps[1][0], maps[1][1]]
    for row, (window, number) in enumerate(zip(rects, index)):
        expected = windows.pool_windows(alone[int(number)], window[None], (3, 2), reduce=reduce)
        # A mean over a padded map adds zeros, in another order.
        np.testing.assert_allclose(pooled[row], expected[0], rtol=0 if reduce == "max" else 1e-5)
    assert not np.any(np.asarray(pooled[4]))


def test_maps_of_different_channels_are_refused():
    maps = [np.zeros((3, 3, 2), np.float32), np.zeros((3, 3, 4), np.float32)]
    with pytest.raises(ValueError, match="one channel count"):
        windows.pool_windows(
            maps, np.zeros((1, 4), np.int32), (1,), map_index=np.zeros(1, np.int32)
        )
