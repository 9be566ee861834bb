"""Outputs that cannot be written: one sentence that names the path, and nothing else changed."""

import json
import os
import pathlib
import resource
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.commands import eval as eval_command
from spp_jax.data.embedded import digits
from spp_jax.detection import detector
from spp_jax.detection import workdir as workdirs
from spp_jax.detection.scoring import testing
from spp_jax.evaluation import extraction
from spp_jax.evaluation.svm import benchmark
from spp_jax.interop import pretrained
from spp_jax.runs import places
from spp_jax.training import checks, logs
from tests import folders
from tests.detection import shapes
from tests.support import networks

FILE, FOLDER = "is no file, which a run writes; move it away", "is no folder, which a run writes in"


def _contents(folder: pathlib.Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else None for p in paths}


def _block(path: pathlib.Path, kind: str) -> None:
    """Puts a folder where a file is to be ("file"), or a file where a folder is to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.mkdir()
    else:
        path.write_text("mine")


def _refuses(folder: pathlib.Path, sentence: str, act: Any) -> None:
    before = _contents(folder)
    with pytest.raises(errors.InputError) as info:
        act()
    assert sentence in str(info.value)
    assert "\n" not in str(info.value)
    assert _contents(folder) == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("config.json", "file"),
        ("metrics.jsonl", "file"),
        ("lock.json", "file"),
        ("checkpoints", "folder"),
        ("tensorboard", "folder"),
    ],
)
def test_training_is_refused_before_it_starts(tmp_path, name, kind):
    _block(tmp_path / "w" / name, kind)
    sentence = f"{tmp_path / 'w' / name} {FILE if kind == 'file' else FOLDER}"
    config = config_lib.Config()
    _refuses(tmp_path, sentence, lambda: checks.find_saved(config, str(tmp_path / "w")))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((n, "file") for n in ("config.json", "data.json", "svm.npz", "regression.npz")),
        *((n, "file") for n in ("lock.json", "proposals_trainval.json", "proposals_test.json")),
        ("eval.json", "file"),
        *((n, "folder") for n in ("proposals", "start", "detections")),
    ],
)
def test_training_a_detector_is_refused_before_it_starts(tmp_path, name, kind):
    _block(tmp_path / "w" / name, kind)
    config = shapes.make_config("", "")
    config.data.split, config.data.eval_split = "trainval", "test"
    sentence = f"{tmp_path / 'w' / name} {FILE if kind == 'file' else FOLDER}"
    _refuses(tmp_path, sentence, lambda: workdirs.check(config, str(tmp_path / "w")))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("f.npy", "file"), ("f.npy.json", "file"), ("f.npy.part", "folder")],
)
def test_extraction_is_refused_before_it_starts(tmp_path, name, kind):
    _block(tmp_path / name, kind)
    output = str(tmp_path / "f.npy")
    sentence = f"{tmp_path / name} {FILE if kind == 'file' else FOLDER}"
    _refuses(tmp_path, sentence, lambda: extraction.check_output(output))


@pytest.fixture(scope="module")
def network() -> networks.Network:
    return networks.small()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("features", "folder"),
        ("features/entries.json", "file"),
        ("features/64.npy", "file"),
        ("features/64.npy.json", "file"),
        ("features/64.npy.part", "folder"),
    ],
)
def test_svms_are_refused_before_they_start(tmp_path, name, kind, network):
    config = config_lib.SvmConfig(scales=("64",), main_scale="64")
    config.data.path = folders.make_folder(tmp_path / "images", {"train": 2, "test": 2})
    _block(tmp_path / "w" / name, kind)
    sentence = f"{tmp_path / 'w' / name} {FILE if kind == 'file' else FOLDER}"
    _refuses(
        tmp_path,
        sentence,
        lambda: benchmark.run(network[0], network[1], config, str(tmp_path / "w")),
    )


def test_scoring_is_refused_before_it_starts(tmp_path):
    (tmp_path / "eval_full.json").mkdir()
    names = ["center", "full"]
    config = config_lib.Config()
    _refuses(
        tmp_path,
        f"eval_full.json {FILE}",
        lambda: eval_command._score(str(tmp_path), config, names),
    )


def test_a_set_is_not_made_where_a_file_is(tmp_path):
    _block(tmp_path / "digit_scenes" / "1.0.0", "folder")
    _refuses(tmp_path, f"1.0.0 {FOLDER}", lambda: digits.prepare(tmp_path))


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    _refuses(tmp_path, f"x {FOLDER}", lambda: places.check(str(tmp_path), folders=["x"]))
    places.check(str(tmp_path), files=["x"])  # as a file it is replaced


def test_a_folder_that_is_read_only_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    message = rf"^{tmp_path} is read-only: nothing can be written there$"
    with pytest.raises(errors.InputError, match=message):
        places.check(str(tmp_path), files=["x"])
    with pytest.raises(
        errors.InputError, match=rf"^{tmp_path}/w cannot be written: {tmp_path} is read-only$"
    ):
        places.check(f"{tmp_path}/w")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        errors.InputError,
        match=rf"^{tmp_path}/file/w cannot be written: {tmp_path}/file is not a folder$",
    ):
        places.check(f"{tmp_path}/file/w")


@pytest.fixture(name="small_files")
def _small_files():
    """Limits the bytes of each file (EFBIG), as `ulimit -f` does, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_too_large_is_one_sentence_and_the_last_one_stays(
    tmp_path, small_files, network
):
    _, variables = network
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    names = tuple("abcdef")
    meta = checkpoint.Meta(1, config, names, 0, {})
    writer = checkpoint.Writer(str(tmp_path), keep=1)
    writer.save(meta, {"params": variables["params"]})
    writer.wait()
    small_files(50_000)
    later = checkpoint.Meta(2, config, names, 0, {})
    writer.save(later, {"params": variables["params"]})
    with pytest.raises(errors.InputError) as info:
        writer.close()
    folder = tmp_path / checkpoint.CHECKPOINTS
    assert str(info.value) == f"checkpoint in {folder} cannot be written: File too large"
    loaded = checkpoint.load(tmp_path)[1]
    assert checkpoint.checksum(loaded) == checkpoint.checksum(variables)


