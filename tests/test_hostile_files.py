"""What is no regular file, too large, or nested without end is refused, wherever it is read."""

import errno
import os
import pathlib

import numpy as np
import pytest
import scipy.io

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data import images
from spp_jax.data.imagenet import tars
from spp_jax.data.sources import base, folders, image_sets, opening, voc, voc_xml
from spp_jax.detection import detector
from spp_jax.detection.proposals import window_files
from spp_jax.detection.scoring import devkit
from spp_jax.interop import pretrained, weights
from spp_jax.runs import archives, files
from tests.support import alarms


@pytest.fixture(autouse=True)
def alarm():
    """Ends a test that waits for a pipe."""
    with alarms.within(20):
        yield


def _pipe(path: pathlib.Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return str(path)


def _link(path: pathlib.Path, to: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
    return str(path)


def test_regular_files_only(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "x", 5) == b"12345"
    for path, reason in (
        (_pipe(tmp_path / "pipe"), "it is no regular file"),
        ("/dev/zero", "it is no regular file"),
        (_link(tmp_path / "zero", "/dev/zero"), "it is no regular file"),
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "none"), "No such file or directory"),
        (f"{tmp_path}/a\0b", "its name holds a zero byte"),
    ):
        with pytest.raises(OSError, match=reason) as info:
            files.read_bytes(path)
        assert (info.value.strerror, info.value.filename) == (reason, path)
    with pytest.raises(OSError, match="it has 5 bytes, more than the limit of 4"):
        files.read_bytes(tmp_path / "x", 4)


def test_the_size_is_looked_at_before_it_is_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as f:
        f.truncate(2**40)
    with pytest.raises(errors.ImageError) as info:
        images.read_file(str(tmp_path / "x.jpg"))
    assert str(info.value) == (
        f"{tmp_path}/x.jpg: it has 1,099,511,627,776 bytes, more than the limit of 1,073,741,824"
    )


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (images.read_file, "x.jpg"),
        (window_files.read, "x.npz"),
        (window_files.read, "x.json"),
        (window_files.read, "x.mat"),
        (weights.read_weights, "x.caffemodel"),
        (pretrained.read_class_names, "names.txt"),
        (lambda path: voc.read_annotation(os.path.dirname(os.path.dirname(path)), "a"),
         "Annotations/a.xml"),
        (lambda path: image_sets.read_ids(path[: path.index("/ImageSets")], "test"),
         "ImageSets/Main/test.txt"),
        (lambda path: devkit.read(os.path.dirname(path), "test", ["a"], ["dog"]),
         "comp4_det_test_dog.txt"),
        (lambda path: detector.read_config(os.path.dirname(path)), "config.json"),
        (lambda path: detector.read_data(os.path.dirname(path)), "data.json"),
        (tars.list_validation, "x.tar"),
    ],
)  # fmt: skip
def test_pipes_and_devices_are_refused_by_every_reader(tmp_path, read, name):
    for make in (_pipe, lambda path: _link(path, "/dev/zero")):
        path = make(tmp_path / name)
        with pytest.raises((errors.InputError, OSError)) as info:
            read(path)
        assert path in str(info.value) or "test" in str(info.value)
        assert "\n" not in str(info.value)
        os.remove(path)


def test_a_folder_of_pipes(tmp_path):
    for name in ("cat/a.png", "cat/b", "dog/a.png"):
        _link(tmp_path / "data" / name, _pipe(tmp_path / f"pipes/{name}"))
    source = folders.scan_folder(str(tmp_path / "data"), "")
    assert len(source) == 2  # "b" has neither a suffix nor bytes of an image
    with pytest.raises(errors.ImageError, match=r"cat/a\.png: it is no regular file"):
        source[0]


def test_one_mat_file_of_a_folder_is_a_pipe(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"boxes": np.array([[0.0, 0, 9, 9]])})
    path = _pipe(tmp_path / "b.mat")
    with pytest.raises(errors.InputError) as info:
        window_files.read(str(tmp_path))
    assert str(info.value) == f"{path} cannot be read as windows: it is no regular file"


def test_a_mat_file_that_never_ends(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "a.mat", {"boxes": np.array([[0.0, 0, 9, 9]])})
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(window_files.mat_reader, "__file__", str(tmp_path / "slow.py"))
    monkeypatch.setattr(window_files, "MAX_SECONDS", 0.5)
    with pytest.raises(errors.InputError) as info:
        window_files.read(f"{tmp_path}/a.mat")
    assert str(info.value) == (
        f"{tmp_path}/a.mat cannot be read as windows: it was not read within 0.5 seconds"
    )


