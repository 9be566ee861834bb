"""Every wrong value is named in one sentence; the config survives JSON."""

import dataclasses
import json
import math

import numpy as np
import pytest

from configs import imagenet_multisize, imagenet_nospp, imagenet_randomsize, imagenet_single
from spp_jax import config as config_lib
from spp_jax import errors, network
from spp_jax.evaluation import protocols


def _set(config, path, value):
    *parents, name = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    assert hasattr(config, name)
    setattr(config, name, value)


def test_the_defaults_are_valid():
    for config in (config_lib.Config(), config_lib.DetectionConfig(), config_lib.SvmConfig()):
        config_lib.validate(config)
        assert all(entry.rule.comment for entry in config_lib.entries(config))
    network.check(config_lib.Config())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.name", "resnet", "config.model: no network 'resnet'; there are zf5, convnet_star5"),
        ("model.levels", (6, 0), "config.model: levels must be .* (6, 0)"),
        ("model.levels", ("six",), "config.model.levels must be .* ('six',)"),
        ("model.dtype", "half", "config.model: dtype must be .* 'half'"),
        ("model.num_classes", -1, "config.model.num_classes must be at least 0, got -1"),
        ("data.batch_size", 0, "config.data.batch_size must be more than 0, got 0"),
        ("data.batch_size", "128", "config.data.batch_size must be .* got '128'"),
        ("data.view", "random", "config.data.view must be one of corners, warp, got random"),
        (
            "data.crop_size",
            300,
            "config.data.crop_size=300 is larger than config.data.shorter_side=256",
        ),
        ("data.held_out", 1.5, "config.data.held_out must be from 0 to below 1, got 1.5"),
        ("seed", 2**31, "config.seed must be from 0 to below 2147483648, got 2147483648"),
        ("train.lr_factor", 1.0, "config.train.lr_factor must be more than 0 and below 1, got 1.0"),
        ("train.drop_epochs", (2, 2), "config.train.drop_epochs must be increasing .* (2, 2)"),
        ("train.sizes", (), "config.train.sizes is empty"),
        ("train.sizes", (224, 16), "sizes=(224, 16): zf5 takes images of at least 31x31 .* 16x16"),
        (
            "train.learning_rate",
            math.inf,
            "config.train.learning_rate must be a finite number, got inf",
        ),
        (
            "train.learning_rate",
            0.0,
            "config.train.learning_rate must be more than 0, got 0.0",
        ),
        ("train.size_schedule", "step", "config.train.size_schedule must be one of epoch, random"),
        ("train.eval_protocol", "best", "config.train.eval_protocol must be one of center, full"),
        (
            "data.shorter_side",
            200,
            "config.data.crop_size=224 is larger than config.data.shorter_side=200",
        ),
    ],
)
def test_wrong_values_are_named(path, value, message):
    config = config_lib.Config()
    _set(config, path, value)

    def check():
        config_lib.validate(config)
        network.check(config)

    with pytest.raises(errors.InputError) as info:
        check()
    position = 0
    for part in message.split(" .* "):
        assert part in str(info.value)[position:]
        position = str(info.value).index(part, position) + len(part)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("Config", "train.num_epochs", 10**9, "must be at most 1,000,000, got 1000000000"),
        ("Config", "train.sizes", (64, 10**9), "must be at most 16,384, got (64, 1000000000)"),
        ("Config", "train.learning_rate", 1e30, "must be at most 1,000,000, got 1e+30"),
        ("Config", "model.levels", (100_000,), "must be at most 64, got (100000,)"),
        ("Config", "model.levels", (64, 1), "makes 4,097 bins; at most 4,096 are allowed"),
        ("Config", "model.levels", (1,) * 1001, "must be at most 1000 numbers, got (1, 1, 1, "),
        ("Config", "data.batch_size", 10**9, "must be at most 65,536, got 1000000000"),
        ("Config", "data.num_workers", 10**6, "must be at most 1,024, got 1000000"),
        ("Config", "data.path", "a\0b", "must hold no zero byte, got '"),
        ("Config", "eval.scales", (10**9,), "must be at most 16,384, got (1000000000,)"),
        ("DetectionConfig", "features.scales", (10**9,), "must be at most 16,384, got (10000"),
        (
            "DetectionConfig",
            "features.levels",
            (64, 1),
            "makes 4,097 bins; at most 4,096 are allowed",
        ),
        ("DetectionConfig", "finetune.num_steps", 2**31, "must be at most 2,147,483,647, got"),
        ("DetectionConfig", "proposals.num_processes", 10**6, "must be at most 1,024, got 1000"),
        ("SvmConfig", "size", 10**9, "must be at most 16,384, got 1000000000"),
    ],
)
def test_absurd_values_are_named(kind, path, value, message):
    config = getattr(config_lib, kind)()
    _set(config, path, value)
    with pytest.raises(errors.InputError) as info:
        config_lib.validate(config)
    assert str(info.value).startswith(f"config.{path} {message}")
    assert len(str(info.value)) < 250


