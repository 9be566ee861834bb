"""Map sizes of the paper, from the table that builds the networks."""

import jax.numpy as jnp
import numpy as np
import pytest

from spp_jax.models import backbones


@pytest.mark.parametrize(
    ("size", "expected"),
    # PAPER 1.2: conv1, pool1, conv2, pool2, conv5.
    [(224, (110, 55, 26, 13, 13)), (180, (88, 44, 20, 10, 10))],
)
def test_zf5_maps_of_the_paper(size, expected):
    sides = backbones.sides(backbones.ZF5, size)
    assert tuple(sides[k] for k in ("conv1", "pool1", "conv2", "pool2", "conv5")) == expected


@pytest.mark.parametrize(
    ("size", "side"),
    # PAPER 1.2: random training sizes and detection scales.
    [
        *[(190, 10), (191, 11), (206, 11), (207, 12), (222, 12), (223, 13), (256, 15), (392, 23)],
        *[(480, 29), (576, 35), (688, 42), (864, 53), (874, 53), (1200, 74)],
    ],
)
def test_zf5_conv5_sides(size, side):
    assert backbones.sides(backbones.ZF5, size)["conv5"] == side


def test_sides_of_arrays_are_those_of_their_numbers():
    sizes = np.arange(31, 400)
    found = backbones.sides(backbones.ZF5, jnp.asarray(sizes))["conv5"]
    expected = [backbones.sides(backbones.ZF5, int(s))["conv5"] for s in sizes]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backbone", backbones.BACKBONES.values())
def test_smallest_side(backbone):
    smallest = backbones.smallest_side(backbone)
    assert min(backbones.sides(backbone, smallest).values()) == 1
    assert min(backbones.sides(backbone, smallest - 1).values()) < 1


def test_lrn_kinds():
    norms = [la for la in backbones.ZF5.layers if isinstance(la, backbones.LRN)]
    assert [(n.kind, n.size, n.alpha, n.beta, n.k) for n in norms] == [
        ("within", 3, 5e-5, 0.75, 1.0)
    ] * 2
    across = backbones.with_lrn(backbones.ZF5, "across")
    norms = [la for la in across.layers if isinstance(la, backbones.LRN)]
    assert [(n.kind, n.size, n.k) for n in norms] == [("across", 5, 2.0)] * 2
    assert backbones.with_lrn(across, "within") == backbones.ZF5
    with pytest.raises(ValueError, match="'local'"):
        backbones.with_lrn(backbones.ZF5, "local")
