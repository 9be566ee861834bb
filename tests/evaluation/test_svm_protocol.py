"""The table of SVMs: its rows, splits and numbers, and what cannot be made one."""

import dataclasses
import json
import os
import pathlib

import cv2
import numpy as np
import pytest
import sklearn.svm

import spp_jax
from configs import caltech101_svm, voc07_svm
from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import tables
from spp_jax.evaluation import features
from spp_jax.evaluation.features import Part
from spp_jax.evaluation.svm import benchmark
from spp_jax.evaluation.svm import rows as rows_lib
from spp_jax.evaluation.svm import task as task_lib
from tests import folders
from tests.data import test_voc
from tests.support import networks, said


@pytest.fixture(scope="module")
def network():
    return networks.small()


def _config(path, **fields):
    config = config_lib.SvmConfig(scales=("crop", "36"), main_scale="36", size=32)
    config.num_programs = 1
    config.rows = ((Part("conv5", (1,)),), (Part("conv5", (2, 1)), Part("fc6")))
    config.data.path = str(path)
    config.data.num_train, config.data.max_test, config.data.num_splits = 4, 3, 2
    return dataclasses.replace(config, **fields)


def test_a_folder_pair_is_one_split_and_equals_liblinear(network: networks.Network, tmp_path):
    folder = folders.make_folder(tmp_path / "images", {"train": 5, "test": 3})
    result = benchmark.run(*network, _config(folder), str(tmp_path / "out"))
    assert (result["num_examples"], result["num_splits"], len(result["rows"])) == (6, 1, 4)
    assert [(r["layer"], r["scale"], r["num_features"]) for r in result["rows"]][2:] == [
        ("conv5 {1} 1 bin", "36", 96),
        ("conv5 {2,1} 5 bins + fc6", "36", 5 * 96 + 256),
    ]
    assert result["mean_class_accuracy"] == result["rows"][-1]["mean_class_accuracy"]
    # The command writes it as JSON, which changes nothing of it but tuples of its config.
    assert json.loads(json.dumps(result))["rows"] == result["rows"]
    assert os.listdir(tmp_path / "out") == ["features"]
    # The last row once more, on the features themselves.
    paths = sorted(pathlib.Path(folder).glob("train/*/*")) + sorted(
        pathlib.Path(folder).glob("test/*/*")
    )
    labels = np.array([p.parent.name == "light" for p in paths])
    x = features.extract(
        *network, paths, _config(folder).rows[1], scale=36, normalize=True, num_programs=1
    )
    x /= np.sqrt(2)
    machine = sklearn.svm.LinearSVC(max_iter=10**5).fit(x[:10], labels[:10])
    right = np.equal(machine.predict(x[10:]), labels[10:])
    expected = (right[labels[10:]].mean() + right[~labels[10:]].mean()) / 2
    assert result["mean_class_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert "| conv5 {1} 1 bin | 96 | " in tables.of_svms(result)
    assert tables.of_svms(result).startswith(
        "| mean class accuracy % | features | crop | full 36 |\n"
    )


def test_kernels_are_those_of_the_vectors_themselves(network: networks.Network):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (7, 32, 32, 3), np.uint8))
    rows = (
        (Part("conv5", (2, 1)), Part("fc6")),
        (Part("conv5", (3, 1)), Part("conv3", (1,), "mean")),
    )
    merged = rows_lib.merge_parts(rows)
    assert merged[0] == Part("conv5", (3, 2, 1))
    values = features.extract(*network, images, merged, scale=None)
    kernels = rows_lib.Kernels(network[0], merged, values)
    for row in rows:
        x = features.extract(*network, images, row, scale=None, normalize=True)
        kernel = np.mean([kernels.of_part(part) for part in row], axis=0)
        # Lengths of 1 in float32 there, in float64 here.
        np.testing.assert_allclose(kernel, x @ x.T / 2, atol=1e-6)
        assert np.ptp(kernel) > 1e-3


def test_a_class_of_unreadable_images_is_not_scored(network: networks.Network, tmp_path):
    recorder = said.Recorder()
    folder = folders.make_folder(tmp_path / "images", {"train": 5, "test": 3})
    for i in range(5):
        with open(f"{folder}/train/dark/{i}.png", "r+b") as f:
            f.truncate(200)  # its header can be read
    out = str(tmp_path / "out")
    result = benchmark.run(*network, _config(folder), out, progress=recorder)
    assert {tuple(row["unscored"]) for row in result["rows"]} == {("dark",)}
    # Not as likely as any: it would win over classes that are decided against.
    assert result["mean_class_accuracy"] == 1.0
    assert len(result["refused"]) == 5
    assert any(line.endswith("none to train on or none to test: dark") for line in recorder.lines)