def test_a_mat_file_larger_than_its_memory(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "a.mat", {"boxes": np.zeros((2**22, 4))}, do_compression=True)
    assert os.path.getsize(tmp_path / "a.mat") < 2**20
    monkeypatch.setattr(window_files.memory, "physical", lambda: 2**29)
    with pytest.raises(errors.InputError) as info:
        window_files.read(f"{tmp_path}/a.mat")
    assert "a.mat cannot be read as windows: it is damaged, or" in str(info.value)


def test_json_nested_without_end_and_of_another_type(tmp_path):
    (tmp_path / "windows.json").write_text("[" * 200_000)
    with pytest.raises(errors.InputError) as info:
        window_files.read(f"{tmp_path}/windows.json")
    assert str(info.value) == (
        f"{tmp_path}/windows.json cannot be read as windows: it is nested too deeply"
    )
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(errors.InputError) as info:
        detector.read_config(str(tmp_path))
    assert str(info.value) == (
        f"{tmp_path}/config.json is no config of detect.py: it holds a list, no object {{...}}"
    )
    with pytest.raises(errors.InputError, match=r"^config\.data must be an object of fields, got "):
        config_lib.from_dict(config_lib.Config, {"data": [1, 2]})


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


@pytest.mark.parametrize("data", [LAUGHS, LAUGHS.decode().encode("utf-16")])
def test_document_types_are_refused(data):
    with pytest.raises(ValueError, match=r"^it declares a document type, <!DOCTYPE annotation>, "):
        voc_xml.parse(data)


def test_an_annotation_nested_without_end():
    count = 50_000
    data = b"<annotation>" + b"<object>" * count + b"</object>" * count + b"</annotation>"
    assert len(voc_xml.parse(data).boxes) == count


@pytest.mark.parametrize("image_id", ["../../secret", "/etc/passwd", "a/../../b", "..", "a\0b", ""])
def test_ids_outside_the_folder(tmp_path, image_id):
    assert not image_sets.is_inside(image_id)
    assert image_sets.ImageFiles(str(tmp_path)).find(image_id) == ""
    with pytest.raises(errors.ImageError, match=f"xml: it is outside {tmp_path}$"):
        voc.read_annotation(str(tmp_path), image_id)
    assert image_sets.is_inside("a/../b.c..d")


def test_the_error_of_a_file_that_cannot_be_written_names_it(tmp_path):
    path = str(tmp_path / "x.json")

    def write(error):
        with files.replacing(path) as f:
            f.write(b"1")
            raise error

    with pytest.raises(OSError, match="No space") as info:
        write(OSError(errno.ENOSPC, "No space left on device"))
    assert str(info.value) == f"[Errno 28] No space left on device: '{path}'"
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError) as info:
        files.write_json(str(tmp_path / "none" / "x"), 1)
    assert info.value.filename == str(tmp_path / "none" / "x")


def test_files_written_in_place_follow_no_link(tmp_path):
    (tmp_path / "victim").write_text("safe")
    _link(tmp_path / "x", str(tmp_path / "victim"))
    with pytest.raises(OSError, match="symbolic links"):
        files.no_links(str(tmp_path / "x"), os.O_WRONLY | os.O_CREAT)
    files.write_json(str(tmp_path / "x"), [1])  # takes the place of the link
    assert (tmp_path / "victim").read_text() == "safe"
    assert files.read_json(str(tmp_path / "x")) == [1]


def test_archives_are_regular_files(tmp_path):
    with pytest.raises(OSError, match="it is no regular file"):
        archives.read_npz(_pipe(tmp_path / "x.npz"))


class _Records:
    """Stands for the examples of a TFDS set."""

    def __getitem__(self, index):
        if index == 4:
            raise KeyError("image/encoded")
        return [
            {"image": b"1", "label": 1},
            {"image": b"1", "label": 999},
            {"image": b"1", "label": -1},
            {"image": 10**12, "label": 0},
            {},
            {"image": b"1"},
        ][index]


@pytest.mark.parametrize("labelled", [True, False])
def test_records_of_tfds(labelled):
    source = opening.TfdsSource.__new__(opening.TfdsSource)
    source._name, source.split, source._labelled = "x", "test", labelled
    source._labels, source._examples = [7, 8], _Records()
    assert source[0] == base.Example(b"1", 8, "x[test][0]")
    messages = {
        1: "x[test][1]: its label 999 is none of the 2 classes",
        2: "x[test][2]: its label -1 is none of the 2 classes",
        3: "x[test][3]: its feature 'image' is no encoded image",
        4: "x[test][4]: its record is damaged ('image/encoded')",
        5: "x[test][5]: it has no feature 'label'",
    }
    if not labelled:
        del messages[2]
        assert source[2].label == -1
    for index, message in messages.items():
        with pytest.raises(errors.ImageError) as info:
            source[index]
        assert str(info.value) == message
