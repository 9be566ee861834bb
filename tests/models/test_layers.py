"""Normalisation against torch and plain loops, masks, and the pyramid as a module."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spp_jax.models import layers, topology
from spp_jax.pooling import pyramid


def _images(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) * 20


def test_lrn_within_a_channel_by_loops():
    x = _images((2, 5, 4, 3))
    layer = topology.LRN("norm", alpha=0.3)
    normalized = layers.normalize_responses(jnp.asarray(x), layer)
    expected = np.empty_like(x)
    for i in range(5):
        for j in range(4):
            part = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            # Clipped at the border, divided by 9 all the same.
            scale = 1 + 0.3 / 9 * np.square(part).sum(axis=(1, 2))
            expected[:, i, j] = x[:, i, j] / scale**0.75
    np.testing.assert_allclose(normalized, expected, rtol=2e-6)  # a few float32 roundings


@pytest.mark.parametrize("size", [3, 5])
def test_lrn_across_channels_equals_torch(size):
    torch = pytest.importorskip("torch", reason="torch is not installed: no local_response_norm")
    x = _images((2, 3, 4, 7))
    layer = topology.LRN("norm", "across", size, alpha=5e-2, k=2.0)
    normalized = layers.normalize_responses(jnp.asarray(x), layer)
    peer = torch.nn.functional.local_response_norm(
        torch.tensor(x).permute(0, 3, 1, 2), size, alpha=5e-2, beta=0.75, k=2.0
    )
    np.testing.assert_allclose(normalized, peer.permute(0, 2, 3, 1).numpy(), rtol=2e-6)


def test_lrn_by_hand_and_in_bfloat16():
    x = jnp.full((1, 1, 1, 3), 2.0)
    layer = topology.LRN("norm", "across", size=3, alpha=0.75, beta=0.5, k=1.0)
    normalized = layers.normalize_responses(x, layer)
    # Sums of squares 8, 12, 8 times 0.25, plus 1.
    np.testing.assert_allclose(normalized.ravel(), 2 / np.sqrt([3, 4, 3]), rtol=1e-6)
    # 1 + 5e-5 * 80 is 1 in bfloat16 but not in float32.
    x = jnp.full((1, 3, 3, 1), 150.0, jnp.bfloat16)
    normalized = layers.normalize_responses(x, topology.LRN("norm"))
    assert normalized.dtype == jnp.bfloat16
    assert float(normalized[0, 1, 1, 0]) == pytest.approx(
        150 / (1 + 5e-5 * 150**2) ** 0.75, rel=4e-3
    )


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(("kind", "size"), [("within", 3), ("within", 4), ("across", 5)])
def test_lrn_gradient_equals_the_automatic_one(kind, size, rectify):
    layer = topology.LRN("norm", kind, size=size, alpha=0.5, k=2.0)
    rng = np.random.default_rng(0)
    x, change, g = (jnp.asarray(rng.normal(size=(2, 5, 6, 7)), jnp.float32) for _ in range(3))

    def plain(x):
        x = nn.relu(x) if rectify else x
        return x / (2 + 0.5 / layer.cells * layers._sum_around(x**2, layer)) ** 0.75

    def ours(x):
        return layers.normalize_responses(x, layer, rectify=rectify)

    def on_gpus(x, change):
        return layers._change(x, change, layer, rectify, again=True)

    expected = *jax.jvp(plain, (x,), (change,)), jax.vjp(plain, x)[1](g)[0]
    transposed = jax.linear_transpose(lambda change: on_gpus(x, change), change)(g)[0]
    for actual in (
        (*jax.jvp(ours, (x,), (change,)), jax.vjp(ours, x)[1](g)[0]),
        (ours(x), on_gpus(x, change), transposed),
    ):
        for value, wanted in zip(actual, expected, strict=True):
            # Sums of at most 16 numbers, and roots in place of a power.
            np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_mask_beyond():
    x = jnp.ones((2, 2, 3, 1))
    masked = layers.mask_beyond(x, jnp.array([[1, 2], [2, 3]]))
    np.testing.assert_array_equal(masked[..., 0], [[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]])
    assert layers.mask_beyond(x, None) is x


def test_the_pyramid_module_has_no_parameters_and_is_the_function():
    fmap = jnp.asarray(_images((2, 7, 9, 4)))
    module = layers.SpatialPyramidPooling((3, 2, 1))
    pooled, variables = module.init_with_output(jax.random.key(0), fmap)
    assert variables == {}
    np.testing.assert_array_equal(pooled, pyramid.spatial_pyramid_pool(fmap, (3, 2, 1)))


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_the_pyramid_of_extents_is_that_of_each_map_alone(reduce):
    fmap = jnp.asarray(_images((3, 7, 9, 4)))
    extents = jnp.array([[7, 9], [3, 8], [1, 2]])
    module = layers.SpatialPyramidPooling((3, 2, 1), reduce)
    pooled: Any = module.apply({}, fmap, extents=extents)
    for i, (height, width) in enumerate(extents.tolist()):
        alone: Any = module.apply({}, fmap[i : i + 1, :height, :width])
        # A maximum is exact; a mean is summed in another order.
        np.testing.assert_allclose(
            pooled[i],
            alone[0],
            rtol=0 if reduce == "max" else 1e-5,
            atol=0 if reduce == "max" else 1e-4,
        )
