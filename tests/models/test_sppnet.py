"""The networks: exact parameter counts, one tree for every size, padded equal to alone."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import spp_jax
from spp_jax.models import backbones, sppnet, topology
from tests.pooling import reference

# A small network with every kind of layer and trait of the large ones.
TINY = topology.Backbone(
    name="tiny",
    layers=(
        topology.Conv("conv1", 8, 5, stride=2, padding=1, bias=0.5),
        topology.LRN("norm1"),
        topology.MaxPool("pool1", 3, 2),
        topology.Conv("conv2", 12, 3, bias=1.0),
        topology.LRN("norm2", "across", 5),
        topology.MaxPool("pool2", 3, 2, padding=1),
        topology.Block(
            "mixed",
            layers=(topology.Conv("reduce", 6, 1, bias=0.3),),
            branches=(
                (topology.Conv("1x1", 5, 1),),
                (
                    topology.MaxPool("pool", 3, 1, padding=1),
                    topology.Conv("pool_proj", 7, 3, padding=1, bias=0.2),
                ),
            ),
        ),
        topology.Conv("conv3", 16, 3, padding=1),
    ),
    last_pool=topology.MaxPool("pool3", 3, 2),
    size=64,
    hidden=(24, 20),
    kernel_std=None,
    scale=1 / 64,
)


def _shapes(model, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def _count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


# By hand from the tables: convolutions, then the whole network without SPP, with 30 and 50 bins.
PARAMETERS = {
    "zf5": (3_726_464, 62_357_608, 56_066_152, 77_037_672),
    "convnet_star5": (3_747_200, 62_378_344, 56_086_888, 77_058_408),
    "overfeat5": (6_528_640, 102_908_520, 90_325_608, 132_268_648),
    "overfeat7": (11_248_256, 107_628_136, 95_045_224, 136_988_264),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_of_the_paper(name):
    pyramids = (None, (4, 3, 2, 1), (6, 3, 2, 1))
    trees = [_shapes(spp_jax.make_model(name, levels=levels), 224) for levels in pyramids]
    assert (_count(trees[0]["backbone"]), *map(_count, trees)) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "count"), [("googlenet", 6_998_552), ("squeezenet1_1", 1_235_496)]
)
def test_published_parameter_counts(name, count):
    model = spp_jax.make_model(name, levels=(1,), reduce="mean")
    assert _count(_shapes(model, 224)) == count


def test_digits_parameter_count():
    """Checkpoints hold the network's name only: a change of its table would orphan them."""
    params = _shapes(spp_jax.make_model("digits", levels=(4, 2, 1), num_classes=10), 64)
    assert _count(params) == 717_514


def test_zf5_tree_is_the_same_at_every_size():
    model = spp_jax.make_model("zf5")
    params = _shapes(model, 224)
    for size in (180, 97, 333):
        chex.assert_trees_all_equal_shapes_and_dtypes(_shapes(model, size), params)
    assert list(params) == ["backbone", "head"]
    assert sorted(params["backbone"]) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert sorted(params["head"]) == ["fc6", "fc7", "fc8"]
    assert params["head"]["fc6"]["kernel"].shape == (50 * 256, 4096)


@pytest.mark.parametrize(("size", "side"), [(224, 13), (180, 10)])
def test_zf5_shapes(size, side):
    model = spp_jax.make_model("zf5")
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8)
    variables = {"params": _shapes(model, size)}
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="maps"), variables, images)
    chex.assert_shape(maps["conv5"], (2, side, side, 256))
    chex.assert_shape(maps["pool"], (2, 12800))
    chex.assert_shape([maps["fc6"], maps["fc7"]], (2, 4096))
    chex.assert_shape(maps["logits"], (2, 1000))
    names = {layer.name for layer in backbones.ZF5.layers}
    assert set(maps) == names | {"pool", "fc6", "fc7", "logits"}


def test_initial_values_are_the_released_ones():
    model = spp_jax.make_model("zf5", levels=(1,), num_classes=5)
    # Under jit the convolutions that initialisation runs are left out.
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    params = variables["params"]
    ones = {k: float(v["bias"][0]) for part in params.values() for k, v in part.items()}
    assert ones == {
        "conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 1,
    }  # fmt: skip
    # 1.3 million samples: the deviation is known to 0.1 %.
    assert float(params["backbone"]["conv4"]["kernel"].std()) == pytest.approx(0.01, rel=0.01)


