"""How people arrange folders: what is a class, a split, a wrapper, and what is passed over."""

import os

import pytest

from spp_jax import errors
from spp_jax.data.sources import folders, layouts, opening

JPEG = b"\xff\xd8\xff\xe0"  # enough to be listed
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def _write(root, *paths, data=JPEG):
    for path in paths:
        folder, name = os.path.split(os.path.join(root, path))
        os.makedirs(folder, exist_ok=True)
        if name:
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data)
    return str(root)


def _open(path, held_out=0.0):
    """What training takes: ({file below the root: class}, the same to evaluate on, notes)."""
    train = opening.open_train("folder", path, "train", held_out, 0)
    rest = opening.open_held_out("folder", path, "", held_out, 0, train.class_names)

    def listed(source):
        names = [os.path.relpath(source.name(i), path) for i in range(len(source))]
        return {n: source.class_names[k] for n, k in zip(names, source.labels)}

    return listed(train), listed(rest) if rest else None, train.notes


def _labels_of_extract(path):
    """Returns the classes, {file below the root: class, or "" for none}, and the notes."""
    source = folders.scan_images(path)
    names = [os.path.relpath(source.name(i), path) for i in range(len(source))]
    classes = (*source.class_names, "")  # -1 is the last
    labels = {n: classes[k] for n, k in zip(names, source.labels, strict=True)}
    return source.class_names, labels, source.notes


def _classes_of_extract(path):
    return _labels_of_extract(path)[1]


@pytest.mark.parametrize(
    ("splits", "train", "watched"),
    [
        (("train", "valid", "test"), "train", "valid"),
        (("train", "val", "validation", "valid", "dev", "test"), "train", "validation"),
        (("train", "val", "valid"), "train", "val"),
        (("train", "dev", "test"), "train", "dev"),
        (("train", "test"), "train", "test"),
        (("Train", "Val"), "Train", "Val"),
        (("TRAIN", "TEST", "VALID"), "TRAIN", "VALID"),
        (("training_set", "test_set"), "training_set", "test_set"),
        (("Training Set", "Testing"), "Training Set", "Testing"),
        (("training", "evaluation"), "training", "evaluation"),
        (("images/train", "images/val", "labels/train"), "images/train", "images/val"),
        (("a/b/train", "a/b/val"), "a/b/train", "a/b/val"),
    ],
)
def test_splits_of_any_spelling(tmp_path, splits, train, watched):
    for split in splits:
        if split.startswith("labels"):
            _write(tmp_path, f"{split}/ant/0.txt", data=b"0 0.5 0.5 1 1")
        else:
            _write(tmp_path, f"{split}/ant/0.jpg", f"{split}/bee/0.jpg", f"{split}/bee/1.jpg")
    labels, held_out, _ = _open(str(tmp_path))
    assert held_out is not None
    expected = {"ant/0.jpg": "ant", "bee/0.jpg": "bee", "bee/1.jpg": "bee"}
    assert labels == {f"{train}/{name}": label for name, label in expected.items()}
    assert held_out == {f"{watched}/{name}": label for name, label in expected.items()}
    assert _classes_of_extract(str(tmp_path)).items() >= {**labels, **held_out}.items()


def test_two_spellings_of_a_split_are_refused_unless_named(tmp_path):
    for split in ("Train", "training", "val"):
        _write(tmp_path, f"{split}/ant/0.jpg", f"{split}/bee/0.jpg")
    with pytest.raises(
        errors.InputError, match=r"Train/ and training/ may both be the split train"
    ):
        _open(str(tmp_path))
    classes, labels, notes = _labels_of_extract(str(tmp_path))
    assert (classes, set(labels.values())) == ((), {""})
    assert "Train/ and training/ may both be the split train" in notes[0]
    source = opening.open_train("folder", str(tmp_path), "training", 0.0, 0)
    assert source.name(0) == f"{tmp_path}/training/ant/0.jpg"


