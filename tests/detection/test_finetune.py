"""Fine-tuning: which windows a step sees, which weights move, and resuming."""

import dataclasses
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import pytest

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.data.sources import voc
from spp_jax.detection import boxes, dataset, detector
from spp_jax.detection.learning import finetune, window_stream
from spp_jax.detection.proposals import proposing
from tests.detection import shapes
from tests.support import checkpoints

TUNE = config_lib.FinetuneConfig()


def _objects(*rows, difficult=None):
    count = len(rows)
    flags = np.zeros(count, bool) if difficult is None else np.asarray(difficult, bool)
    return dataset.Objects(np.asarray(rows, float).reshape(-1, 4), np.arange(count), flags)


def test_a_quarter_of_the_windows_is_positive():
    objects = _objects((0, 0, 10, 10), (50, 0, 60, 10))
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (400, 2)) * [1, 0.1]
    windows = np.concatenate([corner, corner + rng.uniform(5, 15, (400, 2))], axis=1)
    drawn, labels = window_stream.sample_windows(rng, windows, objects, count=64, tune=TUNE)
    overlap = boxes.iou(drawn, objects.boxes)
    assert np.sum(labels > 0) == 16
    assert np.all(overlap[labels > 0].max(axis=1) >= 0.5)
    np.testing.assert_array_equal(labels[labels > 0] - 1, overlap[labels > 0].argmax(axis=1))
    best = overlap[labels == 0].max(axis=1)
    assert np.all((best >= 0.1) & (best < 0.5))


def test_what_there_is_too_little_of_is_drawn_again():
    rng = np.random.default_rng(0)
    # One positive, the object itself; one negative, which overlaps it by 0.2.
    objects, windows = _objects((0, 0, 10, 10)), np.asarray([[0, 0, 10, 2.0], [90, 90, 95, 95]])
    options = {"count": 8, "tune": TUNE}
    drawn, labels = window_stream.sample_windows(rng, windows, objects, **options)
    assert sorted(labels.tolist()) == [0] * 6 + [1] * 2
    assert np.unique(drawn, axis=0).tolist() == [[0, 0, 10, 2], [0, 0, 10, 10]]
    _, labels = window_stream.sample_windows(rng, windows[1:], objects, **options)
    assert labels.tolist() == [1] * 8
    options["include_difficult"] = False
    difficult = _objects((0, 0, 10, 10), difficult=[True])
    _, labels = window_stream.sample_windows(rng, windows, difficult, **options)
    assert labels.tolist() == [0] * 8
    _, labels = window_stream.sample_windows(rng, windows[1:], difficult, **options)
    assert labels.tolist() == [-1] * 8


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    root = shapes.make_voc(tmp_path_factory.mktemp("shapes"), num_train=6, num_test=1)
    network = shapes.make_network(tmp_path_factory.mktemp("network"))
    config = shapes.make_config(root, network)
    tune = config.finetune
    tune.enabled, tune.num_steps, tune.images_per_batch, tune.batch_size = True, 4, 4, 32
    tune.drop_steps, tune.checkpoint_every_steps, tune.log_every_steps = (3,), 2, 1
    tune.learning_rate = 0.01
    data = dataset.read(voc.VocSource(root, "trainval"))
    cache = str(tmp_path_factory.mktemp("windows"))
    config.proposals.cache = cache
    return config, data, proposing.provide(config.proposals, cache, data, None, testing=False)


def _stream(setup, **changes):
    config, data, proposer = setup
    model, _, _ = checkpoint.load(config.checkpoint)
    return window_stream.WindowStream(config, data, proposer, model.backbone, **changes)


