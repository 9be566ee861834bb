"""Several processes of a command: the batches, losses, checkpoints and scores of one, and how they
end when they are asked to, when one of them fails, dies or stands still."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from spp_jax import checkpoint, cluster, errors
from spp_jax.training import report
from tests import folders
from tests.support import commands

PRESET = """
from spp_jax import config as config_lib


def get_config():
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.batch_size, config.data.shorter_side, config.data.crop_size = 8, 28, 24
    config.train.sizes, config.train.num_epochs = (24,), 3
    config.train.learning_rate = 0.005
    config.train.log_every_steps, config.train.checkpoint_every_steps = 1, 2
    config.train.eval_protocol = "full"
    config.eval.canvas_step = 64
    return config
"""
# Sums over devices of one process and of several are added up in another order.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The flags of every training: a preset, and a folder of 26 images to train on."""
    root = tmp_path_factory.mktemp("cluster")
    (root / "preset.py").write_text(PRESET)
    (root / "images").mkdir()
    images = folders.make_folder(root / "images", {"train": 13, "val": 5})
    return [f"--config={root / 'preset.py'}", f"--config.data.path={images}"]


def _start(count, *command, devices=2, **options):
    """Starts a command as several processes with so many devices each; output comes by a pipe."""
    shares = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "spp_jax", "launch", "-n", str(count), *map(str, command)],
        cwd=commands.ROOT,
        env=os.environ | {"XLA_FLAGS": shares},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def _run(count, *command, devices=2):
    """Runs a command as several processes; returns what it printed."""
    process = _start(count, *command, devices=devices)
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text[-3000:]
    return text


def _children(process):
    """Returns the processes of a launch, in the order of their numbers."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return sorted(map(int, listed.stdout.split()))


def _at_step(process, step, act):
    """Acts on the children after a step; returns the exit code, what was printed, the seconds."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            break
    act(_children(process))
    start = time.monotonic()
    text, _ = process.communicate(timeout=120)
    return process.returncode, text, time.monotonic() - start


def _metrics(workdir):
    lines = pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _assert_same_run(one, other, rtol):
    for name in ("batch_hash", "step", "size"):
        assert [m.get(name) for m in _metrics(one)] == [m.get(name) for m in _metrics(other)]
    for a, b in zip(_metrics(one), _metrics(other)):
        assert b["loss"] == pytest.approx(a["loss"], rel=max(rtol, 1e-15))
    a, b = (checkpoint.load(path)[1]["params"] for path in (one, other))
    for (name, x), (_, y) in zip(checkpoint.named_leaves(a), checkpoint.named_leaves(b)):
        scale = float(np.abs(x).max())
        np.testing.assert_allclose(y, x, rtol=0, atol=rtol * scale, err_msg=name)


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    """The run of one process with four devices."""
    workdir = str(tmp_path_factory.mktemp("alone"))
    commands.output_of("train.py", *given, f"--workdir={workdir}")
    return workdir


@pytest.fixture(scope="module")
def pair(given, tmp_path_factory):
    """The same run of two processes with two devices each, which one is asked to stop, resumed."""
    workdir = str(tmp_path_factory.mktemp("pair"))
    process = _start(2, "train", *given, f"--workdir={workdir}")
    code, text, _ = _at_step(process, 2, lambda pids: os.kill(pids[1], signal.SIGTERM))
    return workdir, code, text, _run(2, "train", *given, f"--workdir={workdir}")


def test_a_signal_to_one_saves_the_same_step_of_all(pair):
    _, code, text, resumed = pair
    assert code == 143
    (saved,) = re.findall(r"^SIGTERM: saved step (\d) of 9; the same command goes on", text, re.M)
    assert 2 < int(saved) < 9
    assert f"resuming from step {saved} of 9" in resumed
    # One process writes and tells; gloo tells nothing.
    assert resumed.count("4 cpu device(s), mesh {'data': 4}") == 1
    assert "Gloo" not in text + resumed