def test_splits_may_have_any_name_that_is_given(tmp_path):
    for split in ("fold1", "fold2"):
        _write(tmp_path, f"{split}/ant/0.jpg", f"{split}/bee/0.jpg")
    source = opening.open_train("folder", str(tmp_path), "fold1", 0.0, 0)
    assert source.class_names == ("ant", "bee")
    held_out = opening.open_held_out("folder", str(tmp_path), "fold2", 0.0, 0, ("ant", "bee"))
    assert held_out is not None
    assert held_out.name(0) == f"{tmp_path}/fold2/ant/0.jpg"


@pytest.mark.parametrize("inside", ["w/data", "data", "w/x/y"])
def test_folders_around_the_classes_are_looked_through(tmp_path, inside):
    _write(tmp_path, f"{inside}/ant/0.jpg", f"{inside}/bee/deep/1.jpg")
    _write(tmp_path, "w/README", data=b"text")
    labels, held_out, notes = _open(str(tmp_path))
    assert labels == {f"{inside}/ant/0.jpg": "ant", f"{inside}/bee/deep/1.jpg": "bee"}
    assert held_out is None
    assert notes[-1].endswith(f"{tmp_path}/{inside}, which is taken in its place")
    assert len(notes) == inside.count("/") + 1
    assert _classes_of_extract(str(tmp_path)) == labels


def test_folders_around_the_classes_of_a_split(tmp_path):
    _write(tmp_path, *(f"train/train/{c}/0.jpg" for c in ("ant", "bee")), "val/images/bee/0.jpg")
    labels, held_out, notes = _open(str(tmp_path))
    assert labels == {"train/train/ant/0.jpg": "ant", "train/train/bee/0.jpg": "bee"}
    assert held_out == {"val/images/bee/0.jpg": "bee"}
    assert notes


def test_one_class_is_refused(tmp_path):
    _write(tmp_path, "one/ant/0.jpg", "nested/ant/0.jpg", "nested/ant/red/1.jpg")
    with pytest.raises(
        errors.InputError, match=r"one has images of one class only, 'ant'; training"
    ):
        _open(f"{tmp_path}/one")
    with pytest.raises(
        errors.InputError, match=r"'ant'; .*nested/ant holds folders, red/ the first"
    ):
        _open(f"{tmp_path}/nested")
    _write(tmp_path, "split/train/ant/0.jpg", "split/val/ant/0.jpg", "wnid/n01440764_1.JPEG")
    for name in ("split", "wnid"):
        with pytest.raises(errors.InputError, match="images of one class only"):
            _open(f"{tmp_path}/{name}")
    # To score a network of more classes one will do, also where it holds folders only.
    known = ("ant", "bee")
    assert len(opening.open_eval("folder", f"{tmp_path}/one", "", known)) == 1
    _write(tmp_path, "deep/bee/2019/0.jpg", "deep/bee/2020/0.jpg")
    source = opening.open_eval("folder", f"{tmp_path}/deep", "", known)
    assert list(source.labels) == [1, 1]  # pyright: ignore (of a FolderSource)


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    _write(tmp_path, "bus/0.jpg", "car/0.jpg", "train/0.jpg")
    labels, _, _ = _open(str(tmp_path))
    assert labels == {"bus/0.jpg": "bus", "car/0.jpg": "car", "train/0.jpg": "train"}
    assert _classes_of_extract(str(tmp_path)) == labels
    _write(tmp_path, "train/freight/0.jpg")
    with pytest.raises(errors.InputError, match=r"holds train/, which has folders .* beside bus/"):
        _open(str(tmp_path))
    with pytest.raises(errors.InputError, match=r"rename train/ if it is a class"):
        _open(str(tmp_path))


