"""Fine-tuning: what fits is restored, the rest is named, and resuming goes on from there."""

import dataclasses
import functools
import os
import shutil

import jax
import numpy as np
import pytest

import spp_jax
from spp_jax import checkpoint, errors, sharding
from spp_jax import config as config_lib
from spp_jax.evaluation import classify
from spp_jax.models import backbones
from spp_jax.training import classifier, schedule, transfer
from spp_jax.training import state as state_lib
from tests import folders
from tests.support import checkpoints, said

EVALUATE = functools.partial(classify.evaluate, protocol="center")
MEAN = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)


def _model(levels=(2, 1), num_classes=2, **options):
    return spp_jax.make_model("digits", levels=levels, num_classes=num_classes, **options)


def _save(workdir, model, class_names, constants):
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", model.levels
    config.train.sizes = (32,)
    params = jax.jit(model.init)(jax.random.key(9), np.zeros((1, 32, 32, 3)))["params"]
    meta = checkpoint.Meta(5, config, class_names, 0, {})
    checkpoint.save_network(str(workdir), {"params": params, "constants": constants}, meta)
    return params


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start")
    return str(path), _save(path, _model(num_classes=3), ("a", "b", "c"), {"mean": MEAN})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folders.make_folder(tmp_path_factory.mktemp("images"), {"train": 8, "val": 5})


def _config(folder, start):
    config = config_lib.Config(seed=5, init_from=start)
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.path, config.data.batch_size = folder, 8
    config.data.shorter_side, config.data.crop_size = 36, 32
    config.train.sizes, config.train.num_epochs = (32,), 1
    config.train.learning_rate, config.train.log_every_steps = 0.0001, 1
    config_lib.validate(config)
    return config


def test_other_classes_leave_only_the_classifier_fresh(start):
    path, params = start
    model = _model(num_classes=2)
    plan = transfer.make_plan(path, model, ("x", "y"))
    assert set(plan.fresh) == {"head/fc7/bias", "head/fc7/kernel"}
    assert plan.fresh["head/fc7/bias"] == "2 classes, not those of its 3"
    assert plan.unused == ()
    kept = [params["backbone"], params["head"]["fc6"]]
    assert plan.num_restored == sum(x.size for x in jax.tree.leaves(kept))
    assert "restored 12 arrays" in plan.lines()
    assert "and the mean" in plan.lines()
    np.testing.assert_array_equal(plan.constants["mean"], MEAN)

    optimizer = schedule.make_optimizer(config_lib.Config().train, 1)
    state = state_lib.init_state(
        model, optimizer, 0, 32, sharding.make_mesh(), constants=plan.constants
    )
    started = transfer.apply_plan(plan, state)
    jax.tree.map(np.testing.assert_array_equal, started.params["backbone"], params["backbone"])
    jax.tree.map(np.testing.assert_array_equal, started.params["head"]["fc6"], kept[1])
    fresh = state.params["head"]["fc7"]["kernel"]
    np.testing.assert_array_equal(started.params["head"]["fc7"]["kernel"], fresh)


def test_the_classifier_is_restored_where_the_classes_are_the_same(start):
    path, _ = start
    same, other = (
        transfer.make_plan(path, _model(num_classes=3), names)
        for names in (("a", "b", "c"), ("a", "c", "b"))
    )
    assert same.fresh == {}
    assert set(other.fresh) == {"head/fc7/bias", "head/fc7/kernel"}


def test_another_pyramid_needs_another_fc6(start):
    plan = transfer.make_plan(start[0], _model(levels=(3, 1), num_classes=3), ("a", "b", "c"))
    assert plan.fresh == {
        "head/fc6/bias": "goes with head/fc6/kernel",
        "head/fc6/kernel": "(960, 256) here, (480, 256) there",
    }


def test_a_bias_is_taken_only_with_its_kernel(start):
    digits = backbones.BACKBONES["digits"]
    layers = [
        dataclasses.replace(layer, kernel=7, padding=3) if layer.name == "conv2" else layer
        for layer in digits.layers
    ]
    wider = dataclasses.replace(digits, layers=tuple(layers))
    model = spp_jax.make_model(wider, levels=(2, 1), num_classes=3)
    plan = transfer.make_plan(start[0], model, ("a", "b", "c"))
    there = start[1]["backbone"]["conv2"]["kernel"].shape
    assert plan.fresh == {
        "backbone/conv2/bias": "goes with backbone/conv2/kernel",
        "backbone/conv2/kernel": f"(7, 7, {there[2]}, {there[3]}) here, {there} there",
    }
    assert "backbone/conv1/bias" in plan.restored
    assert not {*plan.fresh} & {*plan.restored}


def test_a_start_of_which_only_biases_are_as_long_is_refused(start):
    # conv2 and conv4 of the two networks have as many channels, and other kernels.
    other = spp_jax.make_model("zf5_small", levels=(2, 1), num_classes=3)
    sentence = "none of its convolutions fits zf5_small; it is of network digits"
    with pytest.raises(errors.InputError, match=sentence):
        transfer.make_plan(start[0], other, ("a", "b", "c"))