def test_a_set_too_large_is_one_sentence(tmp_path, small_files, monkeypatch):
    monkeypatch.setattr(digits, "NUM_SCENES", {"train": 20, "test": 10})
    small_files(10_000)
    with pytest.raises(errors.InputError, match=r"1\.0\.0 cannot be written: File too large"):
        digits.prepare(tmp_path)
    assert os.listdir(tmp_path / "digit_scenes") == ["lock.json"]


def test_detections_too_large_are_one_sentence_and_go_on(tmp_path, small_files):
    path, images = str(tmp_path / "test.jsonl"), frozenset(range(4))
    of_image = detector.ImageDetections(np.zeros(9, int), np.zeros(9), np.zeros((9, 4)))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(done: int) -> None:
        with testing._Unfinished(path, {"facts": 1}, images, 2) as unfinished:
            assert len(unfinished.by_image) == done
            for index in sorted(images - unfinished.ids):
                unfinished.write(index, of_image)

    small_files(500)
    with pytest.raises(errors.InputError) as info:
        write(0)
    assert str(info.value).startswith(f"{path} cannot be written: File too large; ")
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    write(1)
    assert len(pathlib.Path(path).read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xfe\x00binary\n",
        b"\n",
        b"[1, 2]\n",
        b'"text"\n',
        b"NaN\n",
        b'{"step": NaN}\n',
        b'{"step": null}\n',
        b'{"step": "2"}\n',
        b"{" * 100_000 + b"\n",
        b"[" * 100_000 + b"\n",
        b'{"step": ' + b"9" * 10_000 + b"}\n",
        b"x" * 10_000_000 + b"\n",
        b'{"step": 3, "loss"',
    ],
    ids=lambda line: repr(line[:12]),
)
def test_odd_lines_of_metrics_are_dropped_and_the_others_stay(tmp_path, odd):
    path = tmp_path / logs.METRICS_FILE
    first, second, late = ({"step": n, "loss": float("nan")} for n in (1, 2, 9))
    text = [json.dumps(first).encode() + b"\n", odd, json.dumps(second).encode()]
    if not odd.endswith(b"\n"):
        text = [text[0], text[2] + b"\n", odd]
    path.write_bytes(b"".join(text))
    written = logs.Logs(str(tmp_path), 2, pytest.fail)
    written.write(late)
    written.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 9]


@pytest.fixture(name="read_only")
def _read_only(tmp_path):
    """A folder of a file system that nobody can write to, root neither."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root mounts a read-only file system")
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets root mount nothing, as in a container")
    yield str(folder)
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_file_system_is_refused_before_the_work(read_only):
    def refuse(act: Any) -> None:
        with pytest.raises(errors.InputError, match=rf"{read_only}.*"):
            act()

    refuse(lambda: checks.find_saved(config_lib.Config(), f"{read_only}/w"))
    refuse(lambda: workdirs.check(shapes.make_config("", ""), f"{read_only}/w"))
    refuse(lambda: extraction.check_output(f"{read_only}/f.npz"))
    refuse(lambda: eval_command._score(read_only, config_lib.Config(), ["center"]))
    refuse(lambda: pretrained._check_output(f"{read_only}/net"))
    refuse(lambda: digits.prepare(read_only))
