"""VOC's layout: boxes by hand, labels of both kinds, and what is wrong is named."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.sources import voc

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
    """Writes ROOT/VOC2007 with image sets {split: ids} and {id: objects}, without images.

    `size` is the (width, height) of all images, None for none, or {id: size}.
    """
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / "VOC2007" / name).mkdir(parents=True, exist_ok=True)
    for split, ids in sets.items():
        (root / "VOC2007/ImageSets/Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    for image_id, elements in objects.items():
        sides = size[image_id] if isinstance(size, dict) else size
        text = "<size><width>{}</width><height>{}</height></size>"
        shown = text.format(*sides) if sides else ""
        (root / "VOC2007/Annotations" / f"{image_id}.xml").write_text(
            f"<annotation>{shown}{''.join(elements)}</annotation>"
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
    objects = voc.read_annotation(root, "a").objects
    assert objects[0] == voc.Object("cat", (0, 0, 20, 10), False)
    # One row of three pixels, as VOC's corners are inclusive.
    assert objects[1] == voc.Object("dog", (2, 3, 5, 4), True)
    assert voc.read_annotation(root, "b").objects[1].box == (0, 4, 20, 10)


def test_an_empty_box_is_skipped_and_named(root):
    annotation = voc.read_annotation(root, "c")
    assert [o.name for o in annotation.objects] == ["cow"]
    assert annotation.skipped == (f"{root}/Annotations/c.xml: box (5, 5, 4, 8) of dog is empty",)


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_box_without_an_end_is_skipped_and_named(tmp_path, size):
    objects = [make_object("dog", (2, 3, 5, "inf")), make_object("cat", ("-inf", 3, 5, 4))]
    path = make_voc(tmp_path, {"test": "a"}, {"a": objects}, size)
    annotation = voc.read_annotation(f"{path}/VOC2007", "a")
    assert annotation.objects == (voc.Object("cat", (0, 2, 5, 4), False),)
    sentence = "VOC2007/Annotations/a.xml: box (2, 3, 5, inf) of dog has no end"
    assert annotation.skipped == (f"{path}/{sentence}",)


def test_labels_of_annotations(root):
    names, labels = voc.read_labels(root, "trainval")
    assert names == ("cat", "dog")
    # An image with an easy and a difficult cat shows a cat; one with only a difficult dog, neither.
    np.testing.assert_array_equal(labels, [[1, 0], [1, -1]])
    names, labels = voc.read_labels(root, "test", ("cat", "cow"))
    np.testing.assert_array_equal(labels, [[-1, 0]])


def write_image(path: pathlib.Path, width=20, height=10, orientation=1) -> None:
    """Writes an image of that size as it is stored, before EXIF turns it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


BEYOND = [make_object("dog", (11, 6, 30, 15))]


@pytest.mark.parametrize("size", [(20, 10), ("20.0", "10.0"), (0, 0), (20, 0), None])
def test_boxes_are_cut_to_the_image_whatever_the_annotation_says_of_its_size(tmp_path, size):
    make_voc(tmp_path, {"test": "a"}, {"a": BEYOND}, size)
    write_image(tmp_path / "VOC2007/JPEGImages/a.jpg")
    annotation = voc.VocSource(str(tmp_path), "test").annotation(0)
    assert annotation == voc.Annotation((voc.Object("dog", (10, 5, 20, 10), False),), (), (10, 20))


def test_without_an_image_the_size_is_the_annotations(tmp_path):
    make_voc(tmp_path, {"test": "ab"}, {"a": BEYOND, "b": BEYOND}, {"a": (25, 12), "b": None})
    source = voc.VocSource(str(tmp_path), "test")
    assert source.annotation(0).objects[0].box == (10, 5, 25, 12)
    assert source.annotation(0).size == (12, 25)
    assert source.annotation(1).objects[0].box == (10, 5, 30, 15)
    assert source.annotation(1).size is None
    # One that cannot be read is refused where its pixels are wanted.
    (tmp_path / "VOC2007/JPEGImages/a.jpg").write_bytes(b"no image")
    assert voc.VocSource(str(tmp_path), "test").annotation(0).size == (12, 25)