@pytest.fixture(scope="module")
def tiny():
    model = spp_jax.make_model(TINY, levels=(3, 2, 1), num_classes=7)
    return model, jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 64, 64, 3)))


SIZES = [(64, 64), (50, 71), (96, 33), (15, 80)]


def _canvas(sizes):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in sizes]
    canvas = np.full((len(sizes), 96, 96, 3), 201, np.uint8)  # rubbish beyond the extents
    for row, image in zip(canvas, images):
        row[: image.shape[0], : image.shape[1]] = image
    return images, canvas, jnp.asarray(sizes)


def test_padded_images_give_what_each_gives_alone(tiny):
    model, variables = tiny
    images, canvas, extents = _canvas(SIZES)
    run = jax.jit(lambda x, e: model.apply(variables, x, extents=e, method="maps"))
    alone = jax.jit(lambda x: model.apply(variables, x, method="maps"))
    together = run(canvas, extents)
    for i, image in enumerate(images):
        for name, expected in alone(image[None]).items():
            output = together[name][i]
            if output.ndim == 3:
                height, width = expected.shape[1:3]
                assert float(jnp.abs(output[height:]).sum() + jnp.abs(output[:, width:]).sum()) == 0
                output = output[:height, :width]
            # The promise is 1e-4 of the map's scale; float32 sums in another order take 1e-6.
            scale = float(jnp.abs(expected).max())
            np.testing.assert_allclose(output, expected[0], rtol=0, atol=1e-5 * scale)


def test_features_and_head_are_the_two_halves(tiny):
    model, variables = tiny
    _, canvas, extents = _canvas(SIZES)
    logits = jax.jit(lambda x, e: model.apply(variables, x, extents=e))(canvas, extents)
    pooled = jax.jit(lambda x, e: model.apply(variables, x, e, method="features"))(canvas, extents)
    chex.assert_shape(pooled, (4, 14 * 16))
    # Same arithmetic in two programs: float32 roundings.
    again = model.apply(variables, pooled, method="head")
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-4)


def test_maps_have_the_names_and_sides_of_the_table(tiny):
    model, variables = tiny
    maps = jax.eval_shape(
        lambda x: model.apply(variables, x, method="maps"), jnp.zeros((2, 75, 64, 3))
    )
    heights, widths = (topology.sides(TINY, side) for side in (75, 64))
    channels = topology.channels(TINY)
    assert {"mixed/reduce", "mixed/1x1", "mixed/pool", "mixed/pool_proj", "mixed"} < set(heights)
    shapes = {name: x.shape for name, x in maps.items() if x.ndim == 4}
    expected = {n: (2, heights[n], widths[n], channels[n]) for n in heights}
    assert shapes == expected
    assert channels["mixed"] == 5 + 7
    tree = variables["params"]["backbone"]
    assert set(tree["mixed"]) == {"reduce", "1x1", "pool_proj"}
    assert tree["mixed"]["pool_proj"]["kernel"].shape == (3, 3, 6, 7)


def test_window_logits_are_the_head_of_pooled_windows(tiny):
    model, variables = tiny
    _, canvas, extents = _canvas(SIZES[:2])
    cells = np.asarray([[(0, 0, 3, 2), (1, 2, 2, 4)], [(0, 0, 1, 1), (2, 1, 5, 6)]], np.int32)
    apply = jax.jit(model.apply, static_argnames="method")
    logits = apply(variables, canvas, cells, extents=extents, method="window_logits")
    fmap = apply(variables, canvas, extents=extents, method="maps")["conv3"]
    for i in range(2):
        pooled = [reference.pool_window(np.asarray(fmap[i]), w, model.levels) for w in cells[i]]
        expected = model.apply(variables, np.stack(pooled), method="head")
        # One matrix product of 2 rows, or of 4: float32 sums in another order.
        np.testing.assert_allclose(logits[i], expected, rtol=1e-5, atol=1e-6)


