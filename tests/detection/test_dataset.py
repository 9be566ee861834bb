"""Annotations of a split: damage is counted and named, whether or not the caller accepts it."""

import pytest

from spp_jax import errors
from spp_jax.data.sources import voc
from spp_jax.detection import dataset
from tests.data import test_voc

DOG = [test_voc.make_object("dog", (11, 6, 30, 15))]


def _make(tmp_path, sizes):
    """Writes one image of 20x10 for each id, whose annotation says another size or none."""
    test_voc.make_voc(tmp_path, {"test": sizes}, dict.fromkeys(sizes, DOG), sizes)
    for image_id in sizes:
        test_voc.write_image(tmp_path / f"VOC2007/JPEGImages/{image_id}.jpg")
    return voc.VocSource(str(tmp_path), "test")


def test_images_that_their_annotation_contradicts_are_not_learnt_from(tmp_path):
    source = _make(tmp_path, {"a": (20, 10), "b": (40, 20), "c": None, "d": (10, 20)})
    data = dataset.read(source, skip_damaged=True)
    assert sorted(data.sizes) == sorted(data.limits) == [0, 2]
    assert [len(o.labels) for o in data.objects] == [1, 0, 1, 0]
    assert [s.split(": ")[0][-5:] for s in data.refused] == ["b.xml", "d.xml"]
    assert "4 images, 2 objects of 1 classes (0 difficult), 2 images refused" in data.lines()
    with pytest.raises(
        errors.ImageError, match=r"b\.xml: its <size> is 40x20.*; nor can 1 more an"
    ):
        dataset.read(source)


def test_a_damaged_annotation_is_left_out_of_training_but_not_of_scoring(tmp_path):
    source = _make(tmp_path, dict.fromkeys("abc", (20, 10)))
    path = tmp_path / "VOC2007/Annotations/b.xml"
    path.write_text(path.read_text()[:60])
    data = dataset.read(source, skip_damaged=True)
    assert sorted(data.sizes) == [0, 2]
    (sentence,) = data.refused
    assert sentence.startswith(str(path))
    with pytest.raises(errors.InputError, match=r"b\.xml: [^;]*$"):
        dataset.read(source)


def test_the_first_reason_is_named_where_nothing_is_left(tmp_path):
    source = _make(tmp_path, {"a": (40, 20), "b": (10, 20)})
    message = (
        r"no objects of any class; 2 of 2 annotations cannot be used, the first: .*a\.xml: its"
    )
    with pytest.raises(errors.InputError, match=message):
        dataset.read(source, skip_damaged=True)
    beyond = {"x": [test_voc.make_object("cat", (21, 1, 30, 9))]}
    test_voc.make_voc(tmp_path / "2", {"test": "x"}, beyond)
    source = voc.VocSource(str(tmp_path / "2"), "test")
    with pytest.raises(
        errors.InputError, match=r"; 1 objects are left out, the first: .*x\.xml: box"
    ):
        dataset.read_objects(source)
    with pytest.raises(errors.InputError, match=r"split test has no objects of cow; 1 objects are"):
        dataset.read_objects(source, ("cow",))


def test_boxes_that_nothing_cuts_are_counted(tmp_path):
    test_voc.make_voc(tmp_path, {"test": "ab"}, {"a": DOG, "b": DOG}, {"a": (20, 10), "b": None})
    data = dataset.read_objects(voc.VocSource(str(tmp_path), "test"))
    assert data.lines().splitlines()[1:] == [
        "of no known size: 1 images, neither in their annotation nor in a file; their boxes are "
        "not cut to the image"
    ]
    assert data.limits == {0: (10, 20)}


def test_images_whose_size_does_not_tell_are_counted(tmp_path):
    test_voc.make_voc(tmp_path, {"test": "abc"}, dict.fromkeys("abc", DOG))
    for image_id, orientation in zip("abc", (1, 3, 2)):
        path = tmp_path / f"VOC2007/JPEGImages/{image_id}.jpg"
        test_voc.write_image(path, orientation=orientation)
    data = dataset.read(voc.VocSource(str(tmp_path), "test"))
    assert data.unsure == (1, 2)
    assert data.lines().splitlines()[1:] == [
        "turned or mirrored by EXIF: 2 images, whose boxes are taken to be of the upright image; "
        f"look whether they are, at {tmp_path}/VOC2007/JPEGImages/b.jpg"
    ]