def test_two_processes_train_as_one(alone, pair):
    _assert_same_run(alone, pair[0], ROUNDING)
    assert [m["top1"] for m in _metrics(alone)] == [m["top1"] for m in _metrics(pair[0])]


def test_scores_are_those_of_one_process(pair):
    flags = (f"--workdir={pair[0]}", "--protocol=full,ten_view")
    # With as many devices a process, so that its programs are the same.
    one = _run(1, "eval", *flags)
    paths = [pathlib.Path(pair[0], f"eval_{name}.json") for name in ("full", "ten_view")]
    expected = [json.loads(path.read_text()) for path in paths]
    several = _run(2, "eval", *flags)
    for path, scores in zip(paths, expected):
        shared = json.loads(path.read_text())
        for result in (shared, scores):  # of several processes more batches are partly empty
            del result["seconds"], result["padded_share"]
        assert shared == scores
        assert scores["num_examples"] == 10
    assert one.count("top1") == several.count("top1")


def test_features_are_those_of_one_process(given, pair, tmp_path):
    images = given[1].removeprefix("--config.data.path=")
    flags = (f"--checkpoint={pair[0]}", f"--images={images}", "--layer=conv5", "--batch_size=4")
    one, several = tmp_path / "one.npz", tmp_path / "several.npz"
    _run(1, "extract", *flags, f"--output={one}")
    # Left by an extraction that had not begun.
    pathlib.Path(f"{several}.part").mkdir()
    assert "(36, 96) float32, 0 refused" in _run(2, "extract", *flags, f"--output={several}")
    with np.load(one) as expected, np.load(several) as made:
        assert sorted(expected) == sorted(made)
        for name in set(expected) - {"metadata"}:
            np.testing.assert_array_equal(made[name], expected[name])
        facts = [json.loads(str(file["metadata"]))["facts"] for file in (expected, made)]
    assert facts[0] == facts[1]
    assert not pathlib.Path(f"{several}.part").exists()


def _hurt(given, workdir, step, number, *flags):
    """Trains for long and sends the second process a signal after a step; as `_at_step`."""
    process = _start(
        *(2, "train", *given, f"--workdir={workdir}", "--config.train.num_epochs=60", *flags)
    )
    return _at_step(process, step, lambda pids: os.kill(pids[1], number))


def test_one_that_dies_ends_all_and_is_named(given, tmp_path):
    # At step 4 a save waits for that of step 2.
    code, text, seconds = _hurt(given, tmp_path, 5, signal.SIGKILL, "--heartbeat_seconds=5")
    assert code == 137
    assert re.search(r"^error: process 1 of 2 ended with exit code 137", text, re.M)
    assert re.search(
        r"^error: process 1 \(.+\) ended or gives no sign of life: process 0", text, re.M
    )
    assert seconds < 10
    assert checkpoint.load_with_meta(str(tmp_path))[2].step >= 2


def test_what_one_process_refuses_all_refuse(given, tmp_path):
    process = _start(2, "train", *given, f"--workdir={tmp_path}", "--config.data.batch_size=6")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    sentence = "config.data.batch_size=6 does not divide evenly among 4 devices"
    assert text.count(sentence) == 1
    assert re.search(rf"^error: process 0 \(.+\): {sentence}$", text, re.M)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.slow
def test_one_that_stands_still_is_lost(given, tmp_path):
    code, text, seconds = _hurt(given, tmp_path, 3, signal.SIGSTOP, "--heartbeat_seconds=5")
    assert code == 3
    assert re.search(r"^error: process 1 \(.+\) ended or gives no sign of life", text, re.M)
    # Found after five seconds; then the other gets ten to end by itself.
    assert seconds < 20


@pytest.mark.slow
def test_a_step_that_takes_too_long_ends_the_run_and_says_where(given, tmp_path):
    # Heartbeats go on for minutes: it is the step that is watched, the sixth, before an evaluation.
    flags = ("--heartbeat_seconds=300", "--config.run.max_step_seconds=15")
    code, text, _ = _hurt(given, tmp_path, 5, signal.SIGSTOP, *flags)
    assert code == 3
    assert re.search(
        r"^error: process 0 \(.+\): a step took more than config.run.max_step_seconds=15",
        text,
        re.M,
    )
    assert 'File "' in text