@pytest.mark.parametrize(
    ("stored", "orientation", "message"),
    [
        # The upright image is 20x10, or 10x20.
        ((20, 10), 1, None),
        ((20, 10), 3, None),
        ((10, 20), 6, None),
        ((20, 10), 6, r"<size> is 20x10 and the image \S*a.jpg is 10x20, turned upright"),
        ((20, 10), 8, r"20x10 and .* is 10x20, turned upright as its EXIF orientation says: draw"),
        ((10, 20), 1, r"20x10 and .* is 10x20: the image was turned .* or lost its EXIF"),
        ((40, 20), 1, r"20x10 and .* is 40x20: annotate this image"),
        ((21, 10), 1, r"20x10 and .* is 21x10: annotate this image"),
        ((40, 20), 6, r"20x10 and .* is 20x40: annotate this image"),
    ],
)
def test_an_image_of_another_size_than_its_annotation_is_refused(
    tmp_path, stored, orientation, message
):
    make_voc(tmp_path, {"test": "a"}, {"a": [make_object("dog", (1, 1, 9, 9))]})
    write_image(tmp_path / "VOC2007/JPEGImages/a.jpg", *stored, orientation=orientation)
    source = voc.VocSource(str(tmp_path), "test")
    if message is None:
        assert source.annotation(0).size == (10, 20)
        assert source.annotation(0).is_unsure is (orientation == 3)
        return
    with pytest.raises(errors.ImageError, match=rf"Annotations/a.xml: its .*{message}"):
        source.annotation(0)


@pytest.mark.parametrize(
    ("orientation", "side", "is_unsure"),
    [(1, 10, False), (2, 10, True), (4, 10, True), (6, 10, True), (9, 10, False), (6, 11, False)],
)
def test_what_a_size_cannot_tell_is_said(tmp_path, orientation, side, is_unsure):
    # Stored 10 wide, and 10 or 11 high: turned, a square stays one.
    size = (side, 10) if orientation == 6 else (10, side)
    make_voc(tmp_path, {"test": "a"}, {"a": [make_object("dog", (1, 1, 9, 9))]}, size)
    write_image(tmp_path / "VOC2007/JPEGImages/a.jpg", 10, side, orientation)
    assert voc.VocSource(str(tmp_path), "test").annotation(0).is_unsure is is_unsure


def test_without_a_size_nothing_tells_whether_boxes_are_of_the_upright_image(tmp_path):
    make_voc(tmp_path, {"test": "ab"}, dict.fromkeys("ab", BEYOND), None)
    for image_id, orientation in (("a", 8), ("b", 1)):
        write_image(tmp_path / f"VOC2007/JPEGImages/{image_id}.jpg", 20, 10, orientation)
    source = voc.VocSource(str(tmp_path), "test")
    assert [source.annotation(i).is_unsure for i in range(2)] == [True, False]
    assert source.annotation(0).size == (20, 10)


def test_what_is_left_of_no_box_is_said(tmp_path):
    objects = [
        make_object("cat", (21, 1, 30, 10)),
        make_object("cat", (-5, 1, 0, 10)),
        make_object("", (1, 1, 5, 5)),
        "<object><name>dog</name></object>",
        "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin></bndbox></object>",
        make_object("dog", (0.1, 0.2, 0.6, 0.5)),
        make_object("dog", (0, 0, 1, 1)),
    ]
    make_voc(
        tmp_path, {"test": "ab"}, {"a": objects, "b": objects[1:2]}, {"a": (20, 10), "b": None}
    )
    root = f"{tmp_path}/VOC2007"
    annotation = voc.read_annotation(root, "a")
    assert annotation.objects == ()
    shares = (
        "is left out: its corners look like shares (0..1) of the image's sides; VOC's are pixels, "
        "counted from 1"
    )
    assert [s.removeprefix(f"{root}/Annotations/a.xml: ") for s in annotation.skipped] == [
        "box (21, 1, 30, 10) of cat lies outside the image of 20x10",
        "box (-5, 1, 0, 10) of cat lies outside the image of 20x10",
        "box (1, 1, 5, 5) is of an object without a name",
        "the object dog has no <bndbox> with corners",
        "the <bndbox> of the object dog has no <xmax>",
        f"box (0.1, 0.2, 0.6, 0.5) of dog {shares}",
        f"box (0, 0, 1, 1) of dog {shares}",
    ]
    assert voc.read_annotation(root, "b").skipped[0].endswith("of cat lies outside the image")


