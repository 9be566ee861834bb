"""Networks in 64 bits, without promotion of ranks and dtypes, and on meshes of explicit axes."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import spp_jax
from spp_jax.models import layers, topology
from tests import modes

TINY = topology.Backbone(
    name="tiny",
    layers=(
        topology.Conv("conv1", 4, 5, stride=2, padding=2),
        topology.LRN("norm1", alpha=1.0),
        # Its last window can start past the end: pooled_side of traced sides.
        topology.MaxPool("pool1", 2, 2, padding=1),
        topology.Conv("conv2", 4, 3, padding=1),
    ),
    hidden=(8,),
    kernel_std=None,
    scale=1 / 64,
)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 24, 20, 3)).astype(np.uint8)
EXTENTS = np.array([[24, 20], [16, 20], [19, 13], [20, 17]])


@pytest.fixture(scope="module")
def tiny():
    model = spp_jax.make_model(TINY, levels=(3, 2, 1), num_classes=3)
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES)
    mean = np.random.default_rng(1).uniform(0, 255, (12, 12, 3)).astype(np.float32)
    return model, {**variables, "constants": {"mean": mean}}


def _run(model):
    """Returns a program of the logits, alone and with extents, and of a gradient of both."""

    def loss(params, constants, images, extents):
        variables = {"params": params, "constants": constants}
        whole = model.apply(variables, images)
        parts = model.apply(variables, images, extents=extents)
        return (whole * whole).sum() + (parts * parts).sum(), (whole, parts)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda v, images, extents: run(v["params"], v["constants"], images, extents)


@pytest.fixture(scope="module")
def expected(tiny):
    model, variables = tiny
    (_, logits), grads = _run(model)(variables, IMAGES, EXTENTS)
    # The first image fills its canvas: with its extent it is what it is alone.
    np.testing.assert_allclose(logits[1][0], logits[0][0], rtol=1e-4, atol=1e-5)
    return logits, grads


@pytest.mark.parametrize("name", ["all promotions", "explicit mesh"])
def test_logits_and_gradients_are_those_of_the_default_mode(tiny, expected, name):
    model, variables = tiny
    with contextlib.ExitStack() as stack:
        images, extents = IMAGES, EXTENTS
        if name == "explicit mesh":
            place = stack.enter_context(modes.explicit_mesh())
            images, extents = place(IMAGES, "data"), place(EXTENTS, "data")
            # Else JAX cannot tell how the gradient of a kernel is to lie.
            variables = jax.tree.map(place, variables)
        else:
            for promotion in modes.PROMOTIONS.values():
                stack.enter_context(promotion())
        (_, logits), grads = _run(model)(variables, images, extents)
    for a, b in zip(jax.tree.leaves((logits, grads)), jax.tree.leaves(expected)):
        assert a.dtype == jnp.float32
        # float32 sums over images and cells in another order, of numbers as large as the largest.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(b).max()))


def test_small_integers_hold_extents(tiny):
    model, variables = tiny
    apply = jax.jit(model.apply)
    # 127 + 2 * 2 - 5 in int8 would be negative.
    images = np.zeros((1, 127, 20, 3), np.uint8)
    logits = apply(variables, images, extents=np.array([[127, 20]], np.int8))
    same = apply(variables, images, extents=np.array([[127, 20]]))
    np.testing.assert_array_equal(logits, same)
    with pytest.raises(ValueError, match="extents must be integers, got float32"):
        apply(variables, IMAGES, extents=EXTENTS.astype(np.float32))


def test_modules_hold_levels_as_plain_tuples():
    forms: tuple[Any, ...] = (np.array([2, 1]), [2, 1], jnp.array([2, 1]), tuple(np.array([2, 1])))
    for levels in forms:
        model = spp_jax.SPPNet(TINY, levels, 3)
        assert model.levels is not None
        assert model.levels == (2, 1)
        assert {type(n) for n in model.levels} == {int}
        assert hash(model) == hash(spp_jax.make_model(TINY, levels=(2, 1), num_classes=3))
        assert hash(layers.SpatialPyramidPooling(levels)) == hash(
            layers.SpatialPyramidPooling((2, 1))
        )
    with pytest.raises(ValueError, match=r"levels must be whole numbers .* got \(True, 2\)"):
        spp_jax.SPPNet(TINY, (True, 2), 3)


def test_the_bridge_to_nnx_with_its_head_made_first(tiny):
    """As docs/pretrained.md says: else the name of a method would hide the parameters."""
    model, variables = tiny
    bridge: Any = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0))
    bridge.head = nnx.data({})
    bridge.lazy_init(IMAGES)
    pure = nnx.to_pure_dict(nnx.state(bridge))
    params = {name: pure[name] for name in ("backbone", "head")}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), params,
                 dict(variables["params"]))  # fmt: skip
    np.testing.assert_array_equal(bridge(IMAGES), model.apply({"params": params}, IMAGES))