def test_what_lies_beside_a_pair_of_splits_is_named(tmp_path):
    for name in ("train/ant", "train/bee", "val/ant", "unlabelled"):
        _write(tmp_path, f"{name}/0.jpg")
    _write(tmp_path, "test/0.jpg")
    _write(tmp_path, "annotations/0.xml", data=b"<annotation>")
    labels, held_out, notes = _open(str(tmp_path))
    assert held_out is not None
    assert labels == {"train/ant/0.jpg": "ant", "train/bee/0.jpg": "bee"}
    assert held_out == {"val/ant/0.jpg": "ant"}
    assert notes == (
        f"{tmp_path}/test holds no class folders; training and evaluation pass over it",
        f"{tmp_path}/unlabelled is no split; training and evaluation pass over it",
    )
    assert _labels_of_extract(str(tmp_path)) == (
        ("ant", "bee"),
        {**labels, **held_out, "test/0.jpg": "", "unlabelled/0.jpg": ""},
        (
            *notes,
            f"{tmp_path}: 2 of 5 image(s) have no label, test/0.jpg the first: they are in no "
            "class folder that training or evaluation takes",
        ),
    )
    # What is not read is named as well, and makes no folder a class.
    _write(tmp_path, "phone/0.heic", data=HEIC)
    assert (
        f"{tmp_path}/phone is no split; training and evaluation pass over it"
        in _open(str(tmp_path))[2]
    )


@pytest.mark.parametrize(
    ("inside", "refusal"),
    [
        (("train", "extra"), "train/, which has folders as a split has, beside extra/"),
        (("Train", "TEST "), "Train/, which has folders as a split has, beside TEST /"),
    ],
)
def test_what_training_refuses_has_no_labels(tmp_path, inside, refusal):
    _write(tmp_path, *(f"{name}/{c}/0.jpg" for name in inside for c in ("ant", "bee")))
    with pytest.raises(errors.InputError, match=refusal) as refused:
        _open(str(tmp_path))
    classes, labels, notes = _labels_of_extract(str(tmp_path))
    assert classes == ()
    assert labels == {f"{name}/{c}/0.jpg": "" for name in inside for c in ("ant", "bee")}
    assert notes == (f"no image of {tmp_path} has a label, as for training: {refused.value}",)


def test_the_classes_of_extract_are_those_of_training(tmp_path):
    _write(tmp_path, "train/n01440764 tench/0.jpg", "train/bee/0.jpg", "val/tench/0.jpg")
    _write(tmp_path, "test/bee/0.jpg", "test/cat/0.jpg", "beside.jpg", "train/beside.jpg")
    _write(tmp_path, "dev/bee/2019/0.jpg", "dev/bee/2020/0.jpg")
    train_labels, held_out, notes = _open(str(tmp_path))
    assert held_out is not None
    classes, labels, extract_notes = _labels_of_extract(str(tmp_path))
    assert classes == ("bee", "n01440764 tench")
    assert labels == {
        **train_labels,
        **held_out,
        "dev/bee/2019/0.jpg": "bee",
        "dev/bee/2020/0.jpg": "bee",
        "test/bee/0.jpg": "bee",
        "test/cat/0.jpg": "",
        "beside.jpg": "",
        "train/beside.jpg": "",
    }
    assert extract_notes == (
        f"{tmp_path}: 2 of 9 image(s) have no label, beside.jpg the first: they are in no class "
        "folder that training or evaluation takes",
        f"{tmp_path}: 1 of 9 image(s) have no label, test/cat/0.jpg the first: they are of a "
        "class that the training split does not have",
    )
    assert notes == (
        f"{tmp_path}: passed over 1 image(s) beside the folders",
        f"{tmp_path}/train: passed over 1 image(s) beside the class folders",
    )


def test_a_second_folder_of_the_same_split_is_named(tmp_path):
    for split in ("train", "train_set", "val", "valid"):
        _write(tmp_path, f"{split}/ant/0.jpg", f"{split}/bee/0.jpg")
    for name, other in (("train", "train_set"), ("train_set", "train")):
        source = opening.open_train("folder", str(tmp_path), name, 0.0, 0)
        assert source.name(0) == f"{tmp_path}/{name}/ant/0.jpg"
        assert source.notes == (
            f"{tmp_path}/{name} is taken for the train split; {tmp_path}/{other}, another, is "
            "passed over",
        )
    held_out = opening.open_held_out("folder", str(tmp_path), "", 0.0, 0, ("ant", "bee"))
    assert held_out is not None
    assert held_out.notes == (
        f"{tmp_path}/val is taken for the validation split; {tmp_path}/valid, another, is passed "
        "over",
    )


