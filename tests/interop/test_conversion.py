"""Published layers to parameters: the order of every axis, checked against Caffe's arithmetic."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spp_jax
from spp_jax import errors
from spp_jax.interop import conversion
from spp_jax.models.topology import Backbone, Block, Conv, MaxPool

TINY = Backbone(
    name="tiny",
    layers=(
        Conv("conv1", 4, 5, stride=2, padding=1),
        Block("mixed", branches=((Conv("1x1", 3, 1),), (Conv("3x3", 3, 3, padding=1),))),
        Conv("conv2", 5, 3),
    ),
    last_pool=MaxPool("pool2", 3, 2),
    size=27,
    hidden=(8, 7),
    mean=(120.0, 110.0, 100.0),  # R, G, B
)
CELLS = Backbone(
    name="cells",
    layers=(Conv("conv1", 4, 3),),
    size=9,
    hidden=(),
    cell_classifier="conv10",
)
CLASSES = 6


def _random(rng, *shape):
    return (rng.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))).astype("f4")


def _layers(pooled, seed=0):
    """What Caffe would have saved for TINY."""
    rng = np.random.default_rng(seed)
    kernels = {
        "conv1": (4, 3, 5, 5),
        "mixed/1x1": (3, 4, 1, 1),
        "mixed/3x3": (3, 4, 3, 3),
        "conv2": (5, 6, 3, 3),
        "fc6": (8, pooled),
        "fc7": (7, 8),
        "fc8": (CLASSES, 7),
    }
    return {
        name: [_random(rng, *shape), 0.1 * _random(rng, shape[0], 1)[:, 0]]
        for name, shape in kernels.items()
    }


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (2, 27, 27, 3)).astype(np.uint8)


def _model(levels=(3, 2, 1), backbone=TINY, **options):
    return spp_jax.make_model(backbone, levels=levels, num_classes=CLASSES, **options)


def _maps(model, params, images) -> Any:
    return model.apply({"params": params}, images, method="maps")


def _relu(x):
    return np.maximum(x, 0)


def test_order_by_hand():
    # Published: level 1 is 0, 1; level 2 is 2 3 / 4 5 of channel 0, then 6 7 / 8 9 of channel 1.
    assert conversion.channel_major_order((2, 1), 2).tolist() == [2, 6, 3, 7, 4, 8, 5, 9, 0, 1]
    assert conversion.channel_major_order((1, 2), 2).tolist() == [0, 1, 2, 6, 3, 7, 4, 8, 5, 9]


def test_convolutions_are_caffes_on_bgr(images):
    """Caffe's own arithmetic: NCHW, OIHW, blue first, the mean subtracted."""
    layers = _layers(14 * 5)
    maps = _maps(_model(), conversion.to_params(_model(), layers), images)
    x = images[..., ::-1].astype("f4") - np.array([100, 110, 120], np.float32)  # B, G, R

    def conv(x, name, stride=1, padding=0):
        kernel, bias = layers[name]
        pads = [(padding, padding)] * 2
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NCHW", "OIHW", "NCHW")
        )
        return _relu(np.asarray(y) + bias[:, None, None])

    conv1 = conv(x.transpose(0, 3, 1, 2), "conv1", stride=2, padding=1)
    mixed = np.concatenate([conv(conv1, "mixed/1x1"), conv(conv1, "mixed/3x3", padding=1)], axis=1)
    for name, expected in {"conv1": conv1, "mixed": mixed, "conv2": conv(mixed, "conv2")}.items():
        # Sums of float32 in another order.
        np.testing.assert_allclose(
            maps[name], expected.transpose(0, 2, 3, 1), rtol=0, atol=1e-5 * expected.max()
        )


def _caffe_pyramid(fmap, levels):
    """The released pooler's vector of one map (H, W, C), by loops."""
    height, width, channels = fmap.shape
    values = []
    for n in levels:
        for channel in range(channels):
            for row in range(n):
                for column in range(n):
                    top, bottom = row * height // n, -(-(row + 1) * height // n)
                    left, right = column * width // n, -(-(column + 1) * width // n)
                    values.append(fmap[top:bottom, left:right, channel].max())
    return np.array(values)


