"""Windows: found the same every time, kept by content and settings, and read from others' files."""

import json
import pathlib

import numpy as np
import pytest
import scipy.io

from spp_jax import errors
from spp_jax.data import images, voc
from spp_jax.detection import boxes, dataset, detection_config, proposal_files, proposals, propose
from tests.detection import shapes

VOC07 = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "voc07"
SETTINGS = proposals.Settings("fast", 200, 8, 500)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shapes.make_voc(tmp_path_factory.mktemp("shapes"), num_train=4, num_test=1)


@pytest.fixture(scope="module")
def data(root):
    return dataset.read(voc.VocSource(root, "trainval"))


def _image(data, index):
    example = data.source[index]
    return images.decode(example.data, example.name)


@pytest.mark.parametrize("method", detection_config.METHODS)
def test_every_method_finds_the_shapes_twice_alike(data, method):
    settings = proposals.Settings(method, 300, 8, 500)
    for index in range(2):
        found = proposals.find(_image(data, index), settings)
        overlap = boxes.iou(data.objects[index].boxes, found.astype(np.float64))
        assert overlap.max(axis=1).min() > 0.6
        np.testing.assert_array_equal(found, proposals.find(_image(data, index), settings))
        assert len(np.unique(found, axis=0)) == len(found) <= 300
        assert (found[:, 2:] - found[:, :2]).min() >= 8
        height, width = data.sizes[index]
        assert found.min() >= 0
        assert np.all(found[:, 2:] <= [width, height])


def test_large_images_are_searched_small(data):
    image = images.resize(_image(data, 0), 300, 420)
    small = proposals.Settings("fast", 0, 20, 140)
    found = proposals.find(image, small)
    assert found[:, 2].max() > 400
    # Corners are whole pixels of an image of a third of the side.
    assert np.all(np.abs(found / 3 - np.round(found / 3)) < 0.34)


def test_processes_keep_what_they_find_and_find_it_once(data, tmp_path, monkeypatch):
    folder = str(tmp_path / "kept")
    assert list(proposals.find_all(data.source, range(4), folder, (SETTINGS,), 2)) == [
        (i, "") for i in range(4)
    ]
    kept = sorted(tmp_path.glob("kept/*"))
    assert len(kept) == 4
    example = data.source[2]
    np.testing.assert_array_equal(
        proposals.read_cached(folder, SETTINGS, example.data),
        proposals.find(_image(data, 2), SETTINGS),
    )
    # Nothing is missing: no process is started.
    monkeypatch.setattr(proposals.multiprocessing, "get_context", None)
    assert len(list(proposals.find_all(data.source, range(4), folder, (SETTINGS,)))) == 4
    # Other settings are other windows; what is damaged is not there.
    other = proposals.Settings("fast", 100, 8, 500)
    assert proposals.read_cached(folder, other, example.data) is None
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert proposals.read_cached(folder, SETTINGS, example.data) is None


def test_an_unreadable_image_is_named_and_the_others_go_on(root, tmp_path):
    source = voc.VocSource(root, "test")
    path = pathlib.Path(source.name(0))
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        ((index, sentence),) = proposals.find_all(source, [0], str(tmp_path), (SETTINGS,), 1)
        assert index == 0
        assert sentence.startswith(str(path))
    finally:
        path.write_bytes(whole)


def test_files_of_windows(tmp_path):
    rows = [[0, 0, 4, 3], [1, 1, 2, 2]]
    np.savez(tmp_path / "w.npz", a=np.asarray(rows), b=np.zeros((0, 4)))
    (tmp_path / "w.json").write_text(json.dumps({"a": rows, "b": []}))
    cells, names = np.empty((1, 2), object), np.empty((2, 1), object)
    # R-CNN's: y1, x1, y2, x2, counted from 1, both corners inclusive.
    cells[0, 0] = np.asarray([[1, 1, 3, 4], [2, 2, 2, 2]], np.float64)
    cells[0, 1] = np.zeros((0, 4))
    names[0, 0], names[1, 0] = "a", "b"
    scipy.io.savemat(tmp_path / "w.mat", {"boxes": cells, "images": names})
    (tmp_path / "mats").mkdir()
    # Of one image: x1, y1, x2, y2, counted from 0, both corners inclusive.
    inclusive = np.asarray([[0, 0, 3, 2], [1, 1, 1, 1]], np.uint16)
    scipy.io.savemat(tmp_path / "mats/a_boxes.mat", {"boxes": inclusive})
    for name in ("w.npz", "w.json", "w.mat", "mats"):
        found = proposal_files.read(str(tmp_path / name))
        assert found["a"].tolist() == rows
        assert found["a"].dtype == np.float32
        assert name == "mats" or found["b"].shape == (0, 4)
    with pytest.raises(errors.InputError, match="mats has no windows of image b and 1 more"):
        proposal_files.check_ids(found, ["a", "b", "c"], str(tmp_path / "mats"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.txt", "", "is neither .mat, .npz, .json nor a folder"),
        ("w.json", "[", "cannot be read as windows"),
        ("w.json", '{"a": [[1, 2, 3]]}', "a: windows must be rows of 4 numbers"),
        ("w.json", '{"a": [[0, 0, 0, 5]]}', r"a: window \(0, 0, 0, 5\) is empty or no number"),
        ("w.mat", "no mat", "cannot be read as windows"),
        ("w.npz", "no npz", "cannot be read as windows"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(errors.InputError, match=message):
        proposal_files.read(str(path))
    with pytest.raises(errors.InputError, match="no such file"):
        proposal_files.read(str(tmp_path / "none.npz"))


def test_windows_of_several_methods_are_one_set(data, tmp_path):
    config = detection_config.ProposalConfig(
        methods=("fast", "edge_boxes"), min_side=8, num_processes=2
    )
    proposer = propose.prepare(config, str(tmp_path), data, None, is_eval=False)
    example = data.source[0]
    found = proposer(example.data, example.name, _image(data, 0))
    parts = [proposals.find(_image(data, 0), s) for s in proposer.settings]
    assert {tuple(w) for w in found} == {tuple(w) for part in parts for w in part}
    assert len(found) == len({tuple(w) for w in found})


@pytest.mark.skipif(not VOC07.is_dir(), reason="shared/data/voc07 is not here")
def test_windows_published_with_r_cnn():
    found = proposal_files.read(str(VOC07 / "selective_search"))
    assert {name: len(found[name]) for name in found} == {"000004": 2888, "001551": 2057}
    for name in found:
        path = str(VOC07 / "selective_search" / f"{name}.jpg")
        height, width, _ = images.decode(images.read_file(path), path).shape
        # Their outermost pixels are the image's.
        assert found[name].min(axis=0)[:2].tolist() == [0, 0]
        assert found[name].max(axis=0)[2:].tolist() == [width, height]