def test_a_mean_image_is_warped_to_each_image(tiny):
    model, variables = tiny
    images, canvas, extents = _canvas(SIZES[:2])
    apply = jax.jit(model.apply)
    mean = np.random.default_rng(1).uniform(0, 255, (48, 48, 3)).astype(np.float32)
    stored = {**variables, "constants": {"mean": mean}}
    together = apply(stored, canvas, extents=extents)
    for i, image in enumerate(images):
        alone = apply(stored, image[None])
        # The weights of the warp are float32 functions of a scale that is traced in one case.
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-3, atol=1e-4)
        # Pillow's bilinear is the same triangle kernel.
        channels = [
            np.asarray(Image.fromarray(c).resize(image.shape[1::-1], Image.Resampling.BILINEAR))
            for c in np.moveaxis(mean, 2, 0)
        ]
        difference = image - np.stack(channels, axis=2) + np.asarray(TINY.mean)
        expected = apply(variables, difference[None].astype(np.float32))
        np.testing.assert_allclose(alone, expected, rtol=1e-3, atol=1e-4)


def test_a_channel_mean_takes_the_place_of_the_networks_constant(tiny):
    model, variables = tiny
    images, _, _ = _canvas(SIZES[:1])
    stored = {**variables, "constants": {"mean": np.asarray([10.0, 20, 30], np.float32)}}
    moved = images[0].astype(np.float32) - [10, 20, 30] + np.asarray(TINY.mean)
    apply = jax.jit(model.apply)
    logits, expected = apply(stored, images[0][None]), apply(variables, moved[None])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_classifier_before_the_mean():
    """SqueezeNet as published: logits are the mean over cells of a rectified classifier."""
    net = dataclasses.replace(TINY, hidden=(), cell_classifier="conv10")
    model = spp_jax.make_model(net, levels=(1,), reduce="mean", num_classes=9)
    images, canvas, extents = _canvas(SIZES[:2])
    variables = jax.jit(model.init)(jax.random.key(0), canvas)
    apply = jax.jit(model.apply, static_argnames="method")
    kernel, bias = (np.asarray(variables["params"]["head"]["fc6"][k]) for k in ("kernel", "bias"))
    logits = apply(variables, canvas, extents=extents)
    pooled = apply(variables, canvas, extents=extents, method="features")
    np.testing.assert_array_equal(model.apply(variables, pooled, method="head"), logits)
    for i, image in enumerate(images):
        maps = apply(variables, image[None], method="maps")
        cells = np.maximum(np.asarray(maps["conv3"])[0] @ kernel + bias, 0)
        # float32 sums in another order
        np.testing.assert_allclose(maps["conv10"][0], cells, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits[i], cells.mean((0, 1)), rtol=1e-4, atol=1e-5)
    other = spp_jax.make_model(net, levels=(2, 1), num_classes=9)
    assert not other.classifies_cells
    assert _shapes(other, 64)["head"]["fc6"]["kernel"].shape == (5 * 16, 9)


def test_the_only_dense_layer_drops_its_input():
    net = dataclasses.replace(TINY, hidden=())
    model = spp_jax.make_model(net, levels=(1,), num_classes=3)
    images = _canvas(SIZES[:1])[0][0][None]
    variables = jax.jit(model.init)(jax.random.key(0), images)
    keys = [{"dropout": jax.random.key(i)} for i in range(2)]
    apply: Any = functools.partial(model.apply, variables, images, train=True)
    first, second = (apply(rngs=k) for k in keys)
    assert not np.array_equal(first, second)


def test_uint8_and_float_images_are_the_same(tiny):
    model, variables = tiny
    image = _canvas(SIZES)[1][:1]
    a = model.apply(variables, image)
    np.testing.assert_array_equal(a, model.apply(variables, image.astype(np.float32)))


def test_dropout_only_in_training(tiny):
    model, variables = tiny
    image = _canvas(SIZES)[1][:1]
    keys = [{"dropout": jax.random.key(i)} for i in range(2)]
    a, b = (model.apply(variables, image, train=True, rngs=key) for key in keys)
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(model.apply(variables, image), model.apply(variables, image))