def test_splits_without_class_folders_are_refused(tmp_path):
    _write(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "test/0.jpg")
    with pytest.raises(errors.InputError, match=r"test holds images and no class folders; the im"):
        _open(str(tmp_path))
    assert list(folders.scan_images(str(tmp_path)).labels) == [-1, -1, -1]


def test_splits_inside_classes_are_refused_and_what_may_be_splits_is_told(tmp_path):
    _write(tmp_path, *(f"in/{c}/{s}/0.jpg" for c in ("ant", "bee") for s in ("train", "test")))
    with pytest.raises(
        errors.InputError, match=r"each class folder of .*in holds test/ and train/"
    ):
        _open(f"{tmp_path}/in")
    _write(
        tmp_path, *(f"s/{s}/{c}/0.jpg" for c in ("ant", "bee") for s in ("seg_test", "seg_train"))
    )
    _, _, notes = _open(f"{tmp_path}/s")
    assert notes == (
        f"the class folders of {tmp_path}/s, as seg_test, all hold folders called ant and bee: if "
        "those are the classes, set config.data.split to seg_train",
    )
    train = opening.open_train("folder", f"{tmp_path}/s", "seg_train", 0.5, 0)
    assert train.class_names == ("ant", "bee")
    # Without the split to evaluate on what is held out is of other classes.
    _write(tmp_path, "s/seg_test/ant/1.jpg", "s/seg_train/ant/1.jpg")
    with pytest.raises(errors.InputError, match="not trained on class 'seg_test' and 1 more"):
        opening.open_held_out("folder", f"{tmp_path}/s", "", 0.5, 0, train.class_names)


def test_links_to_folders_are_followed(tmp_path):
    data, root = tmp_path / "data", tmp_path / "set"
    _write(data, "bees/0.jpg", "more/1.jpg", "more/deep/2.jpg")
    _write(root, "ant/0.jpg")
    os.symlink(data / "bees", root / "bee")
    os.symlink(data / "more", root / "ant" / "linked")
    os.symlink(data / "more" / "1.jpg", root / "ant" / "file.jpg")
    os.symlink(data / "nowhere", root / "ant" / "gone.jpg")
    os.symlink(root, root / "ant" / "round")
    os.symlink("self", root / "ant" / "self")
    labels, _, notes = _open(str(root))
    names = ("0.jpg", "file.jpg", "gone.jpg", "linked/1.jpg", "linked/deep/2.jpg")
    assert labels == {f"ant/{n}": "ant" for n in names} | {"bee/0.jpg": "bee"}
    assert notes == (f"{root}/ant: passed over round, a link to a folder that it is in",)
    assert _classes_of_extract(str(root)) == labels


def test_what_looks_like_an_image_and_is_not_read_is_named(tmp_path):
    _write(tmp_path, "ant/0.jpg", "ant/IMG_1", "ant/frame.0001", "bee/0.avif")
    _write(tmp_path, "ant/old.jpg.bak", "bee/a.psd", "bee/a.CR2")
    _write(tmp_path, "bee/phone", "bee/b.HEIC", data=HEIC)
    _write(tmp_path, "bee/notes.txt", "bee/labels", data=b"BMW, P1 and II*")
    labels, _, notes = _open(str(tmp_path))
    assert sorted(labels) == ["ant/0.jpg", "ant/IMG_1", "ant/frame.0001", "bee/0.avif"]
    assert list(notes) == [
        f"{tmp_path}/ant: passed over 1 file(s) that look like images, old.jpg.bak the first: "
        "their format is not read, or their suffix is no image's; convert or rename them",
        f"{tmp_path}/bee: passed over 4 file(s) that look like images, a.CR2 the first: "
        "their format is not read, or their suffix is no image's; convert or rename them",
    ]
    _write(tmp_path, "cat/0.heic", data=HEIC)
    with pytest.raises(errors.InputError, match="cat holds no image that is read; remove it, or"):
        _open(str(tmp_path))


