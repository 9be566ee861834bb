"""Map sizes of the paper, from the table that builds the networks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spp_jax
from spp_jax.models import backbones, topology


@pytest.mark.parametrize(
    ("size", "expected"),
    # ZF-5 at 224 and 180: conv1, pool1, conv2, pool2, conv5.
    [(224, (110, 55, 26, 13, 13)), (180, (88, 44, 20, 10, 10))],
)
def test_zf5_maps_of_the_paper(size, expected):
    sides = topology.sides(backbones.ZF5, size)
    assert tuple(sides[k] for k in ("conv1", "pool1", "conv2", "pool2", "conv5")) == expected


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # Table 1: conv1 (no pool), pool2, pool3; 55, 27, 13 in Table 1.
        ("convnet_star5", 224, {"conv1": 55, "conv2": 55, "pool2": 27, "pool3": 13, "conv5": 13}),
        ("convnet_star5", 180, {"conv1": 44, "pool2": 22, "pool3": 11, "conv5": 11}),
        # 109 -> 37 -> 35 -> 18 and 87 -> 29 -> 27 -> 14.
        ("overfeat5", 224, {"conv1": 109, "pool1": 37, "conv2": 35, "pool2": 18, "conv5": 18}),
        ("overfeat7", 224, {"conv1": 109, "pool1": 37, "conv2": 35, "pool2": 18, "conv7": 18}),
        ("overfeat7", 180, {"conv1": 87, "pool1": 29, "conv2": 27, "pool2": 14, "conv7": 14}),
        # Szegedy et al., Table 1.
        (
            "googlenet",
            224,
            {
                **{"conv1": 112, "pool1": 56, "conv2": 56, "pool2": 28, "inception_3b": 28},
                **{"pool3": 14, "inception_4e": 14, "pool4": 7, "inception_5b": 7},
            },
        ),
        ("squeezenet1_1", 227, {"conv1": 113, "pool1": 56, "fire3": 56, "pool3": 28, "fire9": 14}),
    ],
)
def test_published_map_sizes(name, size, expected):
    sides = topology.sides(backbones.BACKBONES[name], size)
    assert {layer: sides[layer] for layer in expected} == expected


def test_published_channels():
    """Szegedy et al., Table 1: outputs of the inception modules."""
    channels = topology.channels(backbones.GOOGLENET)
    modules = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    assert [channels[f"inception_{m}"] for m in modules] == [
        *(256, 480, 512, 512, 512, 528, 832, 832, 1024)
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    # As released: stride and first centre (from 1); ZF-5's receptive field, the others' by
    # hand: 7, pool1 +2*2, conv2 +4*6, pool2 +1*6, then +2*12 for each 3 x 3.
    [("zf5", (16, 21, 139)), ("overfeat7", (12, 15, 161)), ("overfeat5", (12, 15, 113))],
)
def test_geometry_of_the_released_code(name, expected):
    backbone = backbones.BACKBONES[name]
    assert dataclasses.astuple(topology.geometries(backbone)[backbone.layers[-1].name]) == expected
    assert backbone.window_offset == 6.5


def test_geometry_is_where_the_gradient_reaches():
    """The receptive field of a cell, from the gradient of the network itself."""
    backbone, layer, size = backbones.SQUEEZENET1_1, "fire3", 80
    plain = dataclasses.replace(backbone, layers=_before(backbone, layer))
    model = spp_jax.make_model(plain, levels=(1,), num_classes=2)
    images = jnp.full((1, size, size, 3), 130.0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
    geometry = topology.geometries(backbone)[layer]
    cell = topology.sides(backbone, size)[layer] // 2

    @jax.jit
    @jax.grad
    def slope(x):
        maps: Any = model.apply(params, x, method="maps")
        return maps[layer][0, cell, cell].sum()

    # Slightly rising, so that each maximum is at one known place; averaged with the falling one.
    ramp = jnp.arange(size) * 1e-3
    rise = (ramp[:, None] + ramp[None])[None, :, :, None]
    reached = sum(jnp.abs(slope(images + r)).sum((0, 2, 3)) for r in (rise, -rise))
    rows = np.flatnonzero(np.asarray(reached))
    center = geometry.offset0 - 1 + geometry.stride * cell
    reach = (geometry.receptive_field - 1) / 2
    assert (rows[0], rows[-1]) == (center - reach, center + reach)


def _before(backbone, layer):
    names = [la.name for la in backbone.layers]
    kept = backbone.layers[: names.index(layer) + 1]
    return tuple(la for la in kept if not isinstance(la, topology.LRN))


@pytest.mark.parametrize(
    ("size", "side"),
    # Random training sizes and detection scales.
    [
        *[(190, 10), (191, 11), (206, 11), (207, 12), (222, 12), (223, 13), (256, 15), (392, 23)],
        *[(480, 29), (576, 35), (688, 42), (864, 53), (874, 53), (1200, 74)],
    ],
)
def test_zf5_conv5_sides(size, side):
    assert topology.sides(backbones.ZF5, size)["conv5"] == side


def test_sides_of_arrays_are_those_of_their_numbers():
    sizes = np.arange(31, 400)
    sides = topology.sides(backbones.ZF5, jnp.asarray(sizes))["conv5"]
    expected = [topology.sides(backbones.ZF5, int(s))["conv5"] for s in sizes]
    np.testing.assert_array_equal(sides, expected)


@pytest.mark.parametrize("backbone", backbones.BACKBONES.values())
def test_smallest_side(backbone):
    smallest = topology.smallest_side(backbone)
    assert min(topology.sides(backbone, smallest).values()) == 1
    assert min(topology.sides(backbone, smallest - 1).values()) < 1


def test_lrn_kinds():
    norms = [la for la in backbones.ZF5.layers if isinstance(la, topology.LRN)]
    assert [(n.kind, n.size, n.alpha, n.beta, n.k) for n in norms] == [
        ("within", 3, 5e-5, 0.75, 1.0)
    ] * 2
    across = topology.with_lrn(backbones.ZF5, "across")
    norms = [la for la in across.layers if isinstance(la, topology.LRN)]
    assert [(n.kind, n.size, n.k) for n in norms] == [("across", 5, 2.0)] * 2
    assert topology.with_lrn(across, "within") == backbones.ZF5
    with pytest.raises(ValueError, match="'local'"):
        topology.with_lrn(backbones.ZF5, "local")