def test_bfloat16_keeps_float32_parameters_and_logits(tiny):
    model, variables = tiny
    half = spp_jax.make_model(TINY, levels=(3, 2, 1), num_classes=7, dtype="bfloat16")
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(half.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))),
        jax.eval_shape(lambda v: v, variables),
    )
    image = _canvas(SIZES)[1][:1]
    maps = jax.jit(lambda x: half.apply(variables, x, method="maps"))(image)
    assert maps["conv3"].dtype == jnp.bfloat16
    assert maps["logits"].dtype == jnp.float32
    exact = jax.jit(model.apply)(variables, image)
    # Six layers of numbers of 8 bits: about 2^-8 of the scale each.
    np.testing.assert_allclose(maps["logits"], exact, rtol=0, atol=0.05 * float(abs(exact).max()))


def test_cast_parameters_give_the_same_logits(tiny):
    model, variables = tiny
    images = _canvas(SIZES)[1][:1]
    low = model.clone(dtype="bfloat16")
    cast = sppnet.cast_params(low, variables)
    assert {x.dtype for x in jax.tree.leaves(cast)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(low.apply(cast, images), low.apply(variables, images))
    # In float32 there is nothing to cast, and nothing is copied.
    same = sppnet.cast_params(model, variables)
    assert jax.tree.leaves(same)[0] is jax.tree.leaves(variables)[0]


def test_fc6_of_two_matrices_is_the_nearest_of_its_rank(tiny):
    model, variables = tiny
    kernel = np.asarray(variables["params"]["head"]["fc6"]["kernel"])
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    factored, smaller = sppnet.factor_fc6(model, variables, 3)
    head = smaller["params"]["head"]
    product = head["fc6_first"]["kernel"] @ head["fc6"]["kernel"]
    # By the eigenvectors of kernel' @ kernel, whose rounding is that of the largest value's square.
    expected = (left[:, :3] * values[:3]) @ right[:3]
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-4 * values[0])
    # A network whose fc6 has this rank gives the same logits either way, and any dtype.
    low = variables["params"]["head"] | {"fc6": {**head["fc6"], "kernel": jnp.asarray(expected)}}
    exact = {"params": variables["params"] | {"head": low}}
    images = _canvas(SIZES)[1]
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 2e-2)):
        logits: Any = model.clone(dtype=dtype).apply(exact, images)
        as_two: Any = factored.clone(dtype=dtype).apply(smaller, images)
        np.testing.assert_allclose(as_two, logits, atol=tolerance * float(abs(logits).max()))


@pytest.mark.parametrize(
    ("name", "rank", "message"),
    [
        ("zf5", 0, "fc6 of zf5 is 12800 x 4096: its rank is from 1 to 3103, got 0"),
        ("zf5", 3104, "its rank is from 1 to 3103, got 3104"),
        ("googlenet", 5, "googlenet has no fc6 that is one matrix"),
    ],
)
def test_ranks_that_save_nothing_are_refused(name, rank, message):
    with pytest.raises(ValueError, match=message):
        sppnet.check_fc6_rank(spp_jax.make_model(name), rank)


def test_without_spp_one_size_is_taken_and_others_are_named():
    model = spp_jax.make_model("zf5", levels=None)
    with pytest.raises(ValueError, match="takes 224x224 images only, got 180x224"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 180, 224, 3)))


@pytest.mark.parametrize(
    ("images", "extents", "message"),
    [
        ((1, 30, 64, 3), None, "at least 31x31 pixels, got 30x64"),
        ((1, 64, 64, 1), None, r"images must be \(N, H, W, 3\), got shape \(1, 64, 64, 1\)"),
        ((64, 64, 3), None, "got shape"),
        ((2, 64, 64, 3), (1, 2), r"extents must be \(2, 2\)"),
    ],
)
def test_wrong_images_are_named(images, extents, message):
    model = spp_jax.make_model("zf5")
    extents = None if extents is None else jnp.ones(extents, jnp.int32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, extents=extents), jnp.zeros(images)
        )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet50", {}, "no network 'resnet50'; there are zf5"),
        ("zf5", {"levels": (6, 0)}, "levels"),
        ("zf5", {"dtype": "float16"}, "'float16'"),
        ("zf5", {"reduce": "sum"}, "'sum'"),
        ("zf5", {"lrn": "none"}, "'none'"),
        ("zf5", {"num_classes": 0}, "num_classes .* 0"),
        ("zf5", {"dropout": 1.0}, r"dropout .* 1\.0"),
        ("googlenet", {"levels": None}, "googlenet has no form without SPP"),
    ],
)
def test_wrong_arguments_of_make_model_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        spp_jax.make_model(name, **arguments)