def test_images_beside_the_class_folders_are_counted(tmp_path):
    names = ("ant/0.jpg", "bee/0.jpg", "a.jpg", "b.png", "c.heic")
    _write(tmp_path / "in", *names)
    unread = (
        "passed over 1 file(s) that look like images, {} the first: their format is not read, or "
        "their suffix is no image's; convert or rename them"
    )
    assert _open(f"{tmp_path}/in")[2] == (
        f"{tmp_path}/in: {unread.format('c.heic')}",
        f"{tmp_path}/in: passed over 2 image(s) beside the class folders",
    )
    classes, labels, notes = _labels_of_extract(f"{tmp_path}/in")
    assert classes == ("ant", "bee")
    assert labels == {"ant/0.jpg": "ant", "bee/0.jpg": "bee", "a.jpg": "", "b.png": ""}
    assert notes == (
        f"{tmp_path}/in: {unread.format('c.heic')}",
        f"{tmp_path}/in: 2 of 4 image(s) have no label, a.jpg the first: they are in no class "
        "folder that training or evaluation takes",
    )
    # Also beside what is around the class folders.
    _write(tmp_path / "out" / "w", *names[:2], "e.heic")
    _write(tmp_path / "out", "d.heic")
    assert _open(f"{tmp_path}/out")[2][1:] == (
        f"{tmp_path}/out: {unread.format('d.heic')}",
        f"{tmp_path}/out/w: {unread.format('e.heic')}",
    )


def test_what_systems_leave_is_passed_over(tmp_path):
    _write(tmp_path, "ant/0.jpg", "bee/0.jpg")
    expected = _open(str(tmp_path))
    for name in (
        "__MACOSX/ant/._0.jpg",
        "@eaDir/0.jpg",
        ".ipynb_checkpoints/0.jpg",
        "$RECYCLE.BIN/",
    ):
        _write(tmp_path, name, f"ant/{name}")
    _write(tmp_path, "ant/._0.jpg", "ant/.DS_Store", "lost+found/")
    _write(tmp_path, "Thumbs.db", "ant/Thumbs.db", "ant/desktop.ini", data=b"\xd0\xcf\x11\xe0")
    assert _open(str(tmp_path)) == expected
    assert _classes_of_extract(str(tmp_path)) == expected[0]


def test_a_class_without_images_is_none_to_learn_and_none_to_score(tmp_path):
    _write(
        tmp_path, *(f"train/{c}/0.jpg" for c in ("ant", "bee", "cat")), "val/ant/0.jpg", "val/cat/"
    )
    labels, held_out, _ = _open(str(tmp_path))
    assert set(labels.values()) == {"ant", "bee", "cat"}
    assert held_out == {"val/ant/0.jpg": "ant"}
    os.remove(tmp_path / "val" / "ant" / "0.jpg")
    with pytest.raises(
        errors.InputError, match=r"class folders of .*val hold no image that is read"
    ):
        _open(str(tmp_path))
    os.remove(tmp_path / "train" / "ant" / "0.jpg")
    with pytest.raises(
        errors.InputError, match=r"class folder .*train/ant holds no image that is r"
    ):
        _open(str(tmp_path))


def test_names_of_splits():
    assert [layouts.split_of(n) for n in ("Train", "val-set", "DEV", "test", "training set")] == [
        "train", "validation", "dev", "test", "train",
    ]  # fmt: skip
    assert [layouts.split_of(n) for n in ("trains", "bus", "", "valley")] == [""] * 4
    assert layouts.eval_split(("train", "unsupervised")) == ""
    assert layouts.find_split(("Train", "Val"), "validation") == "Val"
    assert layouts.find_split(("Train", "Val"), "fold1") == ""
