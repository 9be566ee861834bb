"""The convolution's gradient by products against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spp_jax.models import convolution


def _xla(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _ours(x, kernel, stride, padding):
    return convolution.convolve(x, kernel, stride, padding)


@pytest.mark.parametrize(
    ("size", "k", "stride", "padding"),
    [
        ((9, 8), 3, 1, 1),
        ((11, 14), 5, 2, 0),
        ((12, 13), 7, 2, 1),
        ((17, 10), 7, 4, 3),
        ((9, 8), 1, 1, 0),
        # A stride beyond the kernel: cells that nothing looks at.
        ((11, 12), 2, 3, 0),
    ],
)
@pytest.mark.parametrize("min_multiplications", [0, np.inf])
def test_gradients_equal_xlas(monkeypatch, size, k, stride, padding, min_multiplications):
    monkeypatch.setattr(convolution, "_MIN_MULTIPLICATIONS", min_multiplications)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-3, 4, (2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-3, 4, (k, k, 3, 4)), jnp.float32)
    y, ours = jax.vjp(lambda x, kernel: _ours(x, kernel, stride, padding), x, kernel)
    peer, xlas = jax.vjp(lambda x, kernel: _xla(x, kernel, stride, padding), x, kernel)
    np.testing.assert_array_equal(y, peer)
    # Whole numbers, which float32 adds up exactly in any order.
    g = jnp.asarray(rng.integers(-3, 4, y.shape), jnp.float32)
    for gradient, expected in zip(ours(g), xlas(g), strict=True):
        np.testing.assert_array_equal(gradient, expected)
    # Forward mode is the same rule.
    _, ours = jax.jvp(lambda x, k: _ours(x, k, stride, padding), (x, kernel), (x, kernel))
    np.testing.assert_array_equal(ours, 2 * y)


def test_large_kernels_gradients_hold_products_and_small_ones_convolutions():
    def text(side):
        grad = jax.grad(lambda kernel: _ours(jnp.ones((8, side, side, 64)), kernel, 1, 1).sum())
        return jax.jit(grad).lower(jnp.ones((3, 3, 64, 64))).as_text()

    assert "dot_general" in text(56)
    assert "dot_general" not in text(7)


def test_large_convolutions_keep_their_input_for_the_gradient_not_its_patches():
    x, kernel = jnp.ones((8, 56, 56, 64)), jnp.ones((3, 3, 64, 64))
    _, vjp = jax.vjp(lambda x, kernel: _ours(x, kernel, 1, 1), x, kernel)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(vjp))
    assert kept < 1.1 * (x.nbytes + kernel.nbytes)
