"""spatial_pyramid_pool: against hand-made answers, numpy loops, torch, and its own gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from spp_jax.pooling import pyramid
from tests import hlo
from tests.pooling import reference

# One compilation a case in place of one an operation.
POOL = jax.jit(
    pyramid.spatial_pyramid_pool, static_argnums=1, static_argnames=("levels", "reduce", "bins")
)
SIZES = [(13, 13), (10, 10), (1, 1), (2, 7), (5, 3), (16, 9)]


def _maps(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_by_hand():
    fmap = jnp.arange(16.0).reshape(1, 4, 4, 1)
    pooled = pyramid.spatial_pyramid_pool(fmap, (2, 1))
    # Rows 0-1 and 2-3, columns 0-1 and 2-3, then the whole map.
    np.testing.assert_array_equal(pooled, [[5, 7, 13, 15, 15]])
    pooled = pyramid.spatial_pyramid_pool(fmap, (1, 2), reduce="mean")
    np.testing.assert_array_equal(pooled, [[7.5, 2.5, 4.5, 10.5, 12.5]])


def test_order_is_level_row_column_channel():
    fmap = jnp.stack([jnp.arange(4.0).reshape(2, 2), -jnp.arange(4.0).reshape(2, 2)], axis=-1)[None]
    pooled = pyramid.spatial_pyramid_pool(fmap, (1, 2))
    np.testing.assert_array_equal(pooled, [[3, 0, 0, 0, 1, -1, 2, -2, 3, -3]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (4, 3, 2, 1), (1, 2, 4), (5,)])
def test_equals_numpy_loops(size, levels):
    fmap = _maps((2, *size, 3))
    pooled = POOL(fmap, levels)
    expected = np.stack([reference.pool_rectangle(f, levels) for f in fmap])
    np.testing.assert_array_equal(pooled, expected)
    pooled = POOL(fmap, levels, reduce="mean")
    expected = np.stack([reference.pool_rectangle(f, levels, np.mean) for f in fmap])
    # Sums of at most 256 float32 numbers of size 1, in another order.
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_equals_torch_adaptive_max_pool(size):
    torch = pytest.importorskip("torch", reason="torch is not installed: no adaptive_max_pool2d")
    fmap = _maps((2, *size, 4))
    for n in (6, 4, 3, 2, 1):
        pooled = POOL(fmap, (n,))
        peer = torch.nn.functional.adaptive_max_pool2d(torch.tensor(fmap).permute(0, 3, 1, 2), n)
        np.testing.assert_array_equal(pooled, peer.permute(0, 2, 3, 1).reshape(2, -1).numpy())


@pytest.mark.parametrize("size", [(13, 13), (10, 10), (7, 20), (1, 4)])
def test_shapes_and_dtypes(variant, size):
    pool = variant(pyramid.spatial_pyramid_pool, static_argnames=("levels",))
    for dtype in (jnp.float32, jnp.bfloat16):
        pooled = pool(jnp.zeros((3, *size, 8), dtype), levels=(6, 3, 2, 1))
        chex.assert_shape(pooled, (3, 50 * 8))
        chex.assert_type(pooled, dtype)


@pytest.fixture(params=["with_jit", "without_jit"])
def variant(request):
    return {"with_jit": jax.jit, "without_jit": lambda f, static_argnames: f}[request.param]


def test_jit_vmap_and_bfloat16_agree_with_eager():
    fmap = jnp.asarray(_maps((4, 10, 13, 3)))
    eager = pyramid.spatial_pyramid_pool(fmap)
    np.testing.assert_array_equal(jax.jit(pyramid.spatial_pyramid_pool)(fmap), eager)
    mapped = jax.vmap(lambda f: pyramid.spatial_pyramid_pool(f[None])[0])(fmap)
    np.testing.assert_array_equal(mapped, eager)
    # A maximum rounds nothing: pooling rounded numbers is rounding the pooled ones.
    rounded = pyramid.spatial_pyramid_pool(fmap.astype(jnp.bfloat16))
    np.testing.assert_array_equal(rounded, eager.astype(jnp.bfloat16))


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_gradient_away_from_ties(reduce):
    rng = np.random.default_rng(0)
    # Distinct values far apart against check_grads' step, so that no maximum changes place.
    fmap = jnp.asarray(rng.permutation(7 * 9 * 2).reshape(1, 7, 9, 2), jnp.float32)
    check_grads(
        lambda x: POOL(x, (4, 3, 2, 1), reduce=reduce),
        (fmap,), order=1, modes=("fwd", "rev"), eps=0.25, atol=1e-2, rtol=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("side", [2, 7, 20])  # bins of 1 to 20 cells a side
def test_tied_cells_share_the_gradient(side):
    fmap = jnp.ones((1, side, side, 1))
    grad = jax.grad(lambda x: pyramid.spatial_pyramid_pool(x, (3, 2, 1)).sum())(fmap)
    assert float(grad.min()) >= 0
    # Up to 400 shares of 1, rounded.
    assert float(grad.sum()) == pytest.approx(9 + 4 + 1, rel=1e-5)


def test_the_gradient_has_no_scatter():
    grad = jax.jit(jax.grad(lambda x: pyramid.spatial_pyramid_pool(x).sum()))
    operations = hlo.operations(grad.lower(jnp.zeros((2, 13, 13, 8))))
    assert not operations & {"scatter", "select_and_scatter"}


def test_sliding_is_the_literal_recipe():
    fmap = jnp.asarray(_maps((2, 13, 13, 3)))
    literal = pyramid.spatial_pyramid_pool(fmap, bins="sliding")
    np.testing.assert_array_equal(literal, pyramid.spatial_pyramid_pool(fmap))
    with pytest.raises(ValueError, match=r"level 6 on a side of 10 cells.* 9 bins"):
        pyramid.spatial_pyramid_pool(jnp.zeros((1, 10, 13, 3)), bins="sliding")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": ()}, r"levels .*\(\)"),
        ({"levels": (0,)}, r"levels .*\(0,\)"),
        ({"levels": (2.0,)}, r"levels .*2\.0"),
        ({"levels": (True, 2)}, r"levels must be whole numbers .*\(True, 2\)"),
        ({"levels": np.array([True, False])}, r"levels must be whole numbers .*True"),
        ({"levels": np.array([2.0, 1.0])}, r"levels must be whole numbers .*2\."),
        ({"levels": np.array([[2, 1]])}, r"levels must be a sequence as \(3, 2, 1\), got array"),
        ({"levels": 3}, r"levels must be a sequence as \(3, 2, 1\), got 3"),
        ({"levels": "21"}, r"levels must be a sequence as \(3, 2, 1\), got '21'"),
        ({"levels": {2, 1}}, r"levels must be a sequence as \(3, 2, 1\), got \{1, 2\}"),
        ({"reduce": "min"}, "'min'"),
        ({"bins": "round"}, "'round'"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pyramid.spatial_pyramid_pool(jnp.zeros((1, 4, 4, 1)), **arguments)


@pytest.mark.parametrize(
    "levels", [(2, 1), [2, 1], range(2, 0, -1), np.array([2, 1]), tuple(np.array([2, 1], np.uint8))]
)
def test_levels_in_every_form(levels):
    checked = pyramid.check_levels(levels)
    assert checked == (2, 1)
    assert {type(n) for n in checked} == {int}
    assert pyramid.check_levels(jnp.array([2, 1])) == (2, 1)
    pooled = pyramid.spatial_pyramid_pool(np.arange(16.0).reshape(1, 4, 4, 1), levels)
    np.testing.assert_array_equal(pooled, [[5, 7, 13, 15, 15]])


@pytest.mark.parametrize("shape", [(4, 4, 1), (1, 0, 4, 1)])
def test_wrong_maps_are_named(shape):
    with pytest.raises(ValueError, match="got shape"):
        pyramid.spatial_pyramid_pool(jnp.zeros(shape))