def test_what_is_done_is_not_done_again(network: networks.Network, tmp_path, monkeypatch):
    folder = folders.make_folder(tmp_path / "images", {"train": 5, "test": 3})
    config = _config(folder)
    calls = []
    score = benchmark.score_splits

    def broken(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr(benchmark, "score_splits", broken)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(*network, config, str(tmp_path / "out"))
    first = benchmark.run(*network, config, str(tmp_path / "out"))
    assert len(calls) == 3 + 2
    again = benchmark.run(*network, config, str(tmp_path / "out"))
    assert (len(calls), again) == (5, first)
    benchmark.run(*network, dataclasses.replace(config, c=10.0), str(tmp_path / "out"))
    assert len(calls) == 9
    path = tmp_path / "out/features/entries.json"
    path.write_text(
        path.read_text().replace('"mean_class_accuracy": ', '"mean_class_accuracy": 1', 1)
    )
    with pytest.raises(errors.InputError, match=r"entries.json is damaged; remove it$"):
        benchmark.run(*network, config, str(tmp_path / "out"))


def test_random_splits(tmp_path):
    folder = folders.make_folder(tmp_path / "images", {"": 9})
    config = _config(folder)
    task = task_lib.open_task(config)
    labels = np.argmax(task.targets, axis=1)
    assert len(task.splits) == 2
    for train, test in task.splits:
        assert np.bincount(labels[train]).tolist() == [4, 4]
        assert np.bincount(labels[test]).tolist() == [3, 3]
        assert not set(train) & set(test)
    assert set(task.splits[0][0]) != set(task.splits[1][0])
    again = task_lib.open_task(config)
    np.testing.assert_array_equal(again.splits[1][1], task.splits[1][1])
    other = task_lib.open_task(dataclasses.replace(config, seed=1))
    assert set(other.splits[0][0]) != set(task.splits[0][0])
    config.data.num_train = 9
    with pytest.raises(errors.InputError, match=r"class dark of .* has 9 images: too few to train"):
        task_lib.open_task(config)


def test_voc_ranks_every_class(network: networks.Network, tmp_path):
    objects, recorder = {}, said.Recorder()
    for i in range(12):
        name = "dark" if i % 2 else "light"
        # "rare" is nowhere to train on; image 8 shows only a difficult one of its class.
        own = [test_voc.make_object(name, (1, 1, 9, 9), int(i == 8))]
        objects[f"{i:02}"] = own + [test_voc.make_object("rare", (1, 1, 9, 9))] * (i == 11)
    ids = list(objects)
    root = test_voc.make_voc(tmp_path, {"trainval": ids[:8], "test": ids[8:]}, objects)
    rng = np.random.default_rng(0)
    for i, image_id in enumerate(ids):
        image = rng.integers(0, 128, (40 + i, 44, 3), np.uint8) + (0 if i % 2 else 127)
        assert cv2.imwrite(f"{root}/VOC2007/JPEGImages/{image_id}.jpg", image)
    config = _config(root)
    config.data.name = "voc"
    result = benchmark.run(*network, config, str(tmp_path / "out"), progress=recorder)
    assert "not scored, as there are none to train on or none to test: rare" in recorder.text
    entry = result["rows"][-1]
    assert (result["num_examples"], result["class_names"]) == (4, ["dark", "light", "rare"])
    assert entry["ap_11point"]["rare"] is entry["ap_area"]["rare"] is None
    mean = (entry["ap_11point"]["dark"] + entry["ap_11point"]["light"]) / 2
    assert result["map"] == pytest.approx(mean)
    assert set(result) >= {"map", "map_area", "num_examples", "rows"}
    assert tables.of_svms(result).startswith("| mAP, 11-point (area) % | features | crop |")
    # Labels that changed are scored again, though all features are there.
    for i in range(8, 12):
        path = pathlib.Path(root, f"VOC2007/Annotations/{i:02}.xml")
        text = path.read_text().replace("dark", "?").replace("light", "dark").replace("?", "light")
        path.write_text(text)
    again = benchmark.run(*network, config, str(tmp_path / "out"))
    fresh = benchmark.run(*network, config, str(tmp_path / "fresh"))
    assert again["rows"] == fresh["rows"] != result["rows"]


@pytest.mark.parametrize("name", ["zf5", "googlenet", "digits", "squeezenet1_1"])
def test_any_network_has_rows_that_show_what_bins_add(name):
    model = spp_jax.make_model(name)
    rows = rows_lib.default_rows(model)
    assert [sum(n * n for n in row[0].levels) for row in rows[:4]] == [1, 5, 14, 50]
    for row in rows:
        assert features.check_parts(model, row) == row
    if name == "googlenet":
        assert rows[-1] == (Part("inception_5b", (3, 2, 1)), Part("inception_4e", (3, 2, 1)))
    if name == "zf5":
        assert [row[0].layer for row in rows[4:6]] == ["fc6", "fc7"]


def test_the_presets_are_the_papers():
    caltech, voc07 = caltech101_svm.get_config(), voc07_svm.get_config()
    for config in (caltech, voc07):
        config_lib.validate(config)
        assert config.c == 1
    # Sections 3.2 and 3.3.
    data = caltech.data
    assert (data.num_train, data.max_test, data.num_splits) == (30, 50, 10)
    assert caltech.main_scale == "224"
    assert (voc07.data.split, voc07.data.eval_split, voc07.main_scale) == (
        "trainval",
        "test",
        "392",
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"c": 0.0}, r"config.c must be more than 0, got 0.0"),
        ({"c": "1"}, r"config.c must be .*float.*, got '1'"),
        ({"loss": "log"}, "config.loss must be one of hinge, squared_hinge, got log"),
        ({"main_scale": "224"}, "config.main_scale must be one of crop, 36, got '224'"),
        ({"scales": ("36", "36")}, r"names a scale twice"),
        ({"scales": ("36", "big")}, "scale 'big' is neither crop, warp nor a number"),
        ({"rows": ("conv5",)}, r"config.rows must be .*, got \('conv5',\)"),
        ({"rows": ((Part("conv9", (1,)),),)}, "digits has no layer 'conv9'"),
        ({"seed": -1}, "config.seed must be at least 0, got -1"),
    ],
)
def test_wrong_values_are_named_before_anything_is_made(
    network: networks.Network, tmp_path, fields, sentence
):
    folder = folders.make_folder(tmp_path / "images", {"train": 5, "test": 3})
    out = str(tmp_path / "out")
    with pytest.raises(errors.InputError, match=sentence):
        benchmark.run(*network, _config(folder, **fields), out)
    assert not os.path.exists(out)