def _caffe_head(pooled, layers, after_dropout=1.0):
    x = pooled
    for name in ("fc6", "fc7"):
        x = _relu(x @ layers[name][0].T + layers[name][1]) * after_dropout
    return x @ layers["fc8"][0].T + layers["fc8"][1]


@pytest.mark.parametrize("levels", [(3, 2, 1), (1, 2, 3), (2, 3, 1)])
def test_pyramid_and_head_are_caffes(images, levels):
    layers = _layers(14 * 5)
    maps = _maps(_model(levels), conversion.to_params(_model(levels), layers), images)
    pooled = [_caffe_pyramid(np.asarray(fmap), (1, 2, 3)) for fmap in maps["conv2"]]
    expected = _caffe_head(np.stack(pooled), layers)
    np.testing.assert_allclose(maps["logits"], expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_the_authors_caffe_halves_what_dropout_could_drop(images):
    layers = _layers(14 * 5)
    params = conversion.to_params(_model(), layers, unscaled_dropout=True)
    maps = _maps(_model(), params, images)
    pooled = [_caffe_pyramid(np.asarray(fmap), (1, 2, 3)) for fmap in maps["conv2"]]
    expected = _caffe_head(np.stack(pooled), layers, after_dropout=0.5)
    np.testing.assert_allclose(maps["logits"], expected, rtol=0, atol=1e-5 * abs(expected).max())
    for model, options in ((_model(), {"fresh_head": True}), (_model((1,), CELLS), {})):
        with pytest.raises(errors.InputError, match="unscaled_dropout halves fc7 and fc8, and"):
            conversion.to_params(model, layers, unscaled_dropout=True, **options)


def test_without_spp_the_last_pool_is_flattened_by_channel(images):
    layers = _layers(5 * 5 * 5)
    model = _model(None)
    maps = _maps(model, conversion.to_params(model, layers), images)
    assert maps["conv2"].shape == (2, 11, 11, 5)
    fmap = np.asarray(maps["conv2"])
    grid = np.array(
        [
            [[fmap[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c].max((1, 2)) for j in range(5)]
             for i in range(5)]
            for c in range(5)
        ]
    )  # fmt: skip
    expected = _caffe_head(grid.reshape(125, 2).T, layers)
    np.testing.assert_allclose(maps["logits"], expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_a_classifier_of_cells(images):
    rng = np.random.default_rng(0)
    layers = {
        "conv1": [_random(rng, 4, 3, 3, 3), np.zeros(4)],
        "conv10": [_random(rng, CLASSES, 4, 1, 1), np.ones(CLASSES, "f4")],
    }
    model = _model((1,), CELLS, reduce="mean")
    maps = _maps(model, conversion.to_params(model, layers), images)
    cells = _relu(np.asarray(maps["conv1"]) @ layers["conv10"][0][:, :, 0, 0].T + 1)
    expected = cells.mean((1, 2))
    np.testing.assert_allclose(maps["logits"], expected, rtol=1e-5)


def test_shapes_of_before_2015_and_doubles_are_the_same():
    layers = _layers(14 * 5)
    legacy = {
        name: [b.reshape((1,) * (4 - b.ndim) + b.shape).astype("f8") for b in blobs]
        for name, blobs in layers.items()
    }
    params, expected = (conversion.to_params(_model(), given) for given in (legacy, layers))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("f4")}


def test_a_fresh_head_is_that_of_seed_0():
    layers = _layers(14 * 5)
    start = jax.jit(_model().init)
    expected = start(jax.random.key(0), jnp.zeros((1, 27, 27, 3)))["params"]["head"]
    without = {name: blobs for name, blobs in layers.items() if not name.startswith("fc")}
    for given in (layers, without):
        params = conversion.to_params(_model(), given, fresh_head=True)
        jax.tree.map(np.testing.assert_array_equal, params["head"], expected)
        whole = conversion.to_params(_model(), layers)
        jax.tree.map(np.testing.assert_array_equal, params["backbone"], whole["backbone"])
    assert conversion.unused(TINY, layers, True) == ("fc6", "fc7", "fc8")
    assert conversion.unused(TINY, layers, False) == ()


def test_names_of_published_classifiers():
    names = {
        name: conversion.head_names(spp_jax.make_model(name, levels=(1,)).backbone)
        for name in ("zf5", "googlenet", "squeezenet1_1")
    }
    assert names == {
        "zf5": {"fc6": "fc6", "fc7": "fc7", "fc8": "fc8"},
        "googlenet": {"fc6": "loss3/classifier"},
        "squeezenet1_1": {"fc6": "conv10"},
    }
    googlenet = spp_jax.make_model("googlenet", levels=(1,)).backbone
    layers = ["conv1/7x7_s2", "loss1/fc", "loss2/classifier", "loss3/classifier"]
    assert conversion.unused(googlenet, layers, False) == ("loss1/fc", "loss2/classifier")


def _difference(layers, **options):
    with pytest.raises(errors.InputError) as caught:
        conversion.to_params(_model(), layers, **options)
    return str(caught.value).split("\n")


def test_every_difference_is_a_line():
    layers = _layers(14 * 5)
    layers["extra"] = layers.pop("mixed/1x1")
    layers["conv2"] = layers["conv2"][:1]
    layers["fc6"][0] = layers["fc6"][0][:, :25]
    first, *lines = _difference(layers)
    assert first == (
        "the weights do not fit tiny with levels=(3, 2, 1) and 6 classes; kernels are "
        "(outputs, inputs, height, width):"
    )
    assert sorted(lines) == [
        "  conv2 is (5, 6, 3, 3) and should be (5, 6, 3, 3) (5,)",
        "  extra is only in the file: (3, 4, 1, 1) (3,)",
        "  fc6 is (8, 25) (8,) and should be (8, 70) (8,)",
        "  mixed/1x1 is missing: (3, 4, 1, 1) (3,)",
    ]


def test_without_a_head_the_way_out_is_named():
    layers = {name: blobs for name, blobs in _layers(70).items() if name not in ("fc7", "fc8")}
    assert _difference(layers)[-3:] == [
        "  fc7 is missing: (7, 8) (7,)",
        "  fc8 is missing: (6, 7) (6,)",
        "  all convolutions fit; fresh_head imports them and starts a new head",
    ]
    assert _difference({"extra": [np.ones(1)], **layers}, fresh_head=True)[1:] == [
        "  extra is only in the file: (1,)"
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_numbers_that_are_not_finite(bad):
    layers = _layers(14 * 5)
    layers["fc7"][0] = layers["fc7"][0].astype("f8")
    layers["fc7"][0][3, 4] = bad
    with pytest.raises(errors.InputError, match="layer fc7 of the weights holds numbers that are"):
        conversion.to_params(_model(), layers)


def test_the_first_convolution_may_stand_in_a_branch():
    """GoogLeNet's stands in a block; its inputs alone are turned round, whatever its depth."""
    block = Block("stem", branches=((MaxPool("pool", 2, 1), Conv("conv", 3, 1)),))
    backbone = Backbone("deep", (block, Conv("next", 2, 1)), size=9, hidden=())
    rng = np.random.default_rng(0)
    layers = {
        "stem/conv": [_random(rng, 3, 3, 1, 1), np.zeros(3)],
        "next": [_random(rng, 2, 3, 1, 1), np.zeros(2)],
        "fc6": [_random(rng, CLASSES, 2), np.zeros(CLASSES)],
    }
    params = conversion.to_params(_model((1,), backbone), layers)["backbone"]
    kernel, following = layers["stem/conv"][0][:, :, 0, 0], layers["next"][0][:, :, 0, 0]
    np.testing.assert_array_equal(params["stem"]["conv"]["kernel"][0, 0], kernel[:, ::-1].T)
    np.testing.assert_array_equal(params["next"]["kernel"][0, 0], following.T)
