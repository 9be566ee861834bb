"""Workdirs and files that version 0.1.0 wrote load, resume and score as they did.

version_0_1.tar.gz holds a run of training that was killed after 8 of 12 steps, with a checkpoint of
step 6, features of its network, and a detector; and expected.json, what 0.1.0 made of them: the
losses are those of a run that was not killed.
"""

import json
import pathlib
import tarfile

import pytest

import spp_jax
from spp_jax import checkpoint
from spp_jax import config as config_lib
from spp_jax.data.sources import folders as folders_lib
from spp_jax.detection import detector
from spp_jax.detection.scoring import testing
from spp_jax.evaluation import classify, extraction
from spp_jax.runs import files
from spp_jax.training import classifier
from tests import folders
from tests.detection import shapes
from tests.support import checkpoints, said

pytestmark = pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")


@pytest.fixture
def old(tmp_path):
    with tarfile.open(pathlib.Path(__file__).parent / "version_0_1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    return folders.make_folder(tmp_path / "images", {"train": 13, "val": 5})


def _evaluate(model, variables, config, source):
    return classify.evaluate(model, variables, config, source, "full")


def test_a_run_goes_on(old, folder):
    config = config_lib.from_dict(config_lib.Config, files.read_json(f"{old}/run/config.json"))
    config_lib.validate(config)
    config.data.path = folder
    result = classifier.train(config, f"{old}/run", _evaluate)
    assert (result.step, result.stopped_by) == (12, None)
    lines = map(json.loads, files.read_text(f"{old}/run/metrics.jsonl").splitlines())
    trained = [line for line in lines if "protocol" not in line]
    expected = files.read_json(f"{old}/expected.json")
    assert [line["step"] for line in trained] == list(range(1, 13))
    assert [line["batch_hash"] for line in trained] == expected["batch_hashes"]
    # On another processor sums are in another order, and each step starts from the one before.
    losses = [line["loss"] for line in trained]
    assert losses == pytest.approx(expected["losses"], rel=0.2, abs=0.02)


def test_a_network_loads_and_its_features_are_known(old, folder):
    model, variables, config = spp_jax.load(f"{old}/run")
    assert (model.backbone.name, model.levels, config.seed) == ("digits", (1,), 5)
    assert spp_jax.class_names(f"{old}/run") == ("dark", "light")
    assert checkpoint.read_meta(checkpoints.newest(f"{old}/run")).step == 6
    listener = said.Recorder()
    parts = (spp_jax.Part("conv5", (2, 1)), spp_jax.Part("fc6"))
    request = extraction.Request(
        parts, extraction.make_view("36", 32), batch_size=4, num_programs=3
    )
    source = folders_lib.scan_images(folder)
    extracted = extraction.extract_to(
        f"{old}/features.npz", model, variables, source, request, progress=listener
    )
    assert listener.lines == [f"{old}/features.npz was finished before"]
    assert extracted.features.shape == (36, 96 * 5 + 256)


def test_a_detector_scores_as_it_did(old):
    workdir = f"{old}/detector"
    config = detector.read_config(workdir)
    config.data.path = shapes.make_voc(old / "voc")
    result = testing.score_split(workdir, config).result
    expected = files.read_json(f"{old}/expected.json")
    for name in ("map_11point", "map_area"):
        assert result[name] == pytest.approx(expected[name], abs=1e-3)
