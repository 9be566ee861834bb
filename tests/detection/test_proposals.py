"""Windows: the same every time, cached by content and settings, and read from files of others."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
import scipy.io

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import voc
from spp_jax.detection import boxes, dataset
from spp_jax.detection.proposals import proposing, search, window_files
from tests.data import test_voc
from tests.detection import shapes
from tests.support import said

VOC07 = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "voc07"
SETTINGS = search.Settings("fast", 200, 8, 500)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shapes.make_voc(tmp_path_factory.mktemp("shapes"), num_train=4, num_test=1)


@pytest.fixture(scope="module")
def data(root):
    return dataset.read(voc.VocSource(root, "trainval"))


def _image(data, index):
    example = data.source[index]
    return images.decode(example.data, example.name)


@pytest.mark.parametrize("method", config_lib.METHODS)
def test_every_method_finds_the_shapes_twice_alike(data, method):
    settings = search.Settings(method, 300, 8, 500)
    for index in range(2):
        windows = search.find_windows(_image(data, index), settings)
        overlap = boxes.iou(data.objects[index].boxes, windows.astype(np.float64))
        assert overlap.max(axis=1).min() > 0.6
        np.testing.assert_array_equal(windows, search.find_windows(_image(data, index), settings))
        assert len(np.unique(windows, axis=0)) == len(windows) <= 300
        assert (windows[:, 2:] - windows[:, :2]).min() >= 8
        height, width = data.sizes[index]
        assert windows.min() >= 0
        assert np.all(windows[:, 2:] <= [width, height])


def test_large_images_are_searched_small(data):
    image = images.resize(_image(data, 0), 300, 420)
    small = search.Settings("fast", 0, 20, 140)
    windows = search.find_windows(image, small)
    assert windows[:, 2].max() > 400
    # Corners are whole pixels of an image of a third of the side.
    assert np.all(np.abs(windows / 3 - np.round(windows / 3)) < 0.34)


def test_processes_keep_what_they_find_and_find_it_once(data, tmp_path, monkeypatch):
    folder = str(tmp_path / "kept")
    assert list(search.find_all(data.source, range(4), folder, (SETTINGS,), 2)) == [
        (i, "") for i in range(4)
    ]
    kept = sorted(tmp_path.glob("kept/*"))
    assert len(kept) == 4
    example = data.source[2]
    np.testing.assert_array_equal(
        search.read_cached(folder, SETTINGS, example.data),
        search.find_windows(_image(data, 2), SETTINGS),
    )
    # Nothing is missing: no process is started.
    monkeypatch.setattr(search.workers, "start", None)
    assert len(list(search.find_all(data.source, range(4), folder, (SETTINGS,)))) == 4
    # Other settings are other windows; what is damaged is not there.
    other = search.Settings("fast", 100, 8, 500)
    assert search.read_cached(folder, other, example.data) is None
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert search.read_cached(folder, SETTINGS, example.data) is None


def test_a_cache_may_be_read_only_if_it_lacks_no_window(data, tmp_path, monkeypatch):
    indices, cache = sorted(data.sizes), tmp_path / "cache"
    config = config_lib.ProposalConfig(cache=str(cache), methods=("edge_boxes",), min_side=8)
    settings = proposing.make_settings(config, config.methods)
    list(search.find_all(data.source, indices, str(cache), settings, 1))
    (tmp_path / "w").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(cache))
    proposing.check(config, data, None, testing=False)
    proposer = proposing.provide(config, str(tmp_path / "w"), data, None, testing=False)
    assert proposer.folder == str(cache)
    next(cache.iterdir()).unlink()
    with pytest.raises(errors.InputError) as info:
        proposing.check(config, data, None, testing=False)
    sentence = f"config.proposals.cache={cache} lacks windows: {cache} is read-only: "
    assert str(info.value) == f"{sentence}nothing can be written there"


def test_damaged_windows_are_not_there(data, tmp_path):
    example = data.source[0]
    path = tmp_path / SETTINGS.key(example.data)
    windows = np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32)
    search._keep(str(tmp_path), SETTINGS, example.data, windows)
    whole = path.read_bytes()
    cached = search.read_cached(str(tmp_path), SETTINGS, example.data)
    assert cached is not None
    assert np.array_equal(cached, windows)
    # Those of another image do not take their place.
    search._keep(str(tmp_path), SETTINGS, b"another image", windows)
    other = (tmp_path / SETTINGS.key(b"another image")).read_bytes()
    changed = bytearray(whole)
    changed[130] ^= 1  # of the first number
    for damaged in (bytes(changed), other, whole + b"\0", whole[:-1], whole[:-16]):
        path.write_bytes(damaged)
        assert search.read_cached(str(tmp_path), SETTINGS, example.data) is None
    # Versions before wrote no checksum.
    np.save(path, windows)
    cached = search.read_cached(str(tmp_path), SETTINGS, example.data)
    assert cached is not None
    assert np.array_equal(cached, windows)


def test_an_unreadable_image_is_named_and_the_others_go_on(root, tmp_path):
    source = voc.VocSource(root, "test")
    path = pathlib.Path(source.name(0))
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        ((index, sentence),) = search.find_all(source, [0], str(tmp_path), (SETTINGS,), 1)
        assert index == 0
        assert sentence.startswith(str(path))
    finally:
        path.write_bytes(whole)


def test_files_of_windows(tmp_path):
    rows = [[0, 0, 4, 3], [1, 1, 2, 2]]
    np.savez(tmp_path / "w.npz", a=np.asarray(rows), b=np.zeros((0, 4)))
    (tmp_path / "w.json").write_text(json.dumps({"a": rows, "b": []}), encoding="utf-8-sig")
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
        windows = window_files.read(str(tmp_path / name))
        assert windows["a"].tolist() == rows
        assert windows["a"].dtype == np.float32
        assert name == "mats" or windows["b"].shape == (0, 4)
    with pytest.raises(errors.InputError, match="mats has no windows of image b and 1 more"):
        window_files.check_ids(windows, ["a", "b", "c"], str(tmp_path / "mats"))


# Where the type of the first image's id is written, in the file of `_write_cells`.
ID_TYPE = 233


def _write_cells(path):
    """Writes R-CNN's form for three images, not compressed, so that every byte is read."""
    cells, names = np.empty((1, 3), object), np.empty((3, 1), object)
    for i in range(3):
        names[i, 0], cells[0, i] = f"te000{i}", np.asarray([[1, 1, 80, 100], [5, 6, 70, 90]], float)
    scipy.io.savemat(path, {"images": names, "boxes": cells})