def test_a_step_is_a_function_of_its_number(setup):
    stream, again = _stream(setup), _stream(setup)
    row = stream.example(9)
    for name, value in again.example(9).items():
        np.testing.assert_array_equal(value, row[name])
    assert not np.array_equal(stream.example(5)["windows"], row["windows"])
    spec = stream.batch_spec(stream.size_at(2))
    assert stream.size_at(2) in stream.sizes_from(0)
    for name, (shape, dtype) in spec.items():
        assert (row[name].shape, row[name].dtype) == (shape[1:], dtype)
    # Two processes share the rows.
    second = _stream(setup, process_index=1, process_count=2)
    own, same = second.example(2 * 2 + 1), stream.example(2 * 4 + 3)
    np.testing.assert_array_equal(own["windows"], same["windows"])


def test_a_mirrored_image_has_mirrored_windows(setup):
    config, data, proposer = setup
    flipped = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, flip=False))
    plain, mirrored = _stream(setup), _stream((flipped, data, proposer))
    num_mirrored = 0
    for place in range(8):
        a, b = plain.example(place), mirrored.example(place)
        height, width = a["extents"]
        image, other = a["images"][:height, :width], b["images"][:height, :width]
        if np.array_equal(image, other):
            np.testing.assert_array_equal(a["windows"], b["windows"])
        else:
            num_mirrored += 1
            np.testing.assert_array_equal(image, other[:, ::-1])
            # The cells' grid is not symmetric: a side may fall on the next cell.
            span = a["windows"][:, [0, 2]].sum(1) + b["windows"][:, [0, 2]].sum(1)
            assert np.ptp(span) <= 4
    assert 0 < num_mirrored < 8


def _flat(tree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(jax.device_get(tree), sep="/")


@pytest.mark.parametrize("from_layer", ["", "conv5"])
def test_only_what_is_to_be_trained_moves(setup, tmp_path, from_layer):
    config, data, proposer = setup
    config = dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, from_layer=from_layer)
    )
    start = checkpoints.newest(config.checkpoint)
    result = finetune.train(config, str(tmp_path), data, proposer, start)
    assert (result.step, result.stopped_by) == (4, None)
    _, before, _ = checkpoint.load(config.checkpoint)
    model, after, stored = checkpoint.load(tmp_path / detector.FINETUNED)
    assert model.num_classes == stored.model.num_classes == 3
    old, new = _flat(before["params"]), _flat(after["params"])
    for name in new:
        is_free = name.startswith("head/") or (from_layer and f"/{from_layer}/" in name)
        # The classifier is another one: 2 classes and the background.
        is_same = old[name].shape == new[name].shape and np.array_equal(old[name], new[name])
        assert is_same != bool(is_free), name


def test_resumed_is_unbroken(setup, tmp_path):
    config, data, proposer = setup
    start = checkpoints.newest(config.checkpoint)
    finetune.train(config, str(tmp_path / "whole"), data, proposer, start)
    half = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, num_steps=2))
    finetune.train(half, str(tmp_path / "parts"), data, proposer, start)
    # The network it started from may be gone by then.
    finetune.train(config, str(tmp_path / "parts"), data, proposer, "/nowhere")
    whole, parts = (
        _flat(checkpoint.load(tmp_path / name / detector.FINETUNED)[1]["params"])
        for name in ("whole", "parts")
    )
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def test_wrong_settings_are_refused(setup, tmp_path):
    config, data, proposer = setup
    start = checkpoints.newest(config.checkpoint)
    tune = dataclasses.replace(config.finetune, from_layer="conv9")
    with pytest.raises(errors.InputError, match="from_layer=conv9: digits has conv1, norm1"):
        finetune.train(
            dataclasses.replace(config, finetune=tune), str(tmp_path), data, proposer, start
        )
    tune = dataclasses.replace(config.finetune, images_per_batch=3, batch_size=33)
    with pytest.raises(errors.InputError, match="images_per_batch=3 does not divide evenly"):
        finetune.train(
            dataclasses.replace(config, finetune=tune), str(tmp_path), data, proposer, start
        )
    tune = dataclasses.replace(config.finetune, images_per_batch=3)
    message = r"a multiple of config\.finetune\.images_per_batch=3"
    with pytest.raises(errors.InputError, match=message):
        config_lib.validate(dataclasses.replace(config, finetune=tune))
    assert not list(tmp_path.iterdir())
