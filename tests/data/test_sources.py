"""Folders and TFDS sets: what they list, how they split, and what is wrong with them."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from spp_jax import errors
from spp_jax.data import stock
from spp_jax.data.embedded import digits
from spp_jax.data.sources import base, folders, objects, opening


def _write_image(path, value=100):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    assert cv2.imwrite(str(path), np.full((40, 50, 3), value, np.uint8))


@pytest.fixture
def flat(tmp_path):
    """dog: 6 images of mixed types, one nested; cat: 4; and files that are no images."""
    root = tmp_path / "flat"
    for name in ("a.jpg", "b.JPEG", "c.png", "d.webp", "e.bmp", "more/f.tif"):
        _write_image(root / "dog" / name)
    for i in range(4):
        _write_image(root / "cat" / f"{i}.png")
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / "README").write_text("no folder")
    return str(root)


@pytest.fixture
def with_splits(tmp_path):
    root = tmp_path / "splits"
    for split, count in (("train", 3), ("val", 2)):
        for name in ("x", "y"):
            for i in range(count):
                _write_image(root / split / name / f"{i}.png")
    return str(root)


def _files(source):
    return [os.path.relpath(source[i].name, source.path) for i in range(len(source))]


def test_a_folder_lists_its_images_in_order(flat):
    source = folders.scan_folder(flat, "")
    assert source.class_names == ("cat", "dog")
    assert _files(source) == [
        *[f"cat/{i}.png" for i in range(4)],
        *["dog/a.jpg", "dog/b.JPEG", "dog/c.png", "dog/d.webp", "dog/e.bmp", "dog/more/f.tif"],
    ]
    assert [source[i].label for i in range(10)] == [0] * 4 + [1] * 6
    with open(os.path.join(flat, "cat", "0.png"), "rb") as f:
        assert source[0].data == f.read()


def test_a_folder_without_splits_is_split_by_seed(flat):
    def parts(seed):
        train = opening.open_train("folder", flat, "train", 0.3, seed)
        rest = opening.open_held_out("folder", flat, "", 0.3, seed, ("cat", "dog"))
        assert rest is not None
        return _files(train), _files(rest)

    train, rest = parts(0)
    assert len(train) == 7
    assert len(rest) == 3
    assert sorted(train + rest) == sorted(_files(folders.scan_folder(flat, "")))
    assert parts(0) == (train, rest)
    assert any(parts(seed) != (train, rest) for seed in range(1, 4))


def test_every_class_is_split_alike_and_keeps_an_image():
    counts = (100, 5, 5, 5, 1, 2)
    labels = np.repeat(np.arange(6), counts).tolist()
    for seed in range(5):
        kept, rest = opening._split_by_seed(labels, 0.1, seed)
        assert sorted(kept + rest) == list(range(118))
        assert (kept, rest) == (sorted(kept), sorted(rest))
        held_out = np.bincount(np.asarray(labels)[rest], minlength=6)
        # 11.8 images in all: 10 whole ones, and 2 of the three classes of which 0.5 is wanted.
        assert held_out[0] == 10
        assert held_out[1:4].tolist() in ([1, 1, 0], [1, 0, 1], [0, 1, 1])
        assert held_out[4:].tolist() == [0, 0]
        assert opening._split_by_seed(labels, 0.9, seed)[0] != []
        most = np.bincount(np.asarray(labels)[opening._split_by_seed(labels, 0.9, seed)[1]])
        assert most.tolist() in ([90, 4, 4, 4, 0, 1], [90, 4, 4, 4, 0, 1])
    chosen = {tuple(opening._split_by_seed(labels, 0.1, seed)[1]) for seed in range(5)}
    assert len(chosen) == 5
    assert opening._split_by_seed(labels, 0.0, 0) == (list(range(118)), [])


def test_evaluation_takes_such_a_folder_whole(flat):
    assert len(opening.open_eval("folder", flat, "", ("cat", "dog"))) == 10
    for open_it in (
        lambda: opening.open_eval("folder", flat, "val", ("cat", "dog")),
        lambda: opening.open_held_out("folder", flat, "val", 0.1, 0, ("cat", "dog")),
        lambda: opening.open_train("folder", flat, "val", 0.1, 0),
    ):
        with pytest.raises(errors.InputError, match=f"no folder {flat}/val"):
            open_it()
    message = (
        "leave out config.data.eval_split, and training holds out a share of it, "
        "config.data.held_out, and evaluation scores all of it"
    )
    with pytest.raises(errors.InputError, match=message):
        opening.open_held_out("folder", flat, "val", 0.1, 0, ("cat", "dog"))


def test_a_folder_with_splits_keeps_them(with_splits):
    assert len(opening.open_train("folder", with_splits, "train", 0.5, 0)) == 6
    held_out = opening.open_held_out("folder", with_splits, "", 0.5, 0, ("x", "y"))
    assert held_out is not None
    assert held_out.split == "val"
    assert len(held_out) == 4
    assert len(opening.open_eval("folder", with_splits, "train", ("x", "y"))) == 6


def test_only_train_leaves_nothing_to_evaluate_on(tmp_path):
    _write_image(tmp_path / "train" / "x" / "0.png")
    assert opening.open_held_out("folder", str(tmp_path), "", 0.1, 0, ("x",)) is None
    with pytest.raises(errors.InputError, match="has only train/; set config"):
        opening.open_eval("folder", str(tmp_path), "", ("x",))
    assert len(opening.open_eval("folder", str(tmp_path), "train", ("x",))) == 1


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "train"):
        _write_image(tmp_path / name / "0.png")
    source = opening.open_train("folder", str(tmp_path), "train", 0.0, 0)
    assert source.class_names == ("car", "train")


def test_only_val_can_be_scored(tmp_path):
    _write_image(tmp_path / "val" / "x" / "0.png")
    assert len(opening.open_eval("folder", str(tmp_path), "", ("x",))) == 1
    with pytest.raises(errors.InputError, match=f"no folder {tmp_path}/train"):
        opening.open_train("folder", str(tmp_path), "train", 0.1, 0)


def test_classes_are_matched_by_name(flat):
    source = opening.open_eval("folder", flat, "", ("bird", "dog", "cat"))
    assert [source[i].label for i in range(10)] == [2] * 4 + [1] * 6
    with pytest.raises(errors.InputError, match="not trained on class 'cat'"):
        opening.open_eval("folder", flat, "", ("bird", "dog"))


def test_a_file_that_went_away_is_refused_by_name(flat):
    source = folders.scan_folder(flat, "")
    os.remove(os.path.join(flat, "cat", "0.png"))
    with pytest.raises(errors.ImageError, match=r"cat/0\.png: No such file"):
        source[0]


def test_wrong_folders_are_named(tmp_path, flat):
    def message(path):
        with pytest.raises(errors.InputError) as info:
            opening.open_train("folder", str(path), "train", 0.1, 0)
        return str(info.value)

    assert message("") == (
        "config.data.path is not set; it is the folder that holds the class folders"
    )
    assert message(tmp_path / "nowhere") == f"no folder {tmp_path}/nowhere"
    (tmp_path / "empty").mkdir()
    assert message(tmp_path / "empty") == (
        f"{tmp_path}/empty has no class folders in it, nor only images named by class, n01440764_*"
    )
    os.makedirs(os.path.join(flat, "fish"))
    assert message(flat) == (
        f"class folder {flat}/fish holds no image that is read; remove it, or put images of the "
        "class in it"
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "NUM_SCENES", {"train": 20, "test": 10})
        digits.prepare(path)
    return path


def test_a_tfds_set_by_name(scenes):
    source = opening.open_train("digit_scenes", scenes, "train", 0.1, 0)
    assert source.class_names == tuple("0123456789")
    assert len(source) == 20
    assert source[3].data.startswith(b"\x89PNG")
    assert source[3].name == "digit_scenes[train][3]"
    assert sorted(source[i].label for i in range(20)) == sorted(list(range(10)) * 2)
    held_out = opening.open_held_out("digit_scenes", scenes, "", 0.1, 0, source.class_names)
    assert held_out is not None
    assert (held_out.split, len(held_out)) == ("test", 10)


def test_wrong_tfds_sets_are_named(scenes):
    with pytest.raises(errors.InputError, match=r"config.data.name='no_such_set'"):
        opening.open_train("no_such_set", scenes, "train", 0.1, 0)
    with pytest.raises(errors.InputError, match="no split 'dev', only"):
        opening.open_train("digit_scenes", scenes, "dev", 0.1, 0)
    with pytest.raises(errors.InputError, match="not trained on class '0' and 9 more"):
        opening.open_eval("digit_scenes", scenes, "", ("cat", "dog"))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("", "digit_scenes has no split '', only train, test"),
        ("train[:0]", "split 'train[:0]' of digit_scenes holds no example"),
        ("train[5:2]", "split 'train[5:2]' of digit_scenes holds no example"),
        ("test+train[5:2]", "split 'train[5:2]' of digit_scenes holds no example"),
        ("train[", "split 'train[' of digit_scenes cannot be read: Error parsing split 'train['."),
        ("train[:200%]", "split 'train[:200%]' of digit_scenes cannot be read: Error parsing "),
        ("train[21:]", "split 'train[21:]' of digit_scenes cannot be read: Requested slice "),
    ],
)
def test_wrong_splits_are_named(scenes, split, message):
    with pytest.raises(errors.InputError) as info:
        opening.open_train("digit_scenes", scenes, split, 0.1, 0)
    assert str(info.value).startswith(message)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("is_legacy", [True, False])
def test_no_module_that_a_set_names_is_imported(scenes, tmp_path, monkeypatch, is_legacy):
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = shutil.copytree(f"{scenes}/digit_scenes/1.0.0", tmp_path / "set" / "my_set" / "1.0.0")
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps({**info, "name": "my_set"}))
    features = json.loads((path / "features.json").read_text())
    inner = features["featuresDict"]["features"]
    inner["image"]["pythonClassName"] = "hostile_module.Image"
    if is_legacy:
        inner["image"] = {
            "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
            "jsonFeature": {
                "json": json.dumps(
                    {"feature": {"type": "hostile_module.Image", "content": {}}, "length": None}
                )
            },
        }
    (path / "features.json").write_text(json.dumps(features))
    for call in (
        lambda: opening.open_train("my_set", f"{tmp_path}/set", "train", 0.1, 0),
        lambda: objects.open_objects("my_set", f"{tmp_path}/set", "train"),
        lambda: stock.prepare("my_set", "", f"{tmp_path}/set"),
    ):
        with pytest.raises(errors.InputError) as info:
            call()
        assert str(info.value) == (
            "my_set: its features.json names the class hostile_module.Image, which is none of "
            "TFDS's own features; import its module first if you trust it"
        )
    assert len(opening.open_train("digit_scenes", scenes, "train", 0.1, 0)) == 20


def test_a_set_stored_as_tfrecord_is_told_how_to_convert(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "prepare", lambda path, progress: None)
    path = shutil.copytree(scenes, tmp_path / "copy")
    (info,) = path.glob("digit_scenes/*/dataset_info.json")
    stored = json.loads(info.read_text())
    stored["fileFormat"] = "tfrecord"
    info.write_text(json.dumps(stored))
    with pytest.raises(errors.InputError, match=r"not stored as ArrayRecord; .*`tfds convert_f"):
        opening.open_train("digit_scenes", str(path), "train", 0.1, 0)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("dataset_info.json", '"train"', '"tr\nain"'),
        ("dataset_info.json", '"20"', '[["20"]]'),
        ("dataset_info.json", '"20"', '"1e999"'),
        ("dataset_info.json", '"my_set"', "[" * 10_000),
        ("features.json", '"dimensions"', '"x"'),
        ("features.json", '"pythonClassName"', '"x"'),
        ("features.json", '"-1"', '"nan"'),
    ],
)
def test_damaged_metadata_of_a_tfds_set_are_one_sentence(scenes, tmp_path, name, old, new):
    path = shutil.copytree(f"{scenes}/digit_scenes/1.0.0", tmp_path / "my_set/1.0.0")
    for each in ("dataset_info.json", "features.json"):
        text = (path / each).read_text()
        (path / each).write_text(text.replace('"name": "digit_scenes"', '"name": "my_set"'))
    text = (path / name).read_text()
    assert old in text
    (path / name).write_text(text.replace(old, new))
    with pytest.raises(errors.InputError) as info:
        opening.open_train("my_set", str(tmp_path), "train", 0.1, 0)
    assert str(info.value).startswith(f"the files of my_set under {tmp_path} are damaged: ")
    assert "\n" not in str(info.value)


def test_names_of_splits_are_quoted_in_one_line(scenes, tmp_path):
    path = shutil.copytree(f"{scenes}/digit_scenes/1.0.0", tmp_path / "my_set/1.0.0")
    info = path / "dataset_info.json"
    text = info.read_text().replace('"name": "digit_scenes"', '"name": "my_set"')
    info.write_text(text.replace('"name": "test"', '"name": "te\\nst"'))
    with pytest.raises(errors.InputError) as raised:
        opening.open_train("my_set", str(tmp_path), "test", 0.1, 0)
    assert str(raised.value) == "my_set has no split 'test', only train, te\\nst"


def test_a_tfds_set_that_is_not_prepared_is_named(tmp_path):
    with pytest.raises(errors.InputError, match=r"mnist is not prepared under .*prepare mnist"):
        opening.open_train("mnist", str(tmp_path), "train", 0.1, 0)


def test_images_named_by_class_as_imagenets_are(tmp_path):
    for name in ("n02000001_7.JPEG", "n01000000_a_b.png", "n02000001_10.JPEG"):
        _write_image(tmp_path / name)
    source = folders.scan_folder(str(tmp_path), "")
    assert source.class_names == ("n01000000", "n02000001")
    assert [source[i].label for i in range(3)] == [0, 1, 1]
    known = ("n03000000 gown", "n02000001 crane", "n01000000 gull")
    labelled = opening.open_eval("folder", str(tmp_path), "", known)
    assert labelled.class_names == known
    assert [labelled[i].label for i in range(3)] == [2, 1, 1]
    _write_image(tmp_path / "stray.png")
    with pytest.raises(errors.InputError, match="nor only images named by class"):
        folders.scan_folder(str(tmp_path), "")


def test_classes_are_matched_by_name_or_wordnet_identifier():
    known = ("n01 x", "n00000001 tench", "cat", "n00000002", "cat")
    names = ("cat", "n00000002 fish", "n00000001", "n01 x")
    assert base.match_classes(names, known, "data") == [2, 3, 1, 0]
    assert base.match_classes(("tench",), ("n00000001 tench", "n00000002 crane"), "") == [0]
    with pytest.raises(errors.InputError, match="not trained on class 'crane'"):  # which of them?
        base.match_classes(("crane",), ("n00000001 crane", "n00000002 crane"), "")
    with pytest.raises(errors.InputError, match="'tench' and another are both class 'n00000001 te"):
        base.match_classes(("n00000001", "tench"), ("n00000001 tench",), "data")
    with pytest.raises(errors.InputError, match=r"data: .* not trained on class 'n01' and 1 more"):
        base.match_classes(("n01", "cat", "n00000003 x"), known, "data")


def test_a_tfds_set_is_matched_by_name(scenes):
    known = ("nine", *"9876543210")
    source = opening.open_eval("digit_scenes", scenes, "", known)
    plain = opening.open_train("digit_scenes", scenes, "test", 0.0, 0)
    assert source.class_names == known
    assert [known[source[i].label] for i in range(10)] == [str(plain[i].label) for i in range(10)]


def test_a_split_without_a_folder_is_named_by_its_field(tmp_path):
    root = str(tmp_path)
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        _write_image(tmp_path / name / "a.jpg")
    with pytest.raises(errors.InputError, match=rf"^no folder {root}/max \(config\.data\.split\)$"):
        opening.open_train("folder", root, "max", 0.1, 0)
    names = opening.open_train("folder", root, "train", 0.1, 0).class_names
    message = rf"^no folder {root}/max \(config\.data\.eval_split\)$"
    with pytest.raises(errors.InputError, match=message):
        opening.open_eval("folder", root, "max", names)
    with pytest.raises(errors.InputError, match=message):
        opening.open_held_out("folder", root, "max", 0.1, 0, names)
