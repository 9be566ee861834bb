"""The gradient of pool_windows: a slow second one, both modes, vmap, maps, dtypes, ties, sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spp_jax.pooling import sparse_table, windows
from tests import hlo
from tests.pooling import reference

LEVELS = (6, 4, 3, 1)


def _distinct(rng, shape):
    """Numbers without ties, exact in bfloat16 where there are at most 256."""
    return rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)


def _boxes(rng, count, height, width):
    """Windows of which some reach out of the map, and some lie outside."""
    x = np.sort(rng.integers(-4, width + 5, (count, 2)), axis=1)
    y = np.sort(rng.integers(-4, height + 5, (count, 2)), axis=1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.int32)


def _changes(rng, boxes, channels, levels=LEVELS):
    """Whole numbers, of which float32 sums are exact."""
    bins = sum(n * n for n in levels)
    return rng.integers(-9, 10, (len(boxes), bins * channels)).astype(np.float32)


def _gradient(fmap, boxes, changes, levels=LEVELS):
    # A new function each time: JAX would take the program of another platform from its cache.
    def run(fmap, boxes, changes):
        return jax.vjp(lambda x: windows.pool_windows(x, boxes, levels), fmap)[1](changes)[0]

    return jax.jit(run)(fmap, boxes, changes)


@pytest.fixture(params=["as on this machine", "as on GPUs"])
def platform(request, monkeypatch):
    """Runs a test also with the sum that other devices than CPUs take."""
    if request.param == "as on GPUs":
        monkeypatch.setattr(
            jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays)
        )


@pytest.mark.usefixtures("platform")
def test_gradient_equals_a_loop_over_windows_and_bins():
    rng = np.random.default_rng(0)
    fmap, boxes = _distinct(rng, (11, 14, 3)), _boxes(rng, 60, 11, 14)
    changes = _changes(rng, boxes, 3)
    expected = reference.gradient(fmap, boxes, LEVELS, changes)
    assert np.any(expected)
    np.testing.assert_array_equal(_gradient(fmap, boxes, changes), expected)


def test_forward_mode_is_the_transpose_of_the_loop():
    rng = np.random.default_rng(1)
    fmap, boxes = _distinct(rng, (7, 8, 2)), _boxes(rng, 20, 7, 8)
    direction = rng.integers(-9, 10, fmap.shape).astype(np.float32)
    pool = jax.jit(lambda x: windows.pool_windows(x, boxes, LEVELS))
    pooled, change = jax.jvp(pool, (fmap,), (direction,))
    np.testing.assert_array_equal(pooled, pool(fmap))
    # A step of less than half keeps the order of whole numbers; sums of a power of two are exact.
    step = 2.0**-6
    np.testing.assert_array_equal(change, (pool(fmap + step * direction) - pooled) / step)
    changes = _changes(rng, boxes, 2)
    expected = reference.gradient(fmap, boxes, LEVELS, changes)
    assert np.vdot(change, changes) == np.vdot(direction, expected)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("order", ["gradients of each", "gradient of all"])
def test_vmap_gives_each_images_gradient(order):
    rng = np.random.default_rng(2)
    fmaps = np.stack([_distinct(rng, (9, 7, 2)) for _ in range(3)])
    boxes = np.stack([_boxes(rng, 12, 9, 7) for _ in range(3)])
    changes = np.stack([_changes(rng, boxes[0], 2) for _ in range(3)])
    if order == "gradients of each":
        grads = jax.vmap(_gradient)(fmaps, boxes, changes)
    else:
        pool = jax.vmap(lambda x, b: windows.pool_windows(x, b, LEVELS))
        grads = jax.jit(lambda x, b, c: jax.vjp(lambda x: pool(x, b), x)[1](c)[0])(
            fmaps, boxes, changes
        )
    for grad, fmap, box, change in zip(grads, fmaps, boxes, changes):
        np.testing.assert_array_equal(grad, reference.gradient(fmap, box, LEVELS, change))


@pytest.mark.usefixtures("platform")
def test_maps_of_different_sides_have_their_own_gradients():
    rng = np.random.default_rng(3)
    maps = [_distinct(rng, (6, 9, 2)), _distinct(rng, (2, 12, 5, 2))]
    boxes, index = _boxes(rng, 40, 12, 9), rng.integers(0, 3, 40)
    changes = _changes(rng, boxes, 2)

    def pool(maps):
        return windows.pool_windows(maps, boxes, LEVELS, map_index=index)

    first, others = jax.jit(lambda maps: jax.vjp(pool, maps)[1](changes)[0])(maps)
    for number, (grad, fmap) in enumerate(
        [(first, maps[0]), (others[0], maps[1][0]), (others[1], maps[1][1])]
    ):
        on_map = index == number
        expected = reference.gradient(fmap, boxes[on_map], LEVELS, changes[on_map])
        np.testing.assert_array_equal(grad, expected)


def test_a_map_of_more_cells_than_16_bits_count():
    fmap = np.zeros((257, 256, 1), np.float32)
    fmap[256, 255] = 1
    changes = np.zeros((1, 16 * 16), np.float32)
    changes[0, -1] = 1
    grad = _gradient(fmap, np.array([[0, 0, 256, 257]]), changes, (16,))
    np.testing.assert_array_equal(grad, fmap)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_gradients_in_16_bits(dtype):
    rng = np.random.default_rng(4)
    fmap, boxes = _distinct(rng, (8, 16, 2)), _boxes(rng, 30, 8, 16)
    changes = _changes(rng, boxes, 2)
    grad = _gradient(jnp.asarray(fmap, dtype), boxes, jnp.asarray(changes, dtype))
    assert grad.dtype == dtype
    expected = reference.gradient(fmap, boxes, LEVELS, changes)
    # Coarser levels add up in 16 bits, at most three terms; cells in 32, rounded once.
    np.testing.assert_allclose(
        np.asarray(grad, np.float64), expected, rtol=float(jnp.finfo(dtype).eps), atol=0.5
    )


@pytest.mark.usefixtures("platform")
def test_gradients_in_64_bits():
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        fmap = np.asarray(_distinct(rng, (8, 9, 2)), np.float64)
        boxes = _boxes(rng, 30, 8, 9)
        changes = rng.normal(size=(30, 62 * 2))
        grad = _gradient(fmap, boxes, changes)
        assert grad.dtype == np.float64
        expected = reference.gradient(fmap, boxes, LEVELS, changes)
        # Sums of at most a hundred terms of size 1, in another order.
        np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("platform")
def test_of_cells_that_tie_one_has_the_gradient():
    boxes = np.array([[0, 0, 8, 6], [1, 2, 5, 5], [3, 3, 4, 4], [20, 20, 30, 30]])
    changes = np.ones((4, 62), np.float32)
    grad = np.asarray(_gradient(np.zeros((6, 8, 1), np.float32), boxes, changes))
    # Whole numbers: no output's gradient is split. The last window has no cell.
    np.testing.assert_array_equal(grad, np.round(grad))
    assert grad.sum() == 3 * 62


def test_gradients_of_checkpoints_and_of_second_order():
    rng = np.random.default_rng(6)
    fmap, boxes = _distinct(rng, (7, 7, 2)), _boxes(rng, 10, 7, 7)

    def total(x):
        return (windows.pool_windows(x, boxes, LEVELS) ** 2).sum()

    grad = jax.jit(jax.grad(total))(fmap)
    np.testing.assert_array_equal(jax.jit(jax.grad(jax.checkpoint(total)))(fmap), grad)
    # Numbers of 0 to 97: all sums are whole and below 2^24.
    value, change = jax.jit(lambda x: jax.jvp(total, (x,), (x,)))(fmap)
    assert change == 2 * value == np.vdot(grad, fmap)
    # The gradient is linear in the map while the order of its cells stays.
    _, change = jax.jit(lambda x: jax.jvp(jax.grad(total), (x,), (x,)))(fmap)
    np.testing.assert_array_equal(change, grad)


def test_a_program_without_gradient_looks_up_maxima_alone():
    fmap, boxes = jnp.zeros((9, 8, 4)), jnp.array([[0, 0, 8, 9]])
    text = jax.jit(lambda x: windows.pool_windows(x, boxes)).lower(fmap).as_text()
    assert "ui16" not in text
    assert "optimization_barrier" not in text
    gradient = jax.jit(jax.grad(lambda x: windows.pool_windows(x, boxes).sum())).lower(fmap)
    assert "ui16" in gradient.as_text()
    assert "sort" not in hlo.operations(gradient)


def _sum_at(values, cells, num_cells, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", lambda *arrays, cpu, default: default(*arrays))
        channel = jnp.arange(values.shape[2], dtype=jnp.int32)[None, None]
        place = jnp.asarray(cells, jnp.int32), channel
        return sparse_table._sum_at(place, jnp.asarray(values), (num_cells, values.shape[2]))


def test_sums_of_integers_are_as_exact_as_of_floats_and_keep_no_order(monkeypatch):
    rng = np.random.default_rng(7)
    values = rng.normal(size=(700, 36, 3)) * 10.0 ** rng.integers(-6, 7, (700, 36, 3))
    values, cells = values.astype(np.float32), rng.integers(0, 40, (700, 36, 3))
    sums = _sum_at(values, cells, 40, monkeypatch)
    expected = np.zeros((40, 3))
    np.add.at(expected, (cells, np.arange(3)[None, None]), values.astype(np.float64))
    # One rounding to float32; 2^-38 of the largest for each of some 600 terms.
    atol = 600 * 2.0**-38 * np.abs(values).max()
    np.testing.assert_allclose(sums, expected, rtol=2.0**-22, atol=atol)
    again = _sum_at(values[::-1], cells[::-1], 40, monkeypatch)
    np.testing.assert_array_equal(sums, again)


@pytest.mark.parametrize("value", [3e38, -2.0, 0.0, 1e-30])
def test_a_sum_of_one_value_is_that_value(value, monkeypatch):
    values = np.full((1, 1, 1), value, np.float32)
    sums = _sum_at(values, np.ones((1, 1, 1)), 2, monkeypatch)
    np.testing.assert_array_equal(sums[:, 0], [0, values[0, 0, 0]])


def test_the_largest_number_of_equal_values_fits(monkeypatch):
    values = np.full((3000, 50, 1), 1 + 2.0**-20, np.float32)
    sums = _sum_at(values, np.zeros((3000, 50, 1)), 1, monkeypatch)
    np.testing.assert_array_equal(sums, np.float32(150000 * (1 + 2.0**-20)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_spoils_its_channel_alone(value, monkeypatch):
    values = np.ones((2, 3, 2), np.float32)
    values[1, 1, 0] = value
    sums = _sum_at(values, np.zeros((2, 3, 2)), 1, monkeypatch)
    np.testing.assert_array_equal(sums, [[np.nan, 6]])
