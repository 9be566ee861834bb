"""VOC's layout: boxes by hand, labels of both kinds, and what is wrong is named."""

import pathlib

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.data import images, voc

VOC07 = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "voc07"


def make_object(name, box, difficult=0):
    corners = "".join(
        f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def make_voc(root: pathlib.Path, sets: dict, objects: dict, size=(20, 10)) -> str:
    """Writes ROOT/VOC2007 with image sets {split: ids} and {id: objects}, without images."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / "VOC2007" / name).mkdir(parents=True)
    for split, ids in sets.items():
        (root / "VOC2007/ImageSets/Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    for image_id, found in objects.items():
        width, height = size
        shown = f"<size><width>{width}</width><height>{height}</height></size>"
        (root / "VOC2007/Annotations" / f"{image_id}.xml").write_text(
            f"<annotation>{shown}{''.join(found)}</annotation>"
        )
    return str(root)


@pytest.fixture
def root(tmp_path):
    objects = {
        "a": [make_object("cat", (1, 1, 20, 10)), make_object("dog", (3, 4, 5, 4), 1)],
        "b": [make_object("cat", (2, 2, 3, 3), 1), make_object("cat", (0, 5, 25, 12))],
        "c": [make_object("dog", (5, 5, 4, 8)), make_object("cow", (1, 1, 2, 2), 1)],
    }
    return voc.find_root(make_voc(tmp_path, {"trainval": "ab", "test": "c"}, objects))


def test_boxes_are_exclusive_counted_from_zero_and_inside_the_image(root):
    found = voc.read_annotation(root, "a").objects
    assert found[0] == voc.Object("cat", (0, 0, 20, 10), False)
    # One row of three pixels, as VOC's corners are inclusive.
    assert found[1] == voc.Object("dog", (2, 3, 5, 4), True)
    assert voc.read_annotation(root, "b").objects[1].box == (0, 4, 20, 10)


def test_an_empty_box_is_skipped_and_named(root):
    found = voc.read_annotation(root, "c")
    assert [o.name for o in found.objects] == ["cow"]
    assert found.skipped == (f"{root}/Annotations/c.xml: box (5, 5, 4, 8) of dog is empty",)


def test_labels_of_annotations(root):
    names, labels = voc.read_labels(root, "trainval")
    assert names == ("cat", "dog")
    # An image with an easy and a difficult cat shows a cat; one with only a difficult dog, neither.
    np.testing.assert_array_equal(labels, [[1, 0], [1, -1]])
    names, labels = voc.read_labels(root, "test", ("cat", "cow"))
    np.testing.assert_array_equal(labels, [[-1, 0]])


def test_label_files_come_first(root):
    main = pathlib.Path(root, "ImageSets/Main")
    (main / "cat_trainval.txt").write_text("b  0\na -1\n")
    (main / "dog_trainval.txt").write_text("a  1\nb -1\n")
    names, labels = voc.read_labels(root, "trainval")
    assert names == ("cat", "dog")
    np.testing.assert_array_equal(labels, [[-1, 1], [0, -1]])
    (main / "dog_trainval.txt").write_text("a  1\n")
    with pytest.raises(errors.InputError, match=r"dog_trainval.txt .* not one label .* 'b'"):
        voc.read_labels(root, "trainval")


def test_what_is_wrong_is_named(root, tmp_path):
    with pytest.raises(errors.InputError, match=r"no image set val in .*; there are test, train"):
        voc.VocSource(root, "val")
    with pytest.raises(errors.InputError, match="is no VOC folder: it has no ImageSets/Main"):
        voc.find_root(root + "/JPEGImages")
    with pytest.raises(errors.InputError, match="no folder /nowhere"):
        voc.find_root("/nowhere")
    with pytest.raises(images.ImageError, match=r"Annotations/d.xml: No such file"):
        voc.read_annotation(root, "d")
    pathlib.Path(root, "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(images.ImageError, match=r"Annotations/a.xml: no element found"):
        voc.read_annotation(root, "a")
    make_voc(tmp_path / "second", {"test": "c"}, {})
    (tmp_path / "second" / "VOC2007").rename(tmp_path / "VOC2012")
    with pytest.raises(errors.InputError, match=r"several VOC folders: .*VOC2007, .*VOC2012; give"):
        voc.find_root(str(tmp_path))
    source = voc.VocSource(root, "test")
    with pytest.raises(images.ImageError, match=r"JPEGImages/c.jpg: No such file"):
        source[0]


def test_voc07():
    if not VOC07.is_dir():
        pytest.skip(f"{VOC07} is not there")
    root = voc.find_root(str(VOC07))
    found = voc.read_annotation(root, "000007")
    assert found.objects == (voc.Object("car", (140, 49, 500, 330), False),)
    names, labels = voc.read_labels(root, "test")
    # Images of each class in the devkit's table of VOC2007 test, difficult ones left out.
    counts = dict(zip(names, (labels > 0).sum(axis=0).tolist(), strict=True))
    assert labels.shape == (4952, 20)
    assert (counts["aeroplane"], counts["person"], counts["tvmonitor"]) == (204, 2007, 229)
