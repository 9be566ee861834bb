"""Evaluation: exact counts, ranks, and padded batches that equal each image alone."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

import spp_jax
from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import tables
from spp_jax.data import images
from spp_jax.data.sources import folders as folders_lib
from spp_jax.evaluation import classify, protocols
from spp_jax.models import backbones
from tests import folders
from tests.pooling import reference
from tests.support import networks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = folders.make_folder(tmp_path_factory.mktemp("images"), {"": 11})
    with open(f"{path}/dark/5.png", "r+b") as f:
        f.truncate(200)
    return path


@pytest.fixture(scope="module")
def network():
    return networks.small()


def _config(**fields):
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.shorter_side, config.data.crop_size, config.data.batch_size = 40, 32, 8
    config.train.sizes = (32,)
    config.eval.canvas_step = 16
    for name, value in fields.items():
        setattr(config.eval, name, value)
    return config


def _alone(network: networks.Network, folder, make_scores, indices: Sequence[int] = range(22)):
    """Scores one image at a time with plain numpy: the slow second implementation."""
    source = folders_lib.scan_folder(folder, "")
    count, loss, top1, top5 = 0, 0.0, 0, 0
    for i in indices:
        example = source[i]
        try:
            image = images.decode(example.data, example.name)
        except errors.ImageError:
            continue
        scores = np.mean(make_scores(image), axis=0)
        order = np.argsort(-scores, kind="stable").tolist()
        count += 1
        loss -= np.log(scores[example.label])
        top1 += order[0] == example.label
        top5 += example.label in order[:5]
    return {"num_examples": count, "loss": loss / count, "top1": top1 / count, "top5": top5 / count}


def _softmax(logits):
    return np.asarray(jax.nn.softmax(np.asarray(logits, np.float32).astype(np.float64)))


def _shorter(image, side):
    return images.resize_shorter(image, side, kernel="triangle")


def _by_crops(network: networks.Network, make_crops):
    model, variables = network
    apply = jax.jit(model.apply)
    return lambda image: np.concatenate(
        [_softmax(apply(variables, x[None])) for x in make_crops(image)]
    )


def _ten_crops(image):
    image = _shorter(image, 40)
    height, width, _ = image.shape
    corners = [(0, 0), (0, width - 32), (height - 32, 0), (height - 32, width - 32)]
    corners.append(((height - 32) // 2, (width - 32) // 2))
    crops = [image[y : y + 32, x : x + 32] for y, x in corners]
    return crops + [crop[:, ::-1] for crop in crops]


def _multi_view(network: networks.Network):
    """The 6 + 18 + 18 views, and two full ones at 40, of an image's own maps, one by one."""
    model, variables = network
    apply_maps: Any = functools.partial(model.apply, variables, method="maps")
    apply = jax.jit(lambda x: apply_maps(x)["conv5"])
    head = jax.jit(lambda x: model.apply(variables, x, method="head"))

    def cells_in(start, count):
        # conv1 7/4 pad 3 is centred on pixel 0, pool3 3/2 on cell 1: stride 8, first centre 4. A
        # cell belongs to the window whose first and last pixel its centre lies strictly between.
        inside = [i for i in range(count) if start < 4 + 8 * i < start + 31]
        return slice(inside[0], inside[-1] + 1)

    def starts(slack):
        return (slack // 2, 0, slack) if slack else (0,)

    def make_scores(image):
        scores = []
        for scale in (32, 40, 48):
            resized = _shorter(image, scale)
            height, width, _ = resized.shape
            for shown in (resized, resized[:, ::-1]):
                fmap = np.asarray(apply(shown[None])[0])
                parts = [
                    fmap[cells_in(y, fmap.shape[0]), cells_in(x, fmap.shape[1])]
                    for y in starts(height - 32)
                    for x in starts(width - 32)
                ]
                parts += [fmap] if scale == 40 else []
                pooled = [reference.pool_rectangle(v, (2, 1)) for v in parts]
                scores.append(_softmax(head(np.stack(pooled))))
        return np.concatenate(scores)

    return make_scores


def test_multi_view_equals_windows_of_each_images_own_maps(network: networks.Network, folder):
    source = folders_lib.scan_folder(folder, "")
    config = _config(scales=(32, 40, 48), num_examples=4)
    result = classify.evaluate(*network, config, source, "multi_view")
    expected = _alone(network, folder, _multi_view(network), (0, 7, 14, 21))
    assert (result["num_views"], result["num_examples"]) == (6 + 18 + 18 + 2, 4)
    assert result["top1"] == pytest.approx(expected["top1"], abs=1e-12)
    assert result["loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32 logits


@pytest.mark.parametrize("protocol", ["full", "center", "warp", "ten_view"])
def test_batches_equal_one_image_at_a_time(network: networks.Network, folder, protocol):
    make_scores = {
        "full": _by_crops(network, lambda x: [_shorter(x, 40)]),
        "center": _by_crops(network, lambda x: [images.center_crop(_shorter(x, 40), 32)]),
        "warp": _by_crops(network, lambda x: [images.resize(x, 32, 32, kernel="triangle")]),
        "ten_view": _by_crops(network, _ten_crops),
    }[protocol]
    expected = _alone(network, folder, make_scores)
    source = folders_lib.scan_folder(folder, "")
    result = classify.evaluate(*network, _config(), source, protocol)
    assert result["num_examples"] == expected["num_examples"] == 21
    assert result["num_views"] == (10 if protocol == "ten_view" else 1)
    assert result["num_refused"] == 1
    assert result["refused"][0].startswith(f"{folder}/dark/5.png: ")
    assert result["top1"] == pytest.approx(expected["top1"], abs=1e-12)
    assert result["top5"] == pytest.approx(expected["top5"], abs=1e-12)
    assert result["loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32 logits
    # 21 images of random sizes: one canvas each would be about 21.
    assert result["num_canvases"] <= (9 if protocol == "full" else 1)


def test_the_papers_ninety_six_views():
    config = config_lib.Config()
    assert protocols.make_protocol(config, "multi_view").scales == (224, 256, 300, 360, 448, 560)
    protocol = protocols.make_protocol(config, "multi_view")
    cells = [
        len(protocol.cells(s, round(1.4 * s), backbones.ZF5))
        for s in protocols.make_protocol(config, "multi_view").scales
    ]
    # 5 x 18 + 6, two of each for the mirror image, and the full image at 256 (section 4.3).
    assert cells == [3, 9 + 1, 9, 9, 9, 9]
    assert 2 * (sum(cells) - 1) == 96


def test_some_of_the_examples(network: networks.Network, folder):
    source = folders_lib.scan_folder(folder, "")
    result = classify.evaluate(*network, _config(num_examples=5), source, "center")
    assert result["num_examples"] + result["num_refused"] == 5


def test_a_table_of_errors():
    result = {"protocol": "full", "top1": 0.75, "top5": 0.9, "scales": [256], "num_views": 1}
    lines = tables.of_protocols([{**result, "num_examples": 40, "seconds": 2.0}]).splitlines()
    assert lines[2] == "| full | 256 | 1 | 25.00 | 10.00 | 40 | 20.0 |"
    several = {**result, "protocol": "multi_view", "scales": [227], "full_scale": 256}
    lines = tables.of_protocols([{**several, "num_examples": 40, "seconds": 2.0}]).splitlines()
    assert lines[2].startswith("| multi_view | 227, full 256 | 1 |")


def test_the_same_whatever_the_batch_and_the_canvas(network: networks.Network, folder):
    source = folders_lib.scan_folder(folder, "")
    results = [
        classify.evaluate(*network, _config(batch_size=b, canvas_step=step), source, "full")
        for b, step in ((4, 16), (16, 64))
    ]
    for name in ("top1", "top5", "num_examples"):
        assert results[0][name] == results[1][name]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-5)
    assert results[0]["padded_share"] < results[1]["padded_share"] < 1


def test_the_full_view_needs_a_network_of_any_size(folder):
    config = _config()
    config.model.levels = None
    source = folders_lib.scan_folder(folder, "")
    model = spp_jax.make_model("digits", levels=None)
    with pytest.raises(errors.InputError, match="full needs a network that takes any size"):
        classify.evaluate(model, {}, config, source, "full")


def test_ranks_by_hand():
    nan = float("nan")
    logits = np.array(
        [[3.0, 1, 2], [3, 1, 2], [2, 2, 2], [2, 2, 2], [nan, nan, nan], [nan, 5, 1], [5, nan, 1]],
        np.float32,
    )
    labels = np.array([0, 1, 0, 2, 0, 1, 0])
    # Ties in the order of classes; what is not a number comes first, its own label included.
    np.testing.assert_array_equal(classify.ranks(logits, labels), [0, 2, 0, 2, 3, 1, 1])