def test_a_damaged_byte_does_not_end_the_process(tmp_path):
    path = tmp_path / "w.mat"
    _write_cells(path)
    assert len(window_files.read(str(path))) == 3
    damaged = bytearray(path.read_bytes())
    # scipy 1.13 to 1.18 takes it for a number of bytes, and reads on from anywhere.
    damaged[ID_TYPE] = 0xAA
    path.write_bytes(damaged)
    with pytest.raises(
        errors.InputError, match=r"/w\.mat cannot be read as windows: it is damaged"
    ):
        window_files.read(str(path))


def test_of_a_folder_the_damaged_file_is_named(tmp_path):
    for name in ("a.mat", "b_boxes.MAT", "c.mat"):
        scipy.io.savemat(tmp_path / name, {"boxes": np.asarray([[0, 0, 3, 2]], np.uint16)}, False)
    assert set(window_files.read(str(tmp_path))) == {"a", "b", "c"}
    path = tmp_path / "b_boxes.MAT"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])
    with pytest.raises(
        errors.InputError, match=r"b_boxes\.MAT cannot be read as windows: it is dam"
    ):
        window_files.read(str(tmp_path))
    path.rename(tmp_path / "c_boxes.mat")
    (tmp_path / "c_boxes.mat").write_bytes(whole)
    with pytest.raises(errors.InputError, match=r"has two files of c$"):
        window_files.read(str(tmp_path))


