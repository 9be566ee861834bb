"""The strided max pool: sides, literals, numpy loops, torch, and no select-and-scatter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from spp_jax.pooling import max_pool
from tests import hlo

CASES = [  # window, stride, padding, ceil_mode
    (3, 2, 0, True),
    (3, 2, 0, False),
    (2, 2, 0, True),
    (3, 3, 0, True),
    (3, 1, 1, False),
    (3, 2, 1, True),
    (2, 3, 0, True),
]


def _loop(x, window, stride, padding, count_rows, count_columns):
    out = np.full((x.shape[0], count_rows, count_columns, x.shape[3]), -np.inf, np.float32)
    for i in range(count_rows):
        for j in range(count_columns):
            top, left = i * stride - padding, j * stride - padding
            part = x[:, max(top, 0) : top + window, max(left, 0) : left + window]
            out[:, i, j] = part.max(axis=(1, 2))
    return out


@pytest.mark.parametrize(
    ("side", "expected"),
    # ZF-5's two pools at 224 and 180 pixels, and a side its window just covers.
    [(110, 55), (26, 13), (88, 44), (20, 10), (3, 1), (4, 2), (2, 1)],
)
def test_sides_round_up_as_in_caffe(side, expected):
    assert max_pool.pooled_side(side, 3, 2, ceil_mode=True) == expected


def test_a_last_window_must_start_inside():
    # Caffe: 4 cells, window 2, stride 2, padding 1 would make 4 windows' worth of 3.
    assert max_pool.pooled_side(4, 2, 2, 1, ceil_mode=True) == 3
    assert max_pool.pooled_side(5, 2, 2, 1, ceil_mode=True) == 3
    assert max_pool.pooled_side(4, 2, 3, 0, ceil_mode=True) == 2


def test_by_hand():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    pooled = max_pool.max_pool(x, 3, 2, ceil_mode=True)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[10, 11], [14, 15]])
    np.testing.assert_array_equal(max_pool.max_pool(x, 3, 2)[0, :, :, 0], [[10]])


@pytest.mark.parametrize(("window", "stride", "padding", "ceil_mode"), CASES)
@pytest.mark.parametrize("size", [(7, 7), (8, 13), (4, 5)])
def test_equals_loops_and_torch(window, stride, padding, ceil_mode, size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32) - 5
    pooled = max_pool.max_pool(jnp.asarray(x), window, stride, padding=padding, ceil_mode=ceil_mode)
    np.testing.assert_array_equal(pooled, _loop(x, window, stride, padding, *pooled.shape[1:3]))
    torch = pytest.importorskip("torch", reason="torch is not installed: no max_pool2d")
    peer = torch.nn.functional.max_pool2d(
        torch.tensor(x).permute(0, 3, 1, 2), window, stride, padding, ceil_mode=ceil_mode
    )
    np.testing.assert_array_equal(pooled, peer.permute(0, 2, 3, 1).numpy())


def test_gradient_away_from_ties_and_no_select_and_scatter():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.permutation(9 * 8 * 2).reshape(1, 9, 8, 2), jnp.float32)

    def pool(x):
        return max_pool.max_pool(x, 3, 2, padding=1, ceil_mode=True)

    check_grads(pool, (x,), order=1, modes=("fwd", "rev"), eps=0.25, atol=1e-2, rtol=1e-3)
    operations = hlo.operations(jax.jit(jax.grad(lambda x: pool(x).sum())).lower(x))
    assert not operations & {"scatter", "select_and_scatter"}


def test_the_text_is_read():
    """The peer that the tests above are about has what they look for."""

    def total(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 3), (2, 2), "VALID").sum()

    lowered = jax.jit(jax.grad(total)).lower(jnp.zeros((9, 9)))
    assert "select_and_scatter" in hlo.operations(lowered)


def test_of_a_tie_the_first_cell_has_the_gradient():
    x = jnp.array([[0.0, 0, 0], [0, 7, 7], [0, 7, 7]]).reshape(1, 3, 3, 1)
    grad = jax.grad(lambda x: max_pool.max_pool(x, 2, 1).sum())(x)[0, :, :, 0]
    np.testing.assert_array_equal(grad, [[0, 0, 0], [0, 4, 0], [0, 0, 0]])


@pytest.mark.parametrize(("window", "stride", "padding", "ceil_mode"), CASES)
def test_gradient_equals_torchs_also_at_ties(window, stride, padding, ceil_mode):
    torch = pytest.importorskip("torch", reason="torch is not installed: no max_pool2d")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (2, 8, 13, 3)).astype(np.float32)
    y, vjp = jax.vjp(
        lambda x: max_pool.max_pool(x, window, stride, padding=padding, ceil_mode=ceil_mode), x
    )
    g = rng.integers(-8, 9, y.shape).astype(np.float32)
    leaf = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    peer = torch.nn.functional.max_pool2d(leaf, window, stride, padding, ceil_mode=ceil_mode)
    peer.backward(torch.tensor(g).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(vjp(g)[0], leaf.grad.permute(0, 2, 3, 1).numpy())


def test_windows_of_more_cells_than_a_byte_counts():
    x = jnp.arange(17.0 * 17).reshape(1, 17, 17, 1)
    grad = jax.grad(lambda x: max_pool.max_pool(x, 17, 1).sum())(x)
    assert int(grad.argmax()) == 17 * 17 - 1
    assert float(grad.sum()) == 1


def test_integers_and_bfloat16():
    x = -1 - jnp.arange(9).reshape(1, 3, 3, 1)
    pooled = max_pool.max_pool(x, 2, 2, ceil_mode=True)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[-1, -3], [-7, -9]])
    pooled = max_pool.max_pool(x.astype(jnp.bfloat16), 2, 2, ceil_mode=True)
    assert pooled.dtype == jnp.bfloat16


def test_integers_in_what_is_differentiated():
    def total(scale):
        pooled = max_pool.max_pool(jnp.arange(4).reshape(1, 2, 2, 1), 2, 2)
        return scale * pooled.sum().astype(jnp.float32)

    assert float(jax.grad(total)(2.0)) == 3


@pytest.mark.parametrize(
    ("window", "stride", "padding", "message"),
    [(0, 1, 0, "window 0"), (2, 0, 0, "stride 0"), (2, 1, 2, "padding 2"), (5, 1, 0, "5-cell")],
)
def test_wrong_arguments_are_named(window, stride, padding, message):
    with pytest.raises(ValueError, match=message):
        max_pool.max_pool(jnp.zeros((1, 4, 4, 1)), window, stride, padding=padding)
