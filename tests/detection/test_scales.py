"""The scale and the cells of windows: the published vectors, and what follows from the rules."""

import numpy as np
import pytest

from spp_jax.canvas import arithmetic
from spp_jax.detection.windows import scales
from spp_jax.models import backbones, topology

CODE = (480, 576, 688, 874, 1200)
PAPERS_SCALES = (480, 576, 688, 864, 1200)
SIZE = (375, 500)

# Published for the released ZF-5 and an image of 500x375: box, scale, map (w, h), cells l, t, r, b
# counted from 1, and the scale the paper's literal rule would pick.
VECTORS = [
    ((1, 1, 500, 375), 480, (39, 29), (1, 1, 39, 29), 480),
    ((8, 12, 352, 320), 480, (39, 29), (1, 1, 27, 25), 480),
    ((48, 240, 195, 371), 576, (47, 35), (5, 23, 18, 35), 576),
    ((100, 100, 199, 199), 688, (56, 42), (12, 12, 22, 22), 864),
    ((200, 150, 227, 177), 1200, (99, 74), (40, 30, 45, 35), 1200),
    ((490, 1, 500, 11), 1200, (99, 74), (98, 1, 99, 1), 1200),
]


@pytest.mark.parametrize(("box", "scale", "extent", "cells", "literal"), VECTORS)
def test_published_vectors(box, scale, extent, cells, literal):
    window = np.asarray([box], float) - [1, 1, 0, 0]
    chosen = scales.choose_scale(window, SIZE, CODE, target_side=208, rule="linear")
    assert CODE[chosen[0]] == scale
    covered = scales.to_cells(window, SIZE, CODE, chosen, backbones.ZF5, "conv5")
    assert (covered[0] + [1, 1, 0, 0]).tolist() == list(cells)
    resized = arithmetic.shorter_size(*SIZE, scale)
    assert topology.map_size(backbones.ZF5, "conv5", resized) == extent[::-1]
    by_area = scales.choose_scale(window, SIZE, PAPERS_SCALES, target_side=224, rule="area")
    assert PAPERS_SCALES[by_area[0]] == literal


def test_the_papers_rule_takes_the_cells_centred_inside():
    # ZF-5: cell i is centred on pixel 21 + 16 i, counted from 1. A size of its own scale: no
    # resizing. Windows of whole pixels, also those whose sides lie on centres.
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 300, (300, 2)).astype(float)
    windows = np.concatenate([corner, corner + rng.integers(40, 150, (300, 2))], axis=1)
    index = np.zeros(300, int)
    image = (480, 640), (480,)
    strict = scales.to_cells(windows, *image, index, backbones.ZF5, "conv5", rule="paper")
    for window, cells in zip(windows, strict):
        for axis, count in ((0, 39), (1, 29)):
            first, last = window[axis] + 1, window[axis + 2]
            inside = [i for i in range(count) if first < 21 + 16 * i < last]
            if inside:
                assert (cells[axis], cells[axis + 2]) == (inside[0], inside[-1] + 1)
    released = scales.to_cells(windows, *image, index, backbones.ZF5, "conv5")
    # 1.5 pixels of tolerance: never fewer cells.
    assert np.all(released[:, :2] <= strict[:, :2])
    assert np.all(released[:, 2:] >= strict[:, 2:])
    assert np.any(released != strict)


def test_of_equally_near_scales_the_smaller_is_taken():
    # On a shorter side of 100 a window of side 50 is exactly 200 at scale 400: 350 and 450 tie.
    window = np.asarray([[0, 0, 50, 50]], float)
    sizes = (100, 100), (350, 450)
    assert scales.choose_scale(window, *sizes, target_side=200, rule="linear")[0] == 0
    # 30^2 and 40^2 are equally far from a target of sqrt((30^2 + 40^2) / 2).
    window = np.asarray([[0, 0, 10, 10]], float)
    target = np.sqrt((30**2 + 40**2) / 2)
    sizes = (10, 10), (30, 40)
    assert scales.choose_scale(window, *sizes, target_side=target, rule="area")[0] == 0


def test_windows_on_the_same_cells_are_one():
    map_index = np.asarray([1, 0, 1, 1])
    cells = np.asarray([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [1, 0, 2, 2]])
    distinct = scales.distinct(map_index, cells)
    assert len(distinct.cells) == 3
    assert distinct.inverse[0] == distinct.inverse[2]
    np.testing.assert_array_equal(distinct.cells[distinct.inverse], cells)
    np.testing.assert_array_equal(distinct.map_index[distinct.inverse], map_index)


@pytest.mark.parametrize("name", ["ZF5", "GOOGLENET"])
def test_every_window_has_cells_inside_its_map(name):
    backbone = getattr(backbones, name)
    layer = "conv5" if name == "ZF5" else "inception_4e"
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (200, 2))
    windows = np.concatenate([corner, corner + rng.uniform(1, 200, (200, 2))], axis=1)
    windows = np.minimum(windows, [[500, 333, 500, 333]])
    sizes = (333, 500), (400, 600)
    chosen = scales.choose_scale(windows, *sizes, target_side=224, rule="area")
    cells = scales.to_cells(windows, *sizes, chosen, backbone, layer)
    assert np.all(cells[:, 2:] > cells[:, :2])
    for index, scale in enumerate((400, 600)):
        height, width = topology.map_size(backbone, layer, arithmetic.shorter_size(333, 500, scale))
        assert cells.min() >= 0
        assert np.all(cells[chosen == index][:, 2:] <= [width, height])
