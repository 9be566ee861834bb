"""Image sets and label files as different tools write them, and which line means which image."""

import os
import pathlib

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.data.sources import image_sets
from tests.data import test_voc


def _make(tmp_path: pathlib.Path, text: str | bytes, ids=(), name="test") -> str:
    """Writes a set, and an empty annotation of each id."""
    test_voc.make_voc(tmp_path, {}, {})
    root = tmp_path / "VOC2007"
    data = text if isinstance(text, bytes) else text.encode()
    (root / f"ImageSets/Main/{name}.txt").write_bytes(data)
    for image_id in ids:
        path = root / "Annotations" / f"{image_id}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<annotation/>")
    return str(root)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a\nb\n", ("a", "b")),
        (b"\xef\xbb\xbfa\r\n\r\n b \r\n", ("a", "b")),
        ("a\r\nb\r\n".encode("utf-16"), ("a", "b")),
        ("a\rb", ("a", "b")),
        ("a.jpg\nb.PNG\n", ("a", "b")),
        ("JPEGImages/a\n./sub//../b\n", ("a", "b")),
        ("/data/VOC2007/JPEGImages/a.jpg\n../../Annotations/b.xml", ("a", "b")),
        ("C:\\voc\\JPEGImages\\sub\\c.jpg\n", ("sub/c",)),
        # Labels of classification, and ILSVRC's running numbers.
        ("a -1\nb  1\n", ("a", "b")),
        ("sub/c 17\n", ("sub/c",)),
        ("a.jpg 0\n", ("a",)),
        ("my photo 1\nmy photo 2\n", ("my photo 1", "my photo 2")),
        ("my photo 1 -1\nmy photo 2.jpg  1\n", ("my photo 1", "my photo 2")),
        # What is after an id, if it is that.
        ("a something else\n", ("a",)),
        # "odd.jpg" has the annotation odd.jpg.xml; of "v1.2", ".2" is no suffix.
        ("odd.jpg\nv1.2\n", ("odd.jpg", "v1.2")),
        # Nothing is there: the likeliest, whose annotation is then named as missing.
        ("no photo\nx.jpg\ny 1\n", ("no photo", "x", "y")),
    ],
)
def test_lines_mean_the_images_that_are_there(tmp_path, text, ids):
    there = ("a", "b", "sub/c", "my photo 1", "my photo 2", "odd.jpg", "v1.2")
    assert image_sets.read_ids(_make(tmp_path, text, there), "test") == ids


def test_an_image_without_annotation_is_there_as_well(tmp_path):
    root = _make(tmp_path, "my photo 1\nno 1\n")
    test_voc.write_image(pathlib.Path(root, "JPEGImages/my photo 1.PNG"))
    assert image_sets.read_ids(root, "test") == ("my photo 1", "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("../../a\n", r"names '../../a', which is outside"),
        ("/etc/passwd\n", r"names '/etc/passwd', which is outside"),
        ("JPEGImages/../../a\n", r"which is outside"),
        ("a\na.jpg\n", "names a twice"),
        ("\n \n", "image set test of .* is empty"),
        (b"\xff\xfea", "is no text in UTF-8"),
        (b"caf\xe9\n", r"test.txt is no text in UTF-8"),
    ],
)
def test_wrong_sets_are_named(tmp_path, text, message):
    with pytest.raises(errors.InputError, match=message):
        image_sets.read_ids(_make(tmp_path, text, ("a",)), "test")


def test_labels(tmp_path):
    text = b"\xef\xbb\xbfmy photo\t-1\r\nb.jpg   1.0\r\nJPEGImages/a +0\r\nb 1\r\nunknown 1\r\n"
    root = _make(tmp_path, text, name="cat_test")
    labels = image_sets.read_labels(root, "cat_test", ("a", "b", "my photo"))
    np.testing.assert_array_equal(labels, [0, 1, -1])
    assert labels.dtype == np.int8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 999\n", r"cat_test.txt: 'a 999' is not an image id and one of -1, 0 and 1"),
        ("a x\n", "'a x' is not an image id"),
        ("a\n", "'a' is not an image id"),
        ("1\n", "'1' is not an image id"),
        ("a nan\n", "'a nan' is not an image id"),
        ("a 0.5\n", "'a 0.5' is not an image id"),
        ("a 1\na.jpg -1\n", "two labels for image a"),
        ("b 1\n", "not one label for each image of its set: no a"),
    ],
)
def test_wrong_labels_are_named(tmp_path, text, message):
    root = _make(tmp_path, text, name="cat_test")
    with pytest.raises(errors.InputError, match=message):
        image_sets.read_labels(root, "cat_test", ("a",))


def test_an_image_set_is_no_class(tmp_path):
    root = _make(tmp_path, "a 1\n", name="traffic_light_train")
    for name, text in (("small_train", "a\nb\n"), ("train", "a\n"), ("train_val", "a 1\n")):
        pathlib.Path(root, f"ImageSets/Main/{name}.txt").write_text(text)
    assert image_sets.list_classes(root, "train") == ["traffic_light"]
    assert image_sets.list_classes(root, "val") == ["train"]


def test_two_files_of_an_image_are_refused(tmp_path):
    for name in ("a.jpg", "a.PNG", "b.gif"):
        (tmp_path / name).touch()
    files = image_sets.ImageFiles(str(tmp_path))
    assert (files.find("b"), files.find("c"), files.find("none/c")) == ("b.gif", "", "")
    assert files.find("b.gif") == "b.gif"
    with pytest.raises(errors.InputError, match=r"holds a\.PNG and a\.jpg, so that image a is not"):
        files.find("a")
    assert image_sets.ImageFiles(os.path.join(str(tmp_path), "none")).find("a") == ""