def test_a_number_that_cannot_be_printed():
    config = config_lib.Config()
    config.data.num_workers = 10**5000
    message = "config.data.num_workers must be at most 1,024, got a number of thousands of digits"
    with pytest.raises(errors.InputError, match=f"^{message}$"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("flip", 10**5000, "train.flip must be bool, got a number of thousands of digits"),
        ("flip", "x" * 200, f"train.flip must be bool, got '{'x' * 99}..."),
        ("flip", np.zeros((2, 1)), "train.flip must be bool, got array([[0.],        [0.]])"),
        ("patience", -(10**5000), "train.patience must be more than 0, got a number of thousands "),
        ("lr_schedule", "a\nb", "train.lr_schedule must be one of plateau, step, got a b"),
        ("lr_schedule", "a\x1bb", "train.lr_schedule must be one of plateau, step, got a\\x1bb"),
    ],
    ids=["number", "text", "array", "negative", "lines", "escape"],
)
def test_values_are_quoted_in_one_line(path, value, message):
    config = config_lib.Config()
    setattr(config.train, path, value)
    with pytest.raises(errors.InputError) as info:
        config_lib.validate(config)
    assert str(info.value).startswith(f"config.{message}")


@pytest.mark.parametrize("levels", [np.int64(3), np.zeros(2), (np.zeros(2),), [None, 1]])
def test_levels_of_other_types(levels):
    config = config_lib.Config()
    config.model.levels = levels
    message = r"^config.model.levels must be tuple\[int, ...\] \| None, got "
    with pytest.raises(errors.InputError, match=message):
        config_lib.validate(config)


def test_scales_of_svms_that_cannot_be_printed():
    config = config_lib.SvmConfig(scales=(10**5000,))
    with pytest.raises(errors.InputError, match=r"^config.scales: Exceeds the limit"):
        config_lib.validate(config)


def test_a_value_nested_too_deeply():
    value: list = []
    for _ in range(100_000):
        value = [value]
    config = config_lib.Config()
    config.train.flip = value  # pyright: ignore[reportAttributeAccessIssue]
    message = "config.train.flip must be bool, got a list nested too deeply"
    with pytest.raises(errors.InputError, match=f"^{message}$"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((-(10**400),), None),
        (("six",), None),
        ((10**5000,), "makes 1,000,000,000,000,000,000 bins; at most 4,096 are allowed"),
        (6, "must be a sequence of whole numbers, got 6"),
        ("6", "must be a sequence of whole numbers, got '6'"),
    ],
    ids=["negative", "text", "number", "one", "no tuple"],
)
def test_levels_that_are_no_bins(levels, message):
    config = config_lib.SvmConfig(rows=((config_lib.Part("conv5", levels),),))
    if message is None:
        config_lib.validate(config)  # the network refuses them
        return
    with pytest.raises(errors.InputError, match=f"^config.rows: the pyramid of conv5 {message}$"):
        config_lib.validate(config)


