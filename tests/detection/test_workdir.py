"""Whether training may go on in a detector's workdir: paths, moved networks, failed starts."""

import dataclasses
import json
import os
import pathlib
import shutil

import pytest

from spp_jax import errors
from spp_jax.detection import detector
from spp_jax.detection import workdir as workdirs
from spp_jax.detection.learning import stages
from tests.detection import shapes
from tests.support import commands, said

PRESET = """
from tests.detection import shapes

def get_config():
    return shapes.make_config("voc", "network")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shapes.make_voc(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    """A folder, and a detector trained in it with relative paths, as a user writes them."""
    folder = tmp_path_factory.mktemp("project")
    shapes.make_network(folder / "network")
    shutil.copytree(root, folder / "voc")
    (folder / "preset.py").write_text(PRESET)
    # The config that training has used is the one that is tested.
    flags = ("--config=preset.py", "--workdir=detector")
    commands.output_of("detect.py", "train", *flags, folder=folder)
    return folder


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of that folder to work in, and a config as a user writes it."""
    folder = tmp_path / "project"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder, shapes.make_config("voc", "network")


def test_relative_paths_train_and_test(trained):
    stored = json.loads((trained / "detector/config.json").read_text())
    assert stored["checkpoint"] == f"{trained}/network"
    assert stored["data"]["path"] == f"{trained}/voc"
    assert json.loads((trained / "detector/eval.json").read_text())["map_11point"] > 0.9


def test_a_detector_goes_on_wherever_its_network_lies(project):
    _, config = project
    os.rename("network", "elsewhere")
    os.remove(f"detector/{detector.SVM_FILE}")
    moved = dataclasses.replace(config, checkpoint="elsewhere")
    recorder = said.Recorder()
    stages.train(moved, "detector", progress=recorder)
    assert "SVMs -> " in recorder.text
    # Nor does it need it: it holds a copy.
    shutil.rmtree("elsewhere")
    recorder = said.Recorder()
    stages.train(config, "detector", progress=recorder)
    line = "is no checkpoint: the detector goes on with its own copy of the network"
    assert line in recorder.text
    assert "is trained already" in recorder.text
    # What is stored is where it came from.
    assert detector.read_config("detector").checkpoint == os.path.abspath("elsewhere")


@pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")
def test_another_network_is_refused(project):
    folder, config = project
    shutil.rmtree("network")
    shapes.make_network(folder / "network", seed=1)
    with pytest.raises(errors.InputError, match="was trained from another network than"):
        stages.train(config, "detector")
    # So it is in a workdir of version 0.1.0, which stored no checksum: the copy stands for it.
    facts = pathlib.Path("detector", detector.DATA_FILE)
    stored = json.loads(facts.read_text())
    assert stored.pop("network")
    assert stored.pop("crc32")
    facts.write_text(json.dumps(stored))
    with pytest.raises(errors.InputError, match="was trained from another network than"):
        stages.train(config, "detector")


def test_a_failed_start_takes_the_repaired_data(project):
    """Nothing was learnt: the classes, the config and the network may be others."""
    folder, config = project
    for name in (detector.SVM_FILE, detector.REGRESSION_FILE):
        os.remove(f"detector/{name}")
    shutil.rmtree("network")
    shapes.make_network(folder / "network", seed=1)
    for path in pathlib.Path("voc/VOC2007/Annotations").iterdir():
        path.write_text(path.read_text().replace("disc", "circle"))
    config.seed = 3
    # Nor is there a copy to fall back on: what it is of was never chosen.
    with pytest.raises(errors.InputError, match=r"nowhere: no checkpoint there"):
        stages.train(dataclasses.replace(config, checkpoint="nowhere"), "detector")
    stages.train(config, "detector")
    assert detector.read_classes("detector") == ("circle", "square")
    assert detector.read_config("detector").seed == 3
    # The copy is of the network that was given now.
    start = workdirs.load_start(config, "detector")
    assert not start.is_own
    own = workdirs.load_start(dataclasses.replace(config, checkpoint="nowhere"), "detector")
    assert own.is_own
    same = own.variables["params"]["backbone"]["conv1"]["kernel"]
    assert (same == start.variables["params"]["backbone"]["conv1"]["kernel"]).all()


@pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")
def test_a_workdir_of_something_else_is_refused(project):
    _, config = project
    os.makedirs("run")
    pathlib.Path("run/config.json").write_text('{"model": {"name": "zf5"}}')
    with pytest.raises(errors.InputError, match="is no field of this version"):
        stages.train(config, "run")
    assert os.listdir("run") == ["config.json"]
