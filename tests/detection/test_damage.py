"""Damage to a detector's files, and files of another detector, are refused by name."""

import dataclasses
import json
import pathlib
import shutil

import jax
import pytest

from spp_jax import checkpoint, errors
from spp_jax.detection import detector
from spp_jax.detection import workdir as workdirs
from spp_jax.detection.learning import stages
from spp_jax.detection.scoring import testing
from spp_jax.runs import files
from tests.detection import shapes
from tests.support import checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    root = shapes.make_voc(folder, num_train=2, num_test=1)
    workdir = tmp_path_factory.mktemp("detector")
    config = shapes.make_config(root, shapes.make_network(folder / "network"))
    config.proposals.num_processes = 1
    stages.train(config, str(workdir))
    return workdir


@pytest.fixture
def copied(trained, tmp_path):
    return pathlib.Path(shutil.copytree(trained, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.json", '"seed": 0', '"seed": 1', "no config of detect.py: its entries are not as"),
        ("data.json", "disc", "disk", "is missing or damaged (its entries are not as saved"),
        ("data.json", '"class', '"klass', "is missing or damaged (its entries are not as saved"),
    ],
)
def test_changed_json_of_a_detector_is_refused(copied, name, old, new, message):
    path = copied / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(errors.InputError) as info:
        detector.load(str(copied))
    assert str(info.value).startswith(f"{path}")
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "a"}, "config.seed must be int, got 'a'"),
        ({"test": {"nms_iou": 2}}, "config.test.nms_iou must be from 0 to 1, got 2"),
        (
            {"features": {"scales": [[]]}},
            "config.features.scales must be tuple[int, ...], got ([],)",
        ),
    ],
)
def test_a_stored_config_is_a_valid_one(copied, values, message):
    (copied / "config.json").write_text(json.dumps(values))
    with (
        pytest.warns(errors.InputWarning, match=r"config.json is of a version without checksums"),
        pytest.raises(errors.InputError) as info,
    ):
        detector.read_config(str(copied))
    assert str(info.value) == f"{copied}/config.json is no config of detect.py: {message}"


def test_the_numbers_of_a_network_are_looked_at_once(copied, monkeypatch):
    numbers = []
    original = checkpoint._crc32
    monkeypatch.setattr(
        checkpoint, "_crc32", lambda x, start=0: numbers.append(x.size) or original(x, start)
    )
    variables = detector.load(str(copied)).regions._variables
    assert sorted(numbers) == sorted(x.size for x in jax.tree.leaves(variables))


@pytest.mark.parametrize("has_origin", [True, False])
@pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")
def test_a_damaged_network_is_named_whatever_the_svms_know(copied, has_origin):
    if not has_origin:
        arrays = detector.load_arrays(str(copied / detector.SVM_FILE)) or {}
        del arrays["origin"]
        detector.save_arrays(str(copied / detector.SVM_FILE), **arrays)
    folder = pathlib.Path(checkpoints.newest(copied / detector.NETWORK))
    path = max(folder.glob("params/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.InputError, match=r"checkpoint \S+ is damaged: params/\S+ is not as"):
        detector.load(str(copied))


def test_a_value_above_a_ceiling_of_later_versions_goes_on(trained, copied):
    config = detector.read_config(str(trained))
    config.seed = 2**32 - 1
    with pytest.raises(errors.InputError, match=r"^config.seed must be at most 2,147,483,647"):
        workdirs.validate(config, str(trained))
    with pytest.raises(errors.InputError, match=r"^config.seed must be at most 2,147,483,647"):
        testing.score_split(str(trained), config)
    files.write_checked(str(copied / "config.json"), dataclasses.asdict(config))
    for name in (detector.SVM_FILE, detector.REGRESSION_FILE):
        arrays = detector.load_arrays(str(copied / name)) or {}
        origin = json.loads(str(arrays.pop("origin")))
        origin["config"]["seed"] = config.seed
        detector.save_arrays(str(copied / name), **arrays, origin=json.dumps(origin))
    stages.train(config, str(copied))
    assert testing.score_split(str(copied), config).result["config"]["seed"] == config.seed


@pytest.mark.parametrize(
    "facts", [{"class_names": "disc", "digest": "0"}, {"class_names": ["disc"], "digest": [1]}]
)
@pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")
def test_data_of_other_types_are_damaged(copied, facts):
    (copied / "data.json").write_text(json.dumps(facts))
    with pytest.raises(errors.InputError, match=r"data.json is damaged$"):
        detector.read_data(str(copied))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("svm.npz", {"config": {"seed": 5}}, "of another config.seed; remove it and train again"),
        ("svm.npz", {"network": 1}, "of another network; remove it and train again"),
        ("regression.npz", {"digest": "0"}, "of another training data; remove it and train again"),
        ("svm.npz", {"config": 5}, None),
        # A field that this version does not have.
        ("svm.npz", {"config": {"other": 5}}, ""),
    ],
)
def test_stages_of_another_detector_are_refused(copied, name, changes, message):
    arrays = detector.load_arrays(str(copied / name)) or {}
    origin = json.loads(str(arrays["origin"])) | changes
    detector.save_arrays(str(copied / name), **(arrays | {"origin": json.dumps(origin)}))
    if message == "":
        assert detector.load(str(copied)).class_names == shapes.CLASSES
        return
    with pytest.raises(errors.InputError) as info:
        detector.load(str(copied))
    if message is None:
        assert str(info.value) == f"{copied}/{name} is damaged: it does not say what it is of"
        return
    start = f"{copied}/{name} is of another detector than its workdir: "
    assert str(info.value) == start + message
