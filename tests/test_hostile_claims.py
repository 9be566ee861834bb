"""Files that claim more than a reader may spend, and workdirs that somebody else has made."""

import io
import os
import shutil
import tarfile

import jax
import numpy as np
import pytest

from spp_jax import checkpoint, errors, network
from spp_jax import config as config_lib
from spp_jax.data.imagenet import tars
from spp_jax.data.sources import opening, voc, voc_xml
from spp_jax.detection.proposals import window_files
from spp_jax.evaluation import feature_files
from spp_jax.interop import caffe
from spp_jax.models import sppnet
from spp_jax.runs import files, lock, memory
from spp_jax.training import logs
from tests.interop import encoder
from tests.support import alarms, checkpoints


@pytest.fixture(autouse=True)
def alarm():
    """Ends a test that waits for a pipe, or for work without end."""
    with alarms.within(60):
        yield


def test_a_file_larger_than_its_limit_is_not_opened(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    with files.open_regular(tmp_path / "x", 5) as f:
        assert f.read() == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than the limit of 4"):
        files.open_regular(tmp_path / "x", 4)


def test_one_read_of_a_bounded_file(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    with files.Bounded(files.open_regular(tmp_path / "x"), 3) as f:
        assert (f.read(3), f.read()) == (b"123", b"45")
        with pytest.raises(ValueError, match="a part of it claims 4 bytes, more than 3"):
            f.read(4)


def _tar(path, *names, pax=None):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 3, pax or {}
            tar.addfile(member, io.BytesIO(b"abc"))
    return str(path)


IMAGE = "ILSVRC2012_val_00000001.JPEG"


def test_a_tar_of_too_many_members(tmp_path, monkeypatch):
    path = _tar(tmp_path / "x.tar", IMAGE, IMAGE, IMAGE)
    assert len(tars.list_validation(path)) == 3
    monkeypatch.setattr(tars, "MAX_MEMBERS", 2)
    with pytest.raises(errors.InputError, match=r"x\.tar has more than 2 members$"):
        tars.list_validation(path)


def test_a_tar_whose_header_has_no_end(tmp_path):
    path = _tar(tmp_path / "x.tar", IMAGE, pax={"comment": "a" * 2**21})
    with pytest.raises(errors.InputError, match=r"x\.tar is damaged or no tar \(a part of it clai"):
        tars.list_validation(path)


def test_an_image_of_a_tar_beyond_the_limit(tmp_path, monkeypatch):
    path = _tar(tmp_path / "x.tar", IMAGE)
    monkeypatch.setattr(files, "MAX_BYTES", 2)
    with pytest.raises(errors.InputError, match="JPEG' in it claims 3 bytes, more than the limit"):
        tars.list_validation(path)


def test_the_header_of_an_image_is_not_looked_for_without_end(tmp_path):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    size = "<size><width>4</width><height>4</height></size>"
    (tmp_path / "Annotations/a.xml").write_text(f"<annotation>{size}</annotation>")
    with open(tmp_path / "JPEGImages/a.jpg", "wb") as f:
        f.write(b"\xff\xd8\xff")
        f.truncate(2**40)
    path = str(tmp_path / "JPEGImages/a.jpg")
    parsed = voc_xml.parse((tmp_path / "Annotations/a.xml").read_bytes())
    assert voc._check_size(parsed, path, "a.xml") == (None, False)  # refused where it is read


@pytest.mark.parametrize("encoding", ["punycode", "idna"])
def test_encodings_that_take_hours(encoding):
    data = b"<?xml version='1.0' encoding='%s'?><annotation>" % encoding.encode()
    # The words are those of the XML reader, which differ between versions of Python.
    with pytest.raises(ValueError, match=r"encoding|handling|codec"):
        voc_xml.parse(data + b"a" * 2**19 + b"-" + b"b9" * 2**18)


def test_a_message_of_too_many_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(caffe, "MAX_FIELDS", 10)
    path = str(tmp_path / "x.caffemodel")
    for data in (
        encoder.block(1000, b"") * 11,
        encoder.block(100, encoder.block(1000, b"") * 11),
        encoder.block(100, encoder.block(7, encoder.block(5, b"") * 11)),
    ):
        (tmp_path / "x.caffemodel").write_bytes(data)
        with pytest.raises(errors.InputError, match="a message of more than 10 fields at byte"):
            caffe.read_caffemodel(path)


def test_a_blob_of_too_many_axes(tmp_path):
    shape = encoder.block(7, encoder.block(1, b"\x01" * 2**20))
    data = encoder.block(100, encoder.block(7, shape + encoder.floats(5, [1.0])))
    (tmp_path / "x.caffemodel").write_bytes(data)
    with pytest.raises(errors.InputError) as info:
        caffe.read_caffemodel(str(tmp_path / "x.caffemodel"))
    assert len(str(info.value)) < 500


def test_windows_of_more_json_than_memory_can_hold(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text('{"a": [[0, 0, 5, 5]]}')
    monkeypatch.setattr(memory, "physical", lambda: 8 * 20)
    with pytest.raises(errors.InputError, match="it has 21 bytes, more than the limit of 20"):
        window_files.read(str(tmp_path / "x.json"))


@pytest.mark.parametrize("content", [b"[" * 1000, b"\xff", b"[]", b'{"process": {}}'])
def test_a_lock_of_any_content(content):
    assert lock._holder(content) == "another process"


@pytest.mark.parametrize("name", ["huggingface:me/set", "community:set/config:1.0.0"])
def test_sets_of_which_tfds_would_run_programs(name, tmp_path):
    with pytest.raises(errors.InputError, match=r"is of a namespace; only sets of TFDS itself"):
        opening.load_builder(name, str(tmp_path))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Returns a workdir with the checkpoint of a small network."""
    folder, config = str(tmp_path_factory.mktemp("run")), config_lib.Config()
    shapes = sppnet.param_shapes(network.make(config.model, 2))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    meta = checkpoint.Meta(0, config, ("a", "b"), 0, {})
    checkpoint.save_network(folder, {"params": params}, meta)
    return folder


def test_a_checkpoint_that_claims_more_than_memory(workdir, monkeypatch):
    checkpoint.load(workdir)
    monkeypatch.setattr(memory, "physical", lambda: 1000)
    with pytest.raises(errors.InputError, match=r"checkpoint .*0 claims [\d,]+ bytes, more than"):
        checkpoint.load(workdir)


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "params/_METADATA", "params/d/more"])
def test_a_checkpoint_with_a_pipe_in_it(workdir, tmp_path, name):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    path = os.path.join(checkpoints.newest(copy), name)
    if os.path.exists(path):
        os.remove(path)
    os.mkfifo(path)
    with pytest.raises(errors.InputError, match=rf"is damaged: {path}: it is no regular file$"):
        checkpoint.load(copy)


def test_metadata_of_a_checkpoint_beyond_the_limit(workdir, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_METADATA", 100)
    with pytest.raises(errors.InputError, match=r"bytes, more than the limit of 100$"):
        checkpoint.load(workdir)


def test_a_log_that_is_a_link_to_elsewhere(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(errors.InputError, match=r"metrics\.jsonl cannot be written: "):
        logs.Logs(str(tmp_path / "run"), 0, print)
    assert not (tmp_path / "outside").exists()


def test_a_log_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(errors.InputError, match=r"jsonl cannot be written: it is no regular file"):
        logs.Logs(str(tmp_path), 0, print)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_features_that_are_a_pipe(tmp_path, suffix):
    path = str(tmp_path / f"x.{suffix}")
    os.mkfifo(path)
    description = feature_files.Description.__new__(feature_files.Description)
    with pytest.raises(errors.InputError, match=r"is there and is damaged, or is not of this pac"):
        feature_files.read_finished(path, {}, description)
