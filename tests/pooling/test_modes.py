"""Pooling in 64-bit mode, without promotion of ranks and dtypes, and on meshes of explicit axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spp_jax.pooling import max_pool, pyramid, windows
from tests import modes

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(8, 7, 9, 2)).astype(np.float32)
WINDOWS = np.tile(np.array([[0, 0, 5, 5], [2, 1, 9, 7], [4, 4, 4, 6]], np.int32), (8, 1, 1))


def _square():
    return np.arange(16, dtype=np.float32).reshape(4, 4, 1)


@pytest.fixture(params=modes.PROMOTIONS)
def mode(request):
    with modes.PROMOTIONS[request.param]():
        yield


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(
    ("reduce", "expected"),
    [("max", [15, 5, 7, 13, 15]), ("mean", [7.5, 2.5, 4.5, 10.5, 12.5])],
)
def test_values_by_hand(reduce, expected):
    whole = np.array([[0, 0, 4, 4]])  # NumPy's integers have 64 bits
    pool = jax.jit(functools.partial(windows.pool_windows, levels=(1, 2), reduce=reduce))
    pooled = pool(_square(), whole)
    np.testing.assert_array_equal(pooled, [expected])
    assert pooled.dtype == jnp.float32
    pooled = jax.jit(jax.vmap(pool))(_square()[None], whole[None])
    np.testing.assert_array_equal(pooled, [[expected]])
    pool = functools.partial(pyramid.spatial_pyramid_pool, levels=(1, 2), reduce=reduce)
    pooled = jax.jit(pool)(_square()[None])
    np.testing.assert_array_equal(pooled, [expected])
    assert pooled.dtype == jnp.float32


@pytest.mark.usefixtures("mode")
def test_gradients_by_hand():
    def total(fmap, reduce):
        return windows.pool_windows(fmap, np.array([[1, 1, 4, 3]]), (1,), reduce=reduce).sum()

    grad = jax.jit(jax.grad(total), static_argnums=1)
    expected = np.zeros((4, 4, 1))
    expected[2, 3] = 1  # of rows 1 and 2, columns 1 to 3, the largest is the last
    np.testing.assert_array_equal(grad(_square(), "max"), expected)
    expected[1:3, 1:4] = 1 / 6
    np.testing.assert_allclose(grad(_square(), "mean"), expected, rtol=1e-6)  # float32

    def strided(x):
        return max_pool.max_pool(x, 2, 2).sum()

    grad = jax.jit(jax.grad(strided))(_square()[None])[0, :, :, 0]
    np.testing.assert_array_equal(grad, [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]])


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        fmap = jnp.asarray(MAPS[0], jnp.float64) + 1e-12
        whole = np.array([[0, 0, 9, 7]])
        for reduce in ("max", "mean"):
            pooled = windows.pool_windows(fmap, whole, (2,), reduce=reduce)
            expected = pyramid.spatial_pyramid_pool(fmap[None], (2,), reduce=reduce)
            assert pooled.dtype == expected.dtype == jnp.float64
            # Sums of 20 numbers of size 1 in another order.
            np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint32])
def test_windows_beyond_an_integers_range_are_clipped(dtype):
    most = np.iinfo(dtype).max
    # Not under jit, which cuts a NumPy array of 64 bits to its lower 32 before it can be clipped.
    pooled = windows.pool_windows(_square(), np.array([[0, 0, most, most]], dtype), (1,))
    assert float(pooled[0, 0]) == 15


POOLS = {
    "pyramid max": lambda x, w: pyramid.spatial_pyramid_pool(x, (4, 2, 1)),
    "pyramid mean": lambda x, w: pyramid.spatial_pyramid_pool(x, (4, 2, 1), reduce="mean"),
    "max_pool": lambda x, w: max_pool.max_pool(x, 3, 2, padding=1, ceil_mode=True),
    "windows of each map": jax.vmap(lambda x, w: windows.pool_windows(x, w, (2, 1))),
    "means of each map": jax.vmap(lambda x, w: windows.pool_windows(x, w, (2,), reduce="mean")),
    "windows of all maps": lambda x, w: windows.pool_windows(
        x, w[:, 0], (2, 1), map_index=np.arange(8)[::-1]
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_maps_split_over_an_explicit_mesh(name):
    def pool(x, w):
        pooled = POOLS[name](x, w)
        return (pooled * pooled).sum(), pooled

    # The program of a share of the maps may add up their cells in another order.
    rtol = 1e-5 if "mean" in name else 0
    run = jax.value_and_grad(pool, has_aux=True)
    (_, expected), expected_grad = jax.jit(run)(MAPS, WINDOWS)
    with modes.explicit_mesh() as place:
        (_, pooled), grad = jax.jit(run)(place(MAPS, "data"), place(WINDOWS, "data"))
        assert jax.typeof(pooled).sharding.spec[0] == "data"
        np.testing.assert_allclose(pooled, expected, rtol=rtol)
        # A cell's gradient is a sum of a few terms, in another order.
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-6, atol=1e-6)
    # Arrays of such a mesh, outside of its context.
    pooled = jax.jit(POOLS[name])(place(MAPS, "data"), place(WINDOWS, "data"))
    np.testing.assert_allclose(pooled, expected, rtol=rtol)
