"""Evaluation: exact counts, ranks, and padded batches that equal each image alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spp_jax
from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images, sources
from spp_jax.evaluation import classify
from tests import folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = folders.make_folder(tmp_path_factory.mktemp("images"), {"": 11})
    with open(f"{path}/dark/5.png", "r+b") as f:
        f.truncate(200)
    return path


@pytest.fixture(scope="module")
def network():
    model = spp_jax.make_model("digits", levels=(2, 1), num_classes=6)
    return model, model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def _config(**fields):
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.shorter_side, config.data.crop_size, config.data.batch_size = 40, 32, 8
    config.train.sizes = (32,)
    config.eval.canvas_step = 16
    for name, value in fields.items():
        setattr(config.eval, name, value)
    return config


def _alone(network, folder, view):
    """Scores one image at a time with plain numpy: the slow second implementation."""
    model, variables = network
    source = sources.scan_folder(folder, "")
    apply = jax.jit(model.apply)
    count, loss, top1, top5 = 0, 0.0, 0, 0
    for i in range(len(source)):
        example = source[i]
        try:
            image = view(images.decode(example.data, example.name))
        except images.ImageError:
            continue
        logits = np.asarray(apply(variables, image[None]), np.float64)[0]
        order = np.argsort(-logits, kind="stable").tolist()
        count += 1
        loss += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[example.label]
        top1 += order[0] == example.label
        top5 += example.label in order[:5]
    return {"num_examples": count, "loss": loss / count, "top1": top1 / count, "top5": top5 / count}


@pytest.mark.parametrize("protocol", ["full", "center", "warp"])
def test_batches_equal_one_image_at_a_time(network, folder, protocol):
    view = {
        "full": lambda x: images.resize_shorter(x, 40),
        "center": lambda x: images.center_crop(images.resize_shorter(x, 40), 32),
        "warp": lambda x: images.resize(x, 32, 32),
    }[protocol]
    expected = _alone(network, folder, view)
    source = sources.scan_folder(folder, "")
    found = classify.evaluate(*network, _config(), source, protocol)
    assert found["num_examples"] == expected["num_examples"] == 21
    assert found["num_refused"] == 1
    assert found["refused"][0].startswith(f"{folder}/dark/5.png: ")
    assert found["top1"] == pytest.approx(expected["top1"], abs=1e-12)
    assert found["top5"] == pytest.approx(expected["top5"], abs=1e-12)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32 logits
    # 21 images of random sizes: one canvas each would be about 21.
    assert found["num_canvases"] <= (9 if protocol == "full" else 1)


def test_the_same_whatever_the_batch_and_the_canvas(network, folder):
    source = sources.scan_folder(folder, "")
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
    source = sources.scan_folder(folder, "")
    model = spp_jax.make_model("digits", levels=None)
    with pytest.raises(errors.InputError, match="full needs a network that takes any size"):
        classify.evaluate(model, {}, config, source, "full")


def test_ranks_by_hand():
    nan = float("nan")
    logits = jnp.array(
        [[3.0, 1, 2], [3, 1, 2], [2, 2, 2], [2, 2, 2], [nan, nan, nan], [nan, 5, 1], [5, nan, 1]]
    )
    labels = jnp.array([0, 1, 0, 2, 0, 1, 0])
    # Ties in the order of classes; what is not a number comes first, its own label included.
    np.testing.assert_array_equal(classify.ranks(logits, labels), [0, 2, 0, 2, 3, 1, 1])
