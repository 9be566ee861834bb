"""Crops around objects: each holds its share, the same every time, as class folders."""

import contextlib

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.data import crops
from spp_jax.data.sources import folders, voc
from spp_jax.runs import progress
from tests.data import test_voc
from tests.detection import shapes


def test_a_crop_holds_half_of_its_object():
    # An object of one colour: what a crop shows of it can be counted.
    image = np.zeros((80, 120, 3), np.uint8)
    image[10:30, 70:110] = 255
    annotation = voc.Annotation((voc.Object("cat", (70, 10, 110, 30), False),))
    cropper = crops.Cropper(shorter_side=80, size=50, crops=20)
    cut = list(cropper(image, annotation, "a"))
    assert 0 < len(cut) <= 20
    for name, crop in cut:
        assert name == "cat"
        assert crop.shape == (50, 50, 3)
        assert (crop[..., 0] > 128).sum() >= 0.5 * 20 * 40
    again = list(cropper(image, annotation, "a"))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(cut, again))
    large = voc.Annotation((voc.Object("cat", (0, 0, 120, 80), False),))
    assert list(cropper(image, large, "a")) == []  # no crop of 50 holds half of it


def test_crops_are_a_folder_to_train_on(tmp_path):
    root = shapes.make_voc(tmp_path / "voc", num_train=3, num_test=1)
    source = voc.VocSource(root, "trainval")
    output = str(tmp_path / "crops")
    cropper = crops.Cropper(shorter_side=80, size=48, crops=2)
    count, refused = crops.write_crops(source, cropper, output)
    assert (count, refused) == (12, [])
    written = folders.scan_folder(output, "")
    assert written.class_names == shapes.CLASSES
    assert len(written) == 12
    with pytest.raises(errors.InputError, match="is there already and not an empty folder"):
        crops.write_crops(source, cropper, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "voc"]


def test_crops_that_were_interrupted_are_begun_again(tmp_path):
    root = shapes.make_voc(tmp_path / "voc", num_train=3, num_test=1)
    source = voc.VocSource(root, "trainval")
    output = tmp_path / "crops"
    cropper = crops.Cropper(shorter_side=80, size=48, crops=2)

    class Interrupting(progress.Progress):
        @contextlib.contextmanager
        def bar(self, *_: object, **__: object):
            def advance(_: int) -> None:
                raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        crops.write_crops(source, cropper, str(output), progress=Interrupting())
    assert not output.exists()
    stale = tmp_path / "crops.part/crops/disc/old.jpg"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.touch()
    output.mkdir()
    assert crops.write_crops(source, cropper, f"{output}/") == (12, [])
    assert len(list(output.glob("*/*.jpg"))) == 12
    assert not stale.exists()
    assert not (tmp_path / "crops.part").exists()


def test_outputs_that_are_links_or_in_use(tmp_path, monkeypatch):
    root = shapes.make_voc(tmp_path / "voc", num_train=3, num_test=1)
    source, cropper = voc.VocSource(root, "trainval"), crops.Cropper(80, 48)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert crops.write_crops(source, cropper, str(tmp_path / "link")) == (12, [])
    assert len(list((tmp_path / "empty").glob("*/*.jpg"))) == 12
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(errors.InputError, match=r"^output . is in use; give a folder in it$"):
        crops.write_crops(source, cropper, ".")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["empty", "here", "link", "voc"]


def test_class_names_and_ids_become_names_of_files(tmp_path):
    names = ("w/o helmet", "..", "x" * 300)
    objects = {"sub/a": [test_voc.make_object(n, (1, 1, 60, 60)) for n in names]}
    (tmp_path / "VOC2007/Annotations/sub").mkdir(parents=True)
    test_voc.make_voc(tmp_path, {"train": objects}, objects, (60, 60))
    (tmp_path / "VOC2007/JPEGImages/sub").mkdir()
    test_voc.write_image(tmp_path / "VOC2007/JPEGImages/sub/a.png", 60, 60)
    output = tmp_path / "crops"
    source = voc.VocSource(str(tmp_path), "train")
    cropper = crops.Cropper(shorter_side=60, size=60, crops=1)
    assert crops.write_crops(source, cropper, str(output)) == (3, [])
    written = sorted(str(p.relative_to(output)) for p in output.glob("*/*"))
    assert written[:2] == ["%2E./sub%2Fa_2.jpg", "w%2Fo helmet/sub%2Fa_1.jpg"]
    assert len(written) == 3
    (tmp_path / "file").touch()
    with pytest.raises(errors.InputError, match=r"crops.part/lock.json cannot be wri"):
        crops.write_crops(source, cropper, str(tmp_path / "file/crops"))