@pytest.mark.slow
def test_ten_kills_of_one_process_change_nothing(given, pair, tmp_path):
    flags = (*given, f"--workdir={tmp_path}", "--config.train.checkpoint_every_steps=1")
    rng = np.random.default_rng(0)
    for _ in range(10):
        process = _start(2, "train", *flags, "--heartbeat_seconds=5")
        victim, after = int(rng.integers(2)), float(rng.uniform(4, 14))
        time.sleep(after)
        if process.poll() is None:
            children = _children(process)
            if len(children) == 2:
                os.kill(children[victim], signal.SIGKILL)
        text, _ = process.communicate(timeout=120)
        assert "Traceback" not in text
    _run(2, "train", *flags)
    _assert_same_run(pair[0], tmp_path, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(4, 1), (1, 4)])
def test_what_two_processes_saved_others_go_on_with(given, alone, tmp_path, count, devices):
    flags = (*given, f"--workdir={tmp_path}")
    process = _start(2, "train", *flags)
    code, _, _ = _at_step(process, 4, lambda pids: os.kill(pids[0], signal.SIGINT))
    assert code == 130
    _run(count, "train", *flags, devices=devices)
    _assert_same_run(alone, tmp_path, ROUNDING)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--coordinator=host:1"], "coordinator, num_processes and process_id are given together"),
        (["--coordinator=host", "--num_processes=2", "--process_id=0"], "coordinator=host is not"),
        (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "process_id=2 must be at"),
        (
            [
                *("--coordinator=127.0.0.1:9", "--num_processes=2", "--process_id=1"),
                "--start_seconds=1",
            ],
            "did not come together at 127.0.0.1:9 in 1 seconds",
        ),
    ],
)
def test_wrong_places_are_one_sentence(arguments, sentence):
    result = commands.run("eval.py", "--workdir=/nowhere", *arguments)
    assert result.returncode in (2, 3)
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "launch begins with -n COUNT"),
        (["-n", "0", "train"], "launch begins with -n COUNT"),
        (["-n", "2", "prepare"], "launch starts one of train, eval, extract, got 'prepare'"),
    ],
)
def test_wrong_launches_are_one_sentence(arguments, sentence):
    assert sentence in commands.error_of("-m", "spp_jax", "launch", *arguments)


def test_one_process_starts_nothing_and_agrees_with_itself():
    assert (cluster.index(), cluster.count(), cluster.is_first()) == (0, 1, True)
    assert cluster.gather({"a": [1]}) == [{"a": [1]}]
    cluster.agree("the config", 1)
    with pytest.raises(errors.InputError, match=r"^no$"), cluster.together():
        raise errors.InputError("no")


def test_every_item_is_in_one_share(monkeypatch):
    items = list(range(11))
    shares = []
    for index in range(4):
        monkeypatch.setattr(cluster._run, "index", index)
        monkeypatch.setattr(cluster._run, "count", 4)
        shares.append(cluster.share(items))
    assert shares[1] == [1, 5, 9]
    assert sorted(item for share in shares for item in share) == items


def test_a_hash_of_parts_is_that_of_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    batch = {"b": rng.normal(size=(7, 3)), "a": np.arange(7, dtype=np.int32)}
    whole = zlib.crc32(batch["b"].tobytes(), zlib.crc32(batch["a"].tobytes()))
    assert report._hash(batch) == whole
    parts = [{n: x[:3] for n, x in batch.items()}, {n: x[3:] for n, x in batch.items()}]
    told = []
    monkeypatch.setattr(cluster, "gather", lambda value: told.append(value) or [value])
    report._hash(parts[0])
    monkeypatch.setattr(cluster, "gather", lambda value: [told[0], value])
    assert report._hash(parts[1]) == whole
