"""VOC's detections files: read as written, one pixel between the two ways to count, bad lines."""

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.detection.scoring import devkit, mean_ap

IDS = ("000001", "2008_000003")


def _write(path, text):
    (path / "comp4_det_test_cat.txt").write_text(text)
    return str(path)


def test_what_is_written_is_read_again(tmp_path):
    detections = mean_ap.Detections(
        np.asarray([1, 0]), np.asarray([-0.25, 0.5]), np.asarray([[0, 0, 10, 20], [1.5, 2, 3, 4.5]])
    )
    devkit.write(str(tmp_path), "test", IDS, {"cat": detections})
    lines = (tmp_path / "comp4_det_test_cat.txt").read_text().splitlines()
    assert lines == [
        "000001 0.500000 2.500 3.000 3.000 4.500",
        "2008_000003 -0.250000 1.000 1.000 10.000 20.000",
    ]
    again = devkit.read(str(tmp_path), "test", IDS, ("cat", "dog"))
    assert list(again) == ["cat"]
    assert again["cat"].image.tolist() == [0, 1]
    np.testing.assert_array_equal(again["cat"].boxes, detections.boxes[::-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("000001 0.5 1 1 2\n", r"cat.txt:1: '000001 0.5 1 1 2' is not an image id and 5 numbers"),
        ("000001 0.5\n", r"cat.txt:1: '000001 0.5' is not an image id and 5 numbers"),
        ("\n000001 0.5 1 1 2 x\n", r"cat.txt:2: .* is not an image id and 5 numbers"),
        ("000001 nan 1 1 2 2\n", r"cat.txt:1: .* is no number"),
        ("000009 0.5 1 1 2 2\n", r"cat.txt:1: image 000009 is not in split test"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    with pytest.raises(errors.InputError, match=message):
        devkit.read(_write(tmp_path, text), "test", IDS, ("cat",))


def test_what_other_tools_write(tmp_path):
    ids = ("my photo 1", "sub/b")
    text = "my photo 1 0.5 2 1 2 3\nJPEGImages/sub/b.jpg\t.25  1 1 9 9\nmy photo 1.png 0 1 1 2 2\n"
    for data in (text.encode(), text.replace("\n", "\r\n").encode("utf-8-sig")):
        (tmp_path / "comp4_det_test_cat.txt").write_bytes(data)
        detections = devkit.read(str(tmp_path), "test", ids, ("cat",))["cat"]
        assert detections.image.tolist() == [0, 1, 0]
        assert detections.scores.tolist() == [0.5, 0.25, 0]
        assert detections.boxes[0].tolist() == [1, 0, 2, 3]
    devkit.write(str(tmp_path), "test", ids, {"cat": detections})
    assert (tmp_path / "comp4_det_test_cat.txt").read_text().startswith("my photo 1 0.5")
    np.testing.assert_array_equal(
        devkit.read(str(tmp_path), "test", ids, ("cat",))["cat"].image, detections.image
    )


NAMES = ("w/o helmet", "$1_$5", "two\nlines", ".dot", "..", "x" * 300, "x" * 299 + "y", "50%", "猫")


def test_every_class_has_a_file(tmp_path):
    detections = {
        name: mean_ap.Detections(np.asarray([0]), np.asarray([0.5]), np.asarray([[i, 0, 90, 9]]))
        for i, name in enumerate(NAMES)
    }
    devkit.write(str(tmp_path), "test", IDS, detections)
    again = devkit.read(str(tmp_path), "test", IDS, NAMES)
    assert [again[name].boxes[0, 0] for name in NAMES] == list(range(len(NAMES)))
    written = {p.name for p in tmp_path.iterdir()}
    assert len(written) == len(NAMES)
    assert written > {f"comp4_det_test_{n}.txt" for n in ("w%2Fo helmet", "$1_$5", "50%", "猫")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        # x, y, width, height: where the object begins right of its width.
        (
            ["1 1 60 60", "101 61 60 60", "30 90 60 60"],
            r"cat.txt:2: '000001 0.5 101 61 60 60' has x2 < x1 or y2 < y1, as have 2 of 3 rows",
        ),
        (["160 120 101 61"], r"cat.txt:1: .* not X Y WIDTH HEIGHT"),
        (["10 20 30 18.9"], r"cat.txt:1: .* has x2 < x1 or y2 < y1"),
        (["0.505 0.38 0.8 0.75", "0 0 1 1.02"], "has all of its 2 boxes between 0 and 1, as sh"),
        # Centre and sides.
        (["0.5 0.5 0.2 0.2"], "all of its 1 boxes between 0 and 1"),
    ],
)
def test_boxes_of_another_form_are_refused(tmp_path, rows, message):
    text = "".join(f"000001 0.5 {row}\n" for row in rows)
    with pytest.raises(errors.InputError, match=message):
        devkit.read(_write(tmp_path, text), "test", IDS, ("cat",))


@pytest.mark.parametrize(
    "rows",
    [
        # Corners of one pixel, of less, of none where a box is cut at the image's side.
        ["1 1 1 1"],
        ["1.000 1.000 0.400 0.300"],
        ["501.000 1.000 500.000 9.000", "1.000 376.000 9.000 375.000"],
        ["2.4996 5 1.4904 9"],
        # Counted from 0.
        ["0 0 1 1"],
        ["0 0 0.9 0.9", "0 0 20 20"],
    ],
)
def test_tiny_boxes_are_boxes(tmp_path, rows):
    text = "".join(f"000001 0.5 {row}\n" for row in rows)
    detections = devkit.read(_write(tmp_path, text), "test", IDS, ("cat",))
    assert len(detections["cat"].boxes) == len(rows)


def test_no_width_of_a_box_written_here_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1000, (2000, 2)).round(rng.integers(0, 8))
    side = rng.uniform(0, 2, (2000, 2)) * rng.integers(0, 2, (2000, 2))
    detections = mean_ap.Detections(
        np.zeros(2000, int), np.zeros(2000), np.concatenate([corner, corner + side], axis=1)
    )
    devkit.write(str(tmp_path), "test", IDS, {"cat": detections})
    again = devkit.read(str(tmp_path), "test", IDS, ("cat",))["cat"]
    np.testing.assert_allclose(again.boxes, detections.boxes, atol=6e-4)  # three digits are written


def test_boxes_outside_their_image_are_counted():
    shown = np.asarray([[0, 0, 10, 10], [6, 0, 15, 10], [4, 0, 15, 10], [20, 0, 30, 10]], float)
    detections = {
        "cat": mean_ap.Detections(np.asarray([0, 0, 0, 1]), np.zeros(4), shown),
        "dog": mean_ap.Detections(np.asarray([0]), np.zeros(1), np.asarray([[0.0, 20, 9, 30]])),
        "cow": mean_ap.NONE,
    }
    # Of image 1 no size is known.
    assert devkit.check_outside(detections, {0: (10, 10)}, IDS) == (
        "2 of 5 boxes lie for more than half outside their image, the first in image 000001 of "
        "class cat: are they in pixels of these images?"
    )
    assert devkit.check_outside(detections, {0: (30, 15)}, IDS) == ""


def test_a_folder_without_files_of_the_split_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match=r"holds no comp4_det_val_CLASS.txt of cat"):
        devkit.read(_write(tmp_path, ""), "val", IDS, ("cat",))
    with pytest.raises(errors.InputError, match="no such folder"):
        devkit.read(str(tmp_path / "none"), "val", IDS, ("cat",))


def test_an_empty_file_is_no_detection(tmp_path):
    detections = devkit.read(_write(tmp_path, ""), "test", IDS, ("cat",))
    assert len(detections["cat"].scores) == 0
