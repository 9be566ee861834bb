"""Detections that others made, scored against VOC's layout."""

import pytest

from spp_jax import errors
from spp_jax.detection.scoring import testing
from tests.data import test_voc
from tests.support import commands, said

# Half of it beyond an image of 100x80, and what can be seen of it.
DOG = [test_voc.make_object("dog", (61, 41, 150, 120))]
SEEN = "a 1.0 61 41 100 80\n"


def _write_detections(tmp_path, rows):
    folder = tmp_path / "detections"
    folder.mkdir(exist_ok=True)
    (folder / "comp4_det_test_dog.txt").write_text(rows)
    return str(folder)


def _score(tmp_path, rows, recorder=None):
    folder = _write_detections(tmp_path, rows)
    recorder = recorder or said.Recorder()
    return testing.score_files(str(tmp_path), folder, split="test", progress=recorder)


@pytest.mark.parametrize("size", [(100, 80), ("100.0", "80.0"), (0, 0), None])
def test_objects_are_cut_to_their_image(tmp_path, size):
    test_voc.make_voc(tmp_path, {"test": "a"}, {"a": DOG}, size)
    test_voc.write_image(tmp_path / "VOC2007/JPEGImages/a.png", 100, 80)
    assert _score(tmp_path, SEEN)["map_area"] == 1


def test_no_image_need_be_there(tmp_path):
    test_voc.make_voc(tmp_path, {"test": "a"}, {"a": DOG}, (100, 80))
    (tmp_path / "VOC2007/JPEGImages").rmdir()
    assert _score(tmp_path, SEEN)["map_area"] == 1
    recorder = said.Recorder()
    assert _score(tmp_path, SEEN + "a 0.5 90 41 150 80\n", recorder)["map_area"] == 1
    line = "1 of 2 boxes lie for more than half outside their image, the first in image a of class"
    assert line in recorder.text


def test_nothing_is_scored_against_an_image_of_another_size(tmp_path):
    test_voc.make_voc(tmp_path, {"test": "a"}, {"a": DOG}, (100, 80))
    test_voc.write_image(tmp_path / "VOC2007/JPEGImages/a.png", 200, 160)
    with pytest.raises(errors.InputError, match=r"a\.xml: its <size> is 100x80 and the image"):
        _score(tmp_path, SEEN)
    output = tmp_path / "score.json"
    sentence = commands.error_of(
        *("detect.py", "score", f"--data={tmp_path}", f"--output={output}"),
        f"--detections={_write_detections(tmp_path, SEEN)}",
    )
    assert "a.xml: its <size> is 100x80 and the image" in sentence
    assert not output.exists()


def test_a_class_without_a_file_is_named(tmp_path):
    objects = [*DOG, test_voc.make_object("w/o dog", (1, 1, 9, 9))]
    test_voc.make_voc(tmp_path, {"test": "a"}, {"a": objects}, (100, 80))
    recorder = said.Recorder()
    assert _score(tmp_path, SEEN, recorder)["map_area"] == 0.5
    line = "no file comp4_det_test_w%2Fo dog.txt of class 'w/o dog': it counts as not found"
    assert line in recorder.text


def test_swapped_corners_are_refused(tmp_path):
    test_voc.make_voc(tmp_path, {"test": "a"}, {"a": DOG}, (100, 80))
    with pytest.raises(errors.InputError, match="1 of 2 boxes reach beyond their image, but none"):
        _score(tmp_path, "a 1.0 41 61 80 100\na 0.5 1 1 20 20\n")