@pytest.mark.parametrize("scale", ["100000", "9" * 5000])
def test_absurd_scales_of_svms(scale):
    config = config_lib.SvmConfig(scales=(scale,), main_scale=scale)
    with pytest.raises(
        errors.InputError, match=r"^config.scales: scale 9*0*1?0* is more than 16,384 pixels$"
    ):
        config_lib.validate(config)


def test_every_number_has_a_largest_value():
    for config in (config_lib.Config(), config_lib.DetectionConfig(), config_lib.SvmConfig()):
        for path, kind, rule, _ in config_lib.entries(config):
            if "int" in str(kind) or "float" in str(kind):
                # `make_model` knows the limits of dropout; a scale may also be a word.
                has_own = path in ("model.dropout", "scales")
                tops = (rule.below, rule.at_most, rule.ceiling, *rule.one_of)
                assert has_own or any(top is not None for top in tops), path


@pytest.mark.parametrize("given", [(), (None,), None])
def test_no_spp_from_the_command_line(given):
    config = config_lib.Config()
    config.model.levels = given
    config.train.sizes = (224,)
    config_lib.validate(config)
    assert config.model.levels is None
    with pytest.raises(errors.InputError, match="full needs a network that takes any size"):
        protocols.check_protocol(config, "full")
    config.train.sizes = (224, 180)
    with pytest.raises(errors.InputError, match="takes 224x224 images only, got 180x180"):
        network.check(config)


def test_a_misspelt_field_of_a_preset_is_an_error():
    with pytest.raises(AttributeError, match="learing_rate"):
        config_lib.Config().train.learing_rate = 0.1  # pyright: ignore


def test_json_keeps_a_config():
    config = config_lib.Config(seed=3)
    config.model.levels = None
    config.train.sizes = (64, 48)
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert config_lib.from_dict(config_lib.Config, stored) == config
    stored["train"]["speed"] = 1
    with pytest.raises(errors.InputError, match=r"config\.train\.speed is no field"):
        config_lib.from_dict(config_lib.Config, stored)


def test_what_makes_another_run():
    old, new = config_lib.Config(), config_lib.Config()
    assert config_lib.difference(old, new) is None
    new.data.path, new.data.num_workers, new.train.log_every_steps = "/elsewhere", 8, 1
    assert config_lib.difference(old, new) is None
    new.train.sizes = (224,)
    assert config_lib.difference(old, new) == "config.train.sizes was (224, 180) and is (224,)"


def test_paths_are_made_whole_in_one_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = config_lib.Config(init_from="runs/a")
    config.data.path = "~/photos"
    config_lib.validate(config)
    assert (config.init_from, config.data.path) == (f"{tmp_path}/runs/a", f"{tmp_path}/photos")
    # A config that version 0.1.0 stored with the path as it was given is the same run's.
    stored = {**dataclasses.asdict(config), "init_from": "runs/a"}
    old = config_lib.from_dict(config_lib.Config, stored)
    assert config_lib.difference(old, config) is None


def test_paths_of_the_other_configs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    detection = config_lib.DetectionConfig(checkpoint="runs/a")
    detection.data.path, detection.proposals.path = "", "windows.npz"
    detection.proposals.cache = "gs://bucket/cache"  # no path of this machine
    config_lib.validate(detection)
    assert detection.checkpoint == f"{tmp_path}/runs/a"
    assert detection.data.path == ""
    assert detection.proposals.path == f"{tmp_path}/windows.npz"
    assert detection.proposals.cache == "gs://bucket/cache"
    svm = config_lib.SvmConfig()
    svm.data.path = "../x"
    config_lib.validate(svm)
    assert svm.data.path == str(tmp_path.parent / "x")


def test_protocols_that_do_not_fit_are_named():
    config = config_lib.Config()
    config.data.view, config.data.shorter_side = "warp", 200
    with pytest.raises(
        errors.InputError, match=r"crops 224 pixels .* config.data.shorter_side=200"
    ):
        protocols.check_protocol(config, "center")
    protocols.check_protocol(config, "full")
    config.eval.scale = 20
    with pytest.raises(errors.InputError, match=r"full at shorter side 20 .* takes at least 31"):
        protocols.check_protocol(config, "full")


