"""VOC's detections files: read as written, one pixel between the two ways to count, bad lines."""

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.detection import devkit, mean_ap

IDS = ("000001", "2008_000003")


def _write(path, text):
    (path / "comp4_det_test_cat.txt").write_text(text)
    return str(path)


def test_what_is_written_is_read_again(tmp_path):
    found = mean_ap.Detections(
        np.asarray([1, 0]), np.asarray([-0.25, 0.5]), np.asarray([[0, 0, 10, 20], [1.5, 2, 3, 4.5]])
    )
    devkit.write(str(tmp_path), "test", IDS, {"cat": found})
    lines = (tmp_path / "comp4_det_test_cat.txt").read_text().splitlines()
    assert lines == [
        "000001 0.500000 2.500 3.000 3.000 4.500",
        "2008_000003 -0.250000 1.000 1.000 10.000 20.000",
    ]
    again = devkit.read(str(tmp_path), "test", IDS, ("cat", "dog"))
    assert list(again) == ["cat"]
    assert again["cat"].image.tolist() == [0, 1]
    np.testing.assert_array_equal(again["cat"].boxes, found.boxes[::-1])


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


def test_a_folder_without_files_of_the_split_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match=r"holds no comp4_det_val_CLASS.txt of cat"):
        devkit.read(_write(tmp_path, ""), "val", IDS, ("cat",))
    with pytest.raises(errors.InputError, match="no such folder"):
        devkit.read(str(tmp_path / "none"), "val", IDS, ("cat",))


def test_an_empty_file_is_no_detection(tmp_path):
    found = devkit.read(_write(tmp_path, ""), "test", IDS, ("cat",))
    assert len(found["cat"].scores) == 0
