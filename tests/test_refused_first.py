"""Settings that are wrong: refused before a workdir, or a set, is made."""

import os
from typing import Any

import pytest

from spp_jax import config as config_lib
from spp_jax import errors, network
from spp_jax.data.embedded import digit_groups, digits
from spp_jax.detection.learning import stages
from spp_jax.evaluation import protocols
from spp_jax.evaluation.svm import benchmark
from spp_jax.runs import progress
from spp_jax.training import classifier, loop
from tests import folders
from tests.detection import shapes
from tests.support import networks


def _set(config: Any, **values: Any) -> Any:
    """Sets fields by their paths, "__" for the dots."""
    for path, value in values.items():
        *rooms, name = path.split("__")
        holder = config
        for room in rooms:
            holder = getattr(holder, room)
        setattr(holder, name, value)
    return config


@pytest.fixture(scope="module", name="images")
def _images(tmp_path_factory):
    return folders.make_folder(tmp_path_factory.mktemp("images"), {"train": 5, "val": 5})


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory):
    """The data_dir of small digit scenes."""
    data_dir = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "NUM_SCENES", {"train": 20, "test": 10})
        digits.prepare(data_dir)
    return str(data_dir)


def _train(workdir: str, name: str, path: str, **values: Any) -> None:
    """Does what the command `train` does, up to the first step."""
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.name, config.data.path, config.data.batch_size = name, path, 4
    config.data.crop_size, config.data.shorter_side, config.train.sizes = 32, 36, (32,)
    _set(config, **values)
    config_lib.validate(config)
    network.check(config)
    protocols.check_protocol(config, config.train.eval_protocol)
    evaluate: Any = None
    job, saved = classifier.prepare(config, workdir, evaluate, progress.SILENT)
    loop.check(config, workdir, job, saved)
    pytest.fail("nothing was refused")


SPLITS = ("train[:0]", "train[", "train[:999999]", "nope", "train[::2]", "train[5:3]")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("field", ["data__split", "data__eval_split"])
@pytest.mark.parametrize("kind", ["folder", "made", "not made"])
def test_splits(tmp_path, images, made, split, field, kind):
    path = {"folder": images, "made": made, "not made": str(tmp_path / "data")}[kind]
    name = "folder" if kind == "folder" else "digit_scenes"
    with pytest.raises(errors.InputError) as info:
        _train(str(tmp_path / "w"), name, path, **{field: split})
    assert split in str(info.value)
    assert "\n" not in str(info.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"init_from": "/nowhere"}, "config.init_from=/nowhere"),
        ({"train__eval_protocol": "nope"}, "config.train.eval_protocol"),
        (
            {
                "model__levels": None,
                "train__sizes": (64,),
                "data__crop_size": 64,
                "data__shorter_side": 72,
                "train__eval_protocol": "full",
            },
            "protocol full",
        ),
        ({"train__sizes": (2,)}, "config.train.sizes=(2,)"),
        ({"data__batch_size": 3}, "config.data.batch_size=3"),  # on four devices
        ({"model__num_classes": 1}, "config.model.num_classes"),
        ({"data__batch_size": 400}, "(config.data.batch_size)"),
    ],
)
def test_training(tmp_path, images, values, words):
    with pytest.raises(errors.InputError) as info:
        _train(str(tmp_path / "w"), "folder", images, **values)
    assert words in str(info.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"data__batch_size": 20_000},
            "8000 training examples are fewer than one batch of 20000 (config.data.batch_size)",
        ),
        ({"data__split": "train[:7]", "data__batch_size": 8}, "7 training examples are fewer"),
        ({"data__split": "train[:3]+test[:3]", "data__batch_size": 8}, "6 training examples are"),
        ({"model__num_classes": 9}, "config.model.num_classes=9 but digit_scenes has 10 classes"),
        (
            {"train__num_epochs": 1_000_000, "data__split": "train+test"},
            "1,000,000 epochs (config.train.num_epochs) of 2,500 steps are more steps than",
        ),
    ],
)
def test_training_on_a_set_that_is_not_made(tmp_path, values, words):
    with pytest.raises(errors.InputError) as info:
        _train(str(tmp_path / "w"), "digit_scenes", str(tmp_path / "data"), **values)
    assert words in str(info.value)
    assert not os.listdir(tmp_path)


def test_sets_of_the_other_kind(tmp_path):
    work, data = str(tmp_path / "w"), str(tmp_path / "data")
    with pytest.raises(errors.InputError, match="digit_groups has no features"):
        _train(work, "digit_groups", data)
    assert not os.listdir(tmp_path)


@pytest.fixture(scope="module", name="shapes_set")
def _shapes_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    return shapes.make_voc(root / "voc", 3, 2), shapes.make_network(root / "net")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"checkpoint": "/nowhere"}, "config.checkpoint=/nowhere"),
        ({"data__split": "train["}, "no image set train["),
        ({"data__positives_split": "nope"}, "no image set nope"),
        ({"data__eval_split": "nope"}, "no image set nope"),
        ({"features__map": "conv9", "features__layer": "pool"}, "config.features.map=conv9"),
        ({"features__layer": "fc6"}, "config.features.levels"),
        ({"features__scales": (4,)}, "config.features.scales=(4,)"),
        (
            {
                "finetune__enabled": True,
                "finetune__images_per_batch": 4,
                "finetune__from_layer": "x",
            },
            "config.finetune.from_layer=x",
        ),
        ({"finetune__enabled": True}, "config.finetune.images_per_batch=2"),  # on four devices
        ({"proposals__min_side": 500}, "config.proposals.min_side=500"),
        ({"proposals__path": "/nowhere"}, "config.proposals.path=/nowhere"),
        ({"data__name": "nope"}, "'nope'"),
        ({"data__name": "digit_scenes"}, "digit_scenes has no features"),
        ({"data__name": digit_groups.NAME, "data__split": "train["}, "split 'train['"),
        ({"data__name": digit_groups.NAME, "data__split": "nope"}, "no split 'nope'"),
    ],
)
def test_detectors(tmp_path, shapes_set, values, words):
    config = shapes.make_config(*shapes_set)
    config.data.split, config.data.eval_split = "trainval", "test"
    if "digit" in values.get("data__name", ""):
        config.data.path = str(tmp_path / "data")
    _set(config, **values)
    with pytest.raises(errors.InputError) as info:
        stages.train(config, str(tmp_path / "w"))
    assert words in str(info.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"main_scale": "65"}, "config.main_scale"),
        ({"rows": ((config_lib.Part("conv9"),),)}, "no layer 'conv9'"),
        ({"scales": ("2",), "main_scale": "2"}, "scale 2"),
        ({"data__path": "/nowhere"}, "/nowhere"),
        ({"data__name": "voc"}, "config.data.name=voc: "),
    ],
)
def test_svms(tmp_path, images, values, words):
    config = config_lib.SvmConfig(scales=("64",), main_scale="64")
    config.data.path = images
    _set(config, **values)
    with pytest.raises(errors.InputError) as info:
        benchmark.run(*networks.small(), config, str(tmp_path / "w"))
    assert words in str(info.value)
    assert not os.listdir(tmp_path)