def test_what_cannot_be_started_from_is_named(start, tmp_path):
    with pytest.raises(errors.InputError, match=r"config.init_from=/nowhere: no checkpoint"):
        transfer.make_plan("/nowhere", _model(), ("a", "b"))
    other = spp_jax.make_model("squeezenet1_1", levels=(1,), num_classes=2)
    with pytest.raises(errors.InputError, match="none of its convolutions fits squeezenet1_1; it"):
        transfer.make_plan(start[0], other, ("a", "b"))


def test_classes_are_the_same_by_wordnet_identifier(tmp_path):
    _save(tmp_path, _model(), ("n00000001 tench", "n00000002 crane"), {})
    for names, num_fresh in ((("n00000001", "n00000002"), 0), (("n00000002", "n00000001"), 2)):
        assert len(transfer.make_plan(str(tmp_path), _model(), names).fresh) == num_fresh


@pytest.mark.parametrize("part", ["params", "constants"])
def test_a_damaged_start_is_not_taken_for_another_network(start, tmp_path, part):
    workdir = shutil.copytree(start[0], tmp_path / "copy")
    shutil.rmtree(workdir / "checkpoints" / "5" / part)
    with pytest.raises(errors.InputError, match=f"is damaged: its {part} cannot be read"):
        transfer.make_plan(str(workdir), _model(), ("a", "b"))
    with pytest.raises(errors.InputError, match="damaged"):
        spp_jax.load(workdir)


def test_a_fine_tuned_network_is_near_its_start_and_keeps_its_mean(folder, start, tmp_path):
    workdir, recorder = str(tmp_path / "run"), said.Recorder()
    config = _config(folder, start[0])
    config.data.mean = "channel"  # the mean of the start is taken
    classifier.train(config, workdir, EVALUATE, progress=recorder)
    assert "init_from" in recorder.text
    assert "fresh: head/fc7/kernel (2 classes, not those of its 3)" in recorder.text
    _, variables, _ = spp_jax.load(workdir)
    np.testing.assert_array_equal(variables["constants"]["mean"], MEAN)
    near = lambda a, b: np.testing.assert_allclose(a, b, atol=0.05)  # noqa: E731
    jax.tree.map(near, variables["params"]["backbone"], start[1]["backbone"])


def test_nothing_is_written_when_the_start_does_not_fit(folder, tmp_path):
    workdir = str(tmp_path / "run")
    with pytest.raises(errors.InputError, match="no checkpoint there"):
        classifier.train(_config(folder, str(tmp_path)), workdir, EVALUATE)
    assert not os.path.exists(workdir)


@pytest.mark.parametrize("mean", ["channel", "image"])
def test_the_mean_of_the_training_images_is_kept(folder, tmp_path, mean):
    config = _config(folder, "")
    config.data.mean, config.data.mean_examples = mean, 0
    config.train.checkpoint_every_steps, config.train.num_epochs = 1, 2
    config_lib.validate(config)
    unbroken, broken = str(tmp_path / "a"), str(tmp_path / "b")
    classifier.train(config, unbroken, EVALUATE)
    stream_mean = spp_jax.load(unbroken)[1]["constants"]["mean"]
    assert stream_mean.shape == ((3,) if mean == "channel" else (32, 32, 3))
    assert 0 < float(stream_mean.min()) <= float(stream_mean.max()) < 255
    # Gone on from the first step, without a look at the mean of the images.
    classifier.train(config, broken, EVALUATE)
    last = checkpoints.newest(broken)
    os.rename(last, f"{tmp_path}/away")
    classifier.train(config, broken, EVALUATE)
    params = [spp_jax.load(w)[1] for w in (unbroken, broken)]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_a_smoke_run_of_any_config_is_short():
    config = config_lib.Config()
    config.run.smoke = True
    config_lib.make_smoke(config)
    config_lib.validate(config)
    assert (config.train.num_epochs, config.train.steps_per_epoch) == (2, 2)
    assert (config.data.batch_size, config.eval.num_examples) == (8, 32)
    config_lib.make_smoke(config, 3)
    assert config.data.batch_size == 9
    random = config_lib.Config()
    random.train.size_schedule, random.train.sizes = "random", (224, 180, 200)
    config_lib.make_smoke(random)
    assert random.train.num_epochs == 2


def test_nothing_is_written_when_no_image_has_a_mean(tmp_path):
    path = folders.make_folder(tmp_path / "images", {"train": 8, "val": 5})
    for file in (tmp_path / "images" / "train").rglob("*.png"):
        file.write_bytes(b"rubbish")
    config = _config(path, "")
    config.data.mean = "image"
    with pytest.raises(errors.InputError, match="none of 16 images can be read for their mean"):
        classifier.train(config, str(tmp_path / "run"), EVALUATE)
    assert not os.path.exists(tmp_path / "run")