def test_whole_files_without_windows_are_named(tmp_path):
    cells = np.empty((1, 2), object)
    cells[0, 0] = cells[0, 1] = np.ones((1, 4))
    wide = np.empty((1, 2), object)
    wide[0, 0], wide[0, 1] = np.ones((1, 4)), np.ones((4, 3))  # as many numbers as 3 rows of 4
    for arrays, message in (
        ({"x": [1]}, "it has no variable 'images'"),
        ({"images": np.asarray(["a"], object), "boxes": cells}, "has 1 images and boxes of 2"),
        ({"images": np.asarray(["a", "a"], object), "boxes": cells}, "1 of its 2 images are named"),
        ({"images": np.asarray(["a", "b"], object), "boxes": wide}, "rows .* not 4 numbers, but 3"),
    ):
        scipy.io.savemat(tmp_path / "w.mat", arrays)
        with pytest.raises(errors.InputError, match=rf"w\.mat cannot be read .*{message}"):
            window_files.read(str(tmp_path / "w.mat"))
    (tmp_path / "none.mat").mkdir()
    with pytest.raises(errors.InputError, match=r"none\.mat holds no \.mat file"):
        window_files.read(str(tmp_path / "none.mat"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.txt", "", "is neither .mat, .npz, .json nor a folder"),
        ("w.json", "[", "cannot be read as windows"),
        ("w.json", "[[0, 0, 4, 4]]", r"w\.json cannot be read as windows: it holds no {id: rows}$"),
        ("w.json", '{"a": [[0, 0, 4, 4, 9, 9], [0, 0, 4, 4, 9, 9]]}', "must be rows of 4 numbers"),
        ("w.json", '{"a": [[1, 2, 3]]}', "a: windows must be rows of 4 numbers"),
        ("w.json", '{"a": {"b": 1}}', "a: windows must be rows of 4 numbers"),
        ("w.json", '{"a": [[0, 0, 1, 1%s]]}' % ("0" * 400), "a: windows must be rows of 4 numbers"),
        ("w.json", '{"a": [[0, 0, 0, 5]]}', r"a: window \(0, 0, 0, 5\) is empty or no number"),
        ("w.mat", "no mat", "cannot be read as windows"),
        ("w.npz", "no npz", "cannot be read as windows"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(errors.InputError, match=message):
        window_files.read(str(path))
    for missing in ("none.npz", "none.mat"):
        with pytest.raises(errors.InputError, match=rf"{missing}: no such file or folder"):
            window_files.read(str(tmp_path / missing))


def test_windows_of_several_methods_are_one_set(data, tmp_path):
    config = config_lib.ProposalConfig(methods=("fast", "edge_boxes"), min_side=8, num_processes=2)
    proposer = proposing.provide(config, str(tmp_path), data, None, testing=False)
    example = data.source[0]
    windows = proposer(example.data, example.name, _image(data, 0))
    parts = [search.find_windows(_image(data, 0), s) for s in proposer.settings]
    assert {tuple(w) for w in windows} == {tuple(w) for part in parts for w in part}
    assert len(windows) == len({tuple(w) for w in windows})


def _stored(data, windows):
    """Windows of all images, from a file, after they were prepared."""
    return proposing.Stored(
        {i: np.asarray(windows, np.float32) for i in data.source.image_ids}, "w", ""
    )


def test_recall_is_said_and_kept(data, tmp_path):
    # Of each image's two objects one is a window, the other is not; and one of 4 is difficult.
    known = [o.boxes for o in data.objects]
    windows = {i: known[n][:1].astype(np.float32) for n, i in enumerate(data.source.image_ids)}
    windows[data.source.image_ids[1]] = np.zeros((0, 4), np.float32)
    first = data.objects[0]
    easy = dataclasses.replace(first, is_difficult=np.asarray([False, True]))
    changed = dataclasses.replace(data, objects=(easy, *data.objects[1:]))
    stored = proposing.Stored(windows, "w.npz", "")
    config = config_lib.ProposalConfig(path="w.npz")
    recorder = said.Recorder()
    proposing.provide(config, str(tmp_path), changed, stored, testing=False, progress=recorder)
    facts = json.loads((tmp_path / "proposals_trainval.json").read_text())
    assert facts == {
        **{"num_images": 4, "num_empty": 1, "num_windows": 3},
        **{"num_objects": 7, "num_covered": 3, "min_iou": 0.5, "recall": 3 / 7},
    }
    assert recorder.text.splitlines()[-1] == (
        "proposals of 4 images from w.npz: 1 windows an image, none in 1 images; 42.9% of 7 "
        "objects have a window of IoU 0.5 or more"
    )


def test_recall_of_windows_found_here(data, tmp_path):
    config = config_lib.ProposalConfig(methods=("fast",), min_side=8, num_processes=2)
    proposer = proposing.provide(config, str(tmp_path), data, None, testing=False)
    best = []
    for i in data.sizes:
        example = data.source[i]
        windows = proposer(example.data, example.name, _image(data, i))
        best += [
            max(float(boxes.iou(box[None], w[None])[0, 0]) for w in windows)
            for box in data.objects[i].boxes
        ]
    facts = json.loads((tmp_path / "proposals_trainval.json").read_text())
    assert facts["recall"] == np.mean(np.asarray(best) >= 0.5) > 0.5
    assert facts["num_objects"] == len(best) == 8


def test_images_too_small_for_any_window_are_said_to_be(tmp_path):
    objects = {"a": [test_voc.make_object("cat", (1, 1, 9, 9))]}
    test_voc.make_voc(tmp_path, {"train": "a"}, objects, (16, 16))
    test_voc.write_image(tmp_path / "VOC2007/JPEGImages/a.png", 16, 16)
    data = dataset.read(voc.VocSource(str(tmp_path), "train"))
    config = config_lib.ProposalConfig(num_processes=1)
    message = (
        "fast finds no window in the 1 images of split train: those with a side below "
        "config.proposals.min_side=20 pixels are left out, and the largest image is 16x16; give a"
    )
    with pytest.raises(errors.InputError, match=message):
        proposing.provide(config, str(tmp_path), data, None, testing=False)
    with pytest.raises(
        errors.InputError, match=r"config\.proposals\.path=w has no window in the 1"
    ):
        proposing.provide(
            config, str(tmp_path), data, _stored(data, np.zeros((0, 4))), testing=True
        )


def test_windows_of_other_images_are_counted_or_refused(data):
    # All images are 70 to 89 high and 100 to 119 wide.
    inside = [[0, 0, 100, 70]] * 50
    fits = _stored(data, inside)
    fits.check(data)
    assert fits.describe_outside(data) == ""
    some = _stored(data, [*inside, [90, 60, 130, 69], [121, 0, 140, 60], [-3, 0, 9, 9]])
    some.check(data)
    assert some.describe_outside(data) == (
        "12 of 212 windows (5.7%) reach beyond their image and are cut to it; 4 of them lie "
        "outside and are left out"
    )
    with pytest.raises(
        errors.InputError, match=r"=w: of 12 windows of split trainval 8 lie outside"
    ):
        _stored(data, [[0, 0, 9, 9], [120, 0, 140, 60], [0, 90, 50, 99]]).check(data)
    swapped = np.asarray([[0, 0, 40, 100], [5, 5, 60, 60], [5, 5, 30, 90]])
    message = "8 reach beyond their image, but none would with x and y swapped; rows are x1, y1"
    with pytest.raises(errors.InputError, match=message):
        _stored(data, swapped).check(data)
    _stored(data, swapped[:, [1, 0, 3, 2]]).check(data)


def test_windows_that_are_shares_of_the_sides_are_refused(data):
    shares = np.asarray([[0.1, 0.2, 0.6, 0.5], [0, 0, 1, 1]])
    message = r"=w: of 8 windows of split trainval all lie in the first 2 pixels, as shares \(0"
    # Also those of a .mat file, whose corners are taken for inclusive, or counted from 1.
    for added in ([0, 0, 0, 0], [0, 0, 1, 1], [-1, -1, 0, 0]):
        with pytest.raises(errors.InputError, match=message):
            _stored(data, shares + added).check(data)
    _stored(data, [*shares, [0, 0, 9, 9]]).check(data)


def test_windows_are_of_an_image_however_the_file_calls_it(data):
    rows = np.asarray([[0, 0, 9, 9]], np.float32)
    ids = [data.source.image_ids[i] for i in data.sizes]
    named = {f"some/JPEGImages/{ids[0]}.jpg": rows, f"{ids[1]}.JPG": rows + 1}
    named |= dict.fromkeys(ids[2:], rows + 2) | {"other": rows}
    stored = proposing.Stored(named, "w", "")
    stored.check(data)
    by_image = stored.of_split(data)
    assert set(by_image) == set(ids)
    assert [by_image[image_id][0, 0] for image_id in ids[:3]] == [0, 1, 2]
    named[ids[1]] = rows
    with pytest.raises(errors.InputError, match=rf"windows of image {ids[1]} twice: as .*JPG and"):
        stored.check(data)


@pytest.mark.skipif(not VOC07.is_dir(), reason="shared/data/voc07 is not here")
def test_windows_published_with_r_cnn():
    windows = window_files.read(str(VOC07 / "selective_search"))
    assert {name: len(windows[name]) for name in windows} == {"000004": 2888, "001551": 2057}
    for name in windows:
        path = str(VOC07 / "selective_search" / f"{name}.jpg")
        height, width, _ = images.decode(images.read_file(path), path).shape
        # Their outermost pixels are the image's.
        assert windows[name].min(axis=0)[:2].tolist() == [0, 0]
        assert windows[name].max(axis=0)[2:].tolist() == [width, height]