@pytest.mark.parametrize("network", ["zf5", "convnet_star5", "overfeat5", "overfeat7"])
def test_imagenet_presets_are_the_papers(network):
    for preset, sizes in {
        imagenet_multisize: (224, 180),
        imagenet_randomsize: (224, 180),
        imagenet_single: (224,),
        imagenet_nospp: (224,),
    }.items():
        config = preset.get_config(network)
        config_lib.validate(config)
        train, data = config.train, config.data
        assert (config.model.name, train.sizes) == (network, sizes)
        assert (config.model.levels is None) == (preset is imagenet_nospp)
        assert (train.size_schedule == "random") == (preset is imagenet_randomsize)
        # Section 3.1 and AlexNet's recipe, which it follows.
        assert train.num_epochs == (70 if network == "zf5" else 90)
        assert (data.batch_size, data.shorter_side, data.crop_size) == (128, 256, 224)
        assert (train.momentum, train.weight_decay, train.learning_rate) == (0.9, 5e-4, 0.01)
        assert (data.view, data.mean, train.num_drops) == ("corners", "image", 2)
    with pytest.raises(errors.InputError, match="'googlenet', not of"):
        imagenet_single.get_config("googlenet")


@pytest.mark.parametrize("preset", [imagenet_multisize, imagenet_nospp])
def test_imagenet_presets_for_gpus(preset):
    plain, one, eight = (preset.get_config(f"overfeat7{kind}") for kind in ("", ",gpu1", ",gpu8"))
    assert _differing(plain, one) == {"model.dtype"}
    assert one.model.dtype == "bfloat16"
    assert _differing(one, eight) == {
        *("data.batch_size", "data.num_workers"),
        *("train.learning_rate", "train.checkpoint_every_steps"),
    }
    # Linear in the batch: 128 images at 0.01.
    assert (eight.data.batch_size, eight.train.learning_rate) == (1024, pytest.approx(0.08))
    config_lib.validate(eight)
    with pytest.raises(errors.InputError, match=r"stands 'gpu', not of \('gpu1', 'gpu8'\)"):
        preset.get_config("zf5,gpu")


def _differing(a, b):
    values = {e.path: e.value for e in config_lib.entries(a)}
    return {e.path for e in config_lib.entries(b) if values[e.path] != e.value}


@pytest.mark.parametrize(
    ("make", "path", "value", "message"),
    [
        (
            config_lib.DetectionConfig,
            "seed",
            2**32 - 1,
            "config.seed must be at most 2,147,483,647",
        ),
        (config_lib.DetectionConfig, "features.levels", (65,), "config.features.levels"),
        (config_lib.DetectionConfig, "features.levels", (64, 64), "config.features.levels"),
        (
            config_lib.Config,
            "data.num_workers",
            5000,
            "config.data.num_workers must be at most 1,0",
        ),
        (config_lib.Config, "model.levels", (64, 1), "config.model.levels"),
    ],
)
def test_stored_values_may_be_above_ceilings_of_later_versions(make, path, value, message):
    stored, config, other = make(), make(), make()
    for each in (stored, config):
        _set(each, path, value)
    config_lib.validate(stored, stored=stored)
    config_lib.validate(config, stored=stored)
    for before in (None, other):
        with pytest.raises(errors.InputError, match=f"^{message}"):
            config_lib.validate(config, stored=before)


@pytest.mark.parametrize(
    ("path", "value"), [("seed", -1), ("data.max_megapixels", 1001), ("data.max_side_ratio", 1e6)]
)
def test_other_limits_hold_for_stored_values(path, value):
    config = config_lib.Config()
    _set(config, path, value)
    with pytest.raises(errors.InputError, match=f"^config.{path} must be "):
        config_lib.validate(config, stored=config)