def test_images_have_any_suffix_and_are_looked_for_once(tmp_path, monkeypatch):
    names = ("a.png", "b.JPG", "c.jpeg", "d.JPEG", "sub/e.webp", "sub/f.v2.bmp", "g.xcf")
    ids = [os.path.splitext(name)[0] for name in names]
    make_voc(tmp_path, {"test": [*ids, "gone"]}, {})
    folder = tmp_path / "VOC2007/JPEGImages"
    (folder / "sub").mkdir()
    for name in names[:-1]:
        write_image(folder / name)
    (folder / "g.xcf").write_bytes(b"gimp")
    (folder / "unlisted.png").touch()
    (folder / "unlisted.jpg").touch()
    listed = []
    monkeypatch.setattr(
        os, "listdir", lambda path, old=os.listdir: listed.append(path) or old(path)
    )
    source = voc.VocSource(f"{tmp_path}/VOC2007", "test")
    assert [p for p in listed if "JPEGImages" in p] == [f"{folder}/", f"{folder}/sub"]
    assert [source.name(i) for i in range(6)] == [f"{folder}/{name}" for name in names[:-1]]
    for i in range(6):
        assert images.decode(source[i].data, "x").shape == (10, 20, 3)
    for i, name in ((6, "g"), (7, "gone")):
        message = rf"{name}.jpg: No such file; {folder} was searched for an image {name} of any suf"
        with pytest.raises(errors.ImageError, match=message):
            source[i]
    write_image(folder / "sub/e.png")
    message = r"JPEGImages/sub holds e.png and e.webp, so that image sub/e is not one file"
    with pytest.raises(errors.InputError, match=message):
        voc.VocSource(str(tmp_path), "test")


def test_label_files_come_first(root):
    main = pathlib.Path(root, "ImageSets/Main")
    (main / "cat_trainval.txt").write_text("b  0\na -1\n")
    (main / "dog_trainval.txt").write_text("a  1\nb -1\n")
    names, labels = voc.read_labels(root, "trainval")
    assert names == ("cat", "dog")
    np.testing.assert_array_equal(labels, [[-1, 1], [0, -1]])
    (main / "dog_trainval.txt").write_text("a  1\n")
    with pytest.raises(errors.InputError, match=r"dog_trainval.txt .* not one label .* no b"):
        voc.read_labels(root, "trainval")


def test_what_is_wrong_is_named(root, tmp_path):
    with pytest.raises(errors.InputError, match=r"no image set val in .*; there are test, train"):
        voc.VocSource(root, "val")
    with pytest.raises(errors.InputError, match="is no VOC folder: it has no ImageSets/Main"):
        voc.find_root(root + "/JPEGImages")
    with pytest.raises(errors.InputError, match="no folder /nowhere"):
        voc.find_root("/nowhere")
    with pytest.raises(errors.ImageError, match=r"Annotations/d.xml: No such file"):
        voc.read_annotation(root, "d")
    pathlib.Path(root, "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(errors.ImageError, match=r"Annotations/a.xml: no element found"):
        voc.read_annotation(root, "a")
    make_voc(tmp_path / "second", {"test": "c"}, {})
    (tmp_path / "second" / "VOC2007").rename(tmp_path / "VOC2012")
    with pytest.raises(errors.InputError, match=r"several VOC folders: .*VOC2007, .*VOC2012; give"):
        voc.find_root(str(tmp_path))
    source = voc.VocSource(root, "test")
    with pytest.raises(errors.ImageError, match=r"JPEGImages/c.jpg: No such file"):
        source[0]


def test_voc07():
    if not VOC07.is_dir():
        pytest.skip(f"{VOC07} is not there")
    root = voc.find_root(str(VOC07))
    annotation = voc.read_annotation(root, "000007")
    assert annotation.objects == (voc.Object("car", (140, 49, 500, 330), False),)
    names, labels = voc.read_labels(root, "test")
    # Images of each class in the devkit's table of VOC2007 test, difficult ones left out.
    counts = dict(zip(names, (labels > 0).sum(axis=0).tolist(), strict=True))
    assert labels.shape == (4952, 20)
    assert (counts["aeroplane"], counts["person"], counts["tvmonitor"]) == (204, 2007, 229)


def test_a_folder_that_is_not_there_is_named_in_one_line():
    with pytest.raises(errors.InputError, match=r"^no folder /none/a\\nb$"):
        voc.find_root("/none/a\nb")
