"""Windows of images of many shapes at several scales: each as it would be alone."""

import jax
import numpy as np
import pytest

import spp_jax
from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.canvas import arithmetic
from spp_jax.data import images
from spp_jax.data.sources import voc
from spp_jax.detection import dataset
from spp_jax.detection.windows import regions, scales
from tests.detection import shapes


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    root = shapes.make_voc(tmp_path_factory.mktemp("shapes"), num_train=5, num_test=1)
    network = shapes.make_network(tmp_path_factory.mktemp("network"))
    model, variables, _ = checkpoint.load(network)
    return dataset.read(voc.VocSource(root, "trainval")), model, variables


def _windows(size, seed):
    rng = np.random.default_rng(seed)
    height, width = size
    corner = rng.uniform(0, [width - 12, height - 12], (30, 2))
    windows = np.concatenate([corner, corner + rng.uniform(4, 60, (30, 2))], axis=1)
    windows = np.minimum(windows, [width, height, width, height])
    return np.concatenate([windows, windows[:3] + 0.01])  # on the same cells


def test_features_are_those_of_each_image_alone(setup):
    data, model, variables = setup
    config = config_lib.FeatureConfig(
        levels=(2, 1), layer="fc6", scales=(64, 96), target_side=32, num_canvases=1
    )
    pools = regions.Regions(model, variables, config)
    features = {
        pooled.image: pooled
        for pooled in pools.stream(
            data.source,
            pools.plan(data.sizes),
            lambda data, name, image: np.zeros((0, 4), np.float32),
            lambda index, loaded: _windows(loaded.size, index),
            lambda index, sentence: pytest.fail(sentence),
        )
    }
    assert sorted(features) == list(range(5))
    alone_maps = jax.jit(lambda x: model.apply(variables, x, method="maps")[pools.map])
    index = 4
    example = data.source[index]
    image = images.decode(example.data, example.name)
    size = image.shape[0], image.shape[1]
    windows = _windows(size, index)
    chosen = scales.choose_scale(windows, size, (64, 96), target_side=32, rule="area")
    assert set(chosen) == {0, 1}
    cells = scales.to_cells(windows, size, (64, 96), chosen, model.backbone, pools.map)
    pooled = np.zeros((len(windows), 5 * 96), np.float32)
    for number, scale in enumerate((64, 96)):
        alone = images.resize_shorter(image, scale)[None]
        fmap = alone_maps(alone)[0]
        rows = np.flatnonzero(chosen == number)
        pooled[rows] = spp_jax.pool_windows(fmap, cells[rows], (2, 1))
    layer = model.apply(variables, pooled, method="head_layers")["fc6"]
    own = features[index]
    # Convolutions on a larger canvas add up in another order.
    np.testing.assert_allclose(np.asarray(own.pool)[own.row], pooled, atol=1e-4)
    np.testing.assert_allclose(np.asarray(own.layer)[own.row], layer, atol=1e-4)
    # The last three windows are on the cells of the first three, and share their rows.
    assert own.row[-3:].tolist() == own.row[:3].tolist()
    assert len(np.unique(own.row)) == len(np.unique(np.c_[chosen, cells], axis=0))


def test_fc6_of_a_rank_is_that_of_the_nearest_matrix(setup):
    data, model, variables = setup
    config = config_lib.FeatureConfig(levels=(2, 1), layer="fc6", scales=(96,), num_canvases=1)
    pools = regions.Regions(model, variables, config, fc6_rank=30)
    assert pools.num_features == (480, 256)
    (pooled,) = pools.stream(
        data.source,
        pools.plan({0: data.sizes[0]}),
        lambda data, name, image: np.zeros((0, 4), np.float32),
        lambda index, loaded: _windows(loaded.size, index),
        lambda index, sentence: pytest.fail(sentence),
    )
    fc6 = variables["params"]["head"]["fc6"]
    left, values, right = np.linalg.svd(fc6["kernel"], full_matrices=False)
    product = pooled.pool @ (left[:, :30] * values[None, :30]) @ right[:30]
    layer = np.maximum(product + fc6["bias"][None], 0)
    scale = float(layer.max())
    np.testing.assert_allclose(pooled.layer, layer, atol=1e-4 * scale)
    whole = np.maximum(pooled.pool @ fc6["kernel"] + fc6["bias"][None], 0)
    assert abs(whole - layer).max() > 0.1 * scale
    with pytest.raises(errors.InputError, match=r"config\.test\.fc6_rank=167: fc6 of digits is "):
        regions.check_features(model, config, fc6_rank=167)


def test_images_without_windows_come_out_empty_and_unreadable_ones_not(setup):
    data, model, variables = setup
    config = config_lib.FeatureConfig(layer="pool", scales=(64,), num_canvases=1)
    pools = regions.Regions(model, variables, config)
    refused = {}

    def propose(encoded, name, image):
        if name.endswith("a01.jpg"):
            raise errors.ImageError(f"{name}: no windows")
        return np.asarray([[0, 0, image.shape[1], image.shape[0]]], np.float32)

    features = list(
        pools.stream(
            data.source,
            pools.plan(data.sizes),
            propose,
            lambda index, loaded: loaded.proposals[: index != 2],
            refused.__setitem__,
        )
    )
    assert sorted(pooled.image for pooled in features) == [0, 2, 3, 4]
    assert list(refused) == [1]
    assert len(next(pooled for pooled in features if pooled.image == 2).row) == 0
    # The whole image is the whole map.
    example = data.source[3]
    image = images.resize_shorter(images.decode(example.data, example.name), 64)[None]
    whole = model.apply(variables, image, method="features")
    own = next(pooled for pooled in features if pooled.image == 3)
    np.testing.assert_allclose(np.asarray(own.pool)[own.row], whole, atol=1e-4)


def test_canvases_hold_every_image_at_every_scale():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 900, (300, 2)).tolist():
        planned = arithmetic.shorter_size(height, width, regions.PLANNED)
        for scale, canvas in zip((97, 480, 1200), regions.scale_canvas(planned, (97, 480, 1200))):
            held = arithmetic.shorter_size(height, width, scale)
            assert held[0] <= canvas[0] <= held[0] + 3
            assert held[1] <= canvas[1] <= held[1] + 3


def test_window_counts_are_few():
    counts = {regions.padded_count(n) for n in range(1, 3000)}
    assert sorted(counts) == [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072]
    assert all(regions.padded_count(n) >= n for n in range(1, 3000))


def test_default_targets():
    from spp_jax.models import backbones

    assert regions.default_target(backbones.ZF5, "area") == 224
    assert regions.default_target(backbones.ZF5, "linear") == 13 * 16
    assert regions.default_target(backbones.OVERFEAT7, "linear") == 18 * 12


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("googlenet", {"map": "inception_9"}, "has no such map; it has conv1, pool1"),
        ("googlenet", {"layer": "fc6"}, "config.features.layer=fc6: googlenet has pool"),
        ("zf5", {"levels": (3, 1)}, r"levels=\(3, 1\), reduce=max: fc7 of this network stands on"),
        ("zf5", {"scales": (8,)}, r"config.features.scales=\(8,\): zf5 takes at least"),
    ],
)
def test_what_a_network_does_not_have_is_refused(name, changes, message):
    model = spp_jax.make_model(name)
    with pytest.raises(errors.InputError, match=message):
        regions.check_features(model, config_lib.FeatureConfig(**changes))
    nospp = spp_jax.make_model("zf5", levels=None)
    with pytest.raises(errors.InputError, match="without SPP"):
        regions.check_features(nospp, config_lib.FeatureConfig())
    assert jax.device_count() == 4
