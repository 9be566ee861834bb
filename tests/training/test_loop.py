"""The loop: resumed equals unbroken, bad files, wrong workdirs, and signals."""

import dataclasses
import functools
import json
import os
import signal

import jax
import numpy as np
import pytest

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.evaluation import classify
from spp_jax.runs import signals
from spp_jax.training import classifier, loop
from tests import folders
from tests.support import checkpoints, said

STEPS = 12  # four epochs of three


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folders.make_folder(tmp_path_factory.mktemp("images"), {"train": 13, "val": 5})


def _config(folder):
    config = config_lib.Config(seed=5)
    config.model.name, config.model.levels, config.model.dropout = "digits", (2, 1), 0.5
    config.data.path, config.data.batch_size = folder, 8
    config.data.shorter_side, config.data.crop_size = 36, 32
    config.train.sizes, config.train.num_epochs = (32, 24), 4
    config.train.learning_rate, config.train.patience = 0.005, 1
    config.train.log_every_steps, config.train.checkpoint_every_steps = 1, 2
    config.eval.canvas_step = 64
    config_lib.validate(config)
    return config


@pytest.fixture
def config(folder):
    return _config(folder)


EVALUATE = functools.partial(classify.evaluate, protocol="full")


def _lines(workdir):
    with open(os.path.join(workdir, "metrics.jsonl")) as f:
        return [json.loads(line) for line in f]


def _params(workdir):
    return checkpoint.load(workdir)[1]["params"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, folder):
    workdir = str(tmp_path_factory.mktemp("unbroken"))
    result = classifier.train(_config(folder), workdir, EVALUATE)
    assert result == loop.Result(None, STEPS)
    return workdir


def _trained(lines):
    return [line for line in lines if "protocol" not in line]


def test_what_a_run_writes(unbroken):
    lines = _lines(unbroken)
    trained = _trained(lines)
    assert [line["step"] for line in trained] == list(range(1, STEPS + 1))
    assert [line["size"] for line in trained] == [24] * 3 + [32] * 3 + [24] * 3 + [32] * 3
    assert len({line["batch_hash"] for line in trained}) == STEPS
    evaluated = [line for line in lines if "protocol" in line]
    assert [line["step"] for line in evaluated] == [3, 6, 9, 12]
    assert all(line["num_examples"] == 10 for line in evaluated)
    with open(os.path.join(unbroken, "config.json")) as f:
        assert config_lib.from_dict(config_lib.Config, json.load(f)).seed == 5
    assert any(name.startswith("events") for name in os.listdir(f"{unbroken}/tensorboard"))
    steps = sorted(int(d) for d in os.listdir(f"{unbroken}/checkpoints") if d.isdigit())
    assert steps == [10, 12]


class Crash(Exception):
    pass


def _crash_after(epoch):
    """An evaluation that ends the process' work the rude way, after some epoch."""
    calls = []

    def evaluate(*arguments):
        calls.append(1)
        if len(calls) == epoch:
            raise Crash
        return EVALUATE(*arguments)

    return evaluate


@pytest.mark.parametrize("epoch", [1, 3])
def test_resumed_equals_unbroken_bit_for_bit(unbroken, config, tmp_path, epoch):
    """After epoch 1 step 2 is the last one saved, after epoch 3 step 8: inside an epoch."""
    workdir = str(tmp_path)
    with pytest.raises(Crash):
        classifier.train(config, workdir, _crash_after(epoch))
    assert _lines(workdir)[-1]["step"] == 3 * epoch
    assert checkpoints.newest(workdir).endswith(f"/{3 * epoch - 1}")
    assert classifier.train(config, workdir, EVALUATE) == loop.Result(None, STEPS)
    jax.tree.map(np.testing.assert_array_equal, _params(workdir), _params(unbroken))
    expected, lines = _lines(unbroken), _lines(workdir)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for name in ("batch_hash", "loss", "top1", "learning_rate"):
        assert [line.get(name) for line in lines] == [line.get(name) for line in expected]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_say_so(unbroken, config, tmp_path, number):
    recorder = said.Recorder()

    def evaluate(*arguments):
        os.kill(os.getpid(), number)
        return EVALUATE(*arguments)

    before = signal.getsignal(number)
    config.train.checkpoint_every_steps = 100
    stop = signals.StopSignal(recorder.say)
    result = classifier.train(config, str(tmp_path), evaluate, stop=stop, progress=recorder)
    assert result == loop.Result(number, 3)
    assert signal.getsignal(number) == before
    assert f"{number.name}: stopping after this step" in recorder.text
    assert f"{number.name}: saved step 3 of 12" in recorder.text
    classifier.train(config, str(tmp_path), EVALUATE)
    jax.tree.map(np.testing.assert_array_equal, _params(tmp_path), _params(unbroken))


def test_a_finished_run_is_left_as_it_is(unbroken, config):
    before, recorder = _lines(unbroken), said.Recorder()
    result = classifier.train(config, unbroken, EVALUATE, progress=recorder)
    assert result == loop.Result(None, STEPS)
    assert "already trained to its last step, 12" in recorder.text
    assert _lines(unbroken) == before


def test_the_library_prints_nothing_and_leaves_signals_alone(config, tmp_path, capfd):
    handlers = []

    def evaluate(*arguments):
        handlers.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)])
        return EVALUATE(*arguments)

    config.train.num_epochs = 1
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    capfd.readouterr()
    classifier.train(config, str(tmp_path), evaluate)
    assert capfd.readouterr().out == ""
    assert handlers == [before]


def test_a_workdir_of_another_config_is_refused_and_untouched(unbroken, config):
    config.train.learning_rate = 0.5
    with pytest.raises(errors.InputError, match=r"learning_rate was 0\.005 and is 0\.5"):
        classifier.train(config, unbroken, EVALUATE)
    with open(os.path.join(unbroken, "config.json")) as f:
        assert json.load(f)["train"]["learning_rate"] == 0.005


def test_more_epochs_equal_the_longer_run_bit_for_bit(unbroken, config, tmp_path):
    """Two epochs more: the sizes of the first ones, which end at the first size, stay the same."""
    config.train.num_epochs = 2
    classifier.train(config, str(tmp_path), EVALUATE)
    config.train.num_epochs = 4
    assert classifier.train(config, str(tmp_path), EVALUATE) == loop.Result(None, STEPS)
    jax.tree.map(np.testing.assert_array_equal, _params(tmp_path), _params(unbroken))
    config.train.num_epochs = 2
    with pytest.raises(errors.InputError, match="trained to step 12, beyond the 6 steps of"):
        classifier.train(config, str(tmp_path), EVALUATE)


def test_epochs_at_other_sizes_are_refused_and_the_way_is_named(unbroken, config):
    config.train.num_epochs = 5
    message = rf"num_epochs was 4 and is 5; take another workdir, with config\.init_from={unbroken}"
    with pytest.raises(errors.InputError, match=message):
        classifier.train(config, unbroken, EVALUATE)


def test_a_run_of_an_older_version_does_not_train_on_what_it_held_out(
    config, tmp_path, monkeypatch
):
    """Version 0.1.0 held out other images of a folder without splits."""
    config.data.path = folders.make_folder(tmp_path / "images", {"": 14})
    config.data.held_out, config.train.num_epochs = 0.2, 2
    workdir = str(tmp_path / "run")
    monkeypatch.setattr("spp_jax.__version__", "0.1.0")
    classifier.train(config, workdir, EVALUATE)
    monkeypatch.undo()
    # What is finished stays so.
    assert classifier.train(config, workdir, EVALUATE).step == 4
    config.train.num_epochs = 4
    with pytest.raises(errors.InputError, match=r"was trained by version 0\.1\.0, which held out"):
        classifier.train(config, workdir, EVALUATE)


def test_a_workdir_in_which_nothing_was_learnt_takes_another_config(config, tmp_path):
    stored = dataclasses.asdict(config) | {"seed": 9}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config.train.num_epochs = 1
    assert classifier.train(config, str(tmp_path), EVALUATE) == loop.Result(None, 3)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 5


def test_bad_files_are_named_once_and_too_many_stop_the_run(config, tmp_path):
    recorder = said.Recorder()
    path = folders.make_folder(tmp_path / "images", {"train": 13, "val": 4})
    for i in (2, 3):
        with open(f"{path}/train/dark/{i}.png", "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\nrubbish")
    config.data.path, config.data.max_refused = path, 0.1
    classifier.train(config, str(tmp_path / "run"), EVALUATE, progress=recorder)
    for i in (2, 3):
        assert recorder.text.count(f"{path}/train/dark/{i}.png: ") == 1
    config.data.max_refused = 0.05
    with pytest.raises(errors.InputError, match=r"2 of 26 training images .*max_refused=0\.05"):
        classifier.train(config, str(tmp_path / "strict"), EVALUATE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 6, r"config\.data\.batch_size=6 does not divide evenly among 4 devices"),
        ("batch_size", 32, "26 training examples are fewer than one batch of 32"),
        ("path", "/nowhere", "no folder /nowhere"),
    ],
)
def test_wrong_data_is_named_before_anything_is_written(config, tmp_path, field, value, message):
    setattr(config.data, field, value)
    with pytest.raises(errors.InputError, match=message):
        classifier.train(config, str(tmp_path / "run"), EVALUATE)
    assert not (tmp_path / "run").exists()


def test_too_few_outputs_are_named(config, tmp_path):
    config.model.num_classes = 1
    with pytest.raises(errors.InputError, match="num_classes=1 but folder has 2 classes"):
        classifier.train(config, str(tmp_path / "run"), EVALUATE)


def test_more_outputs_than_classes_are_allowed(config, tmp_path):
    config.model.num_classes = 5
    config.train.num_epochs = 1
    classifier.train(config, str(tmp_path), EVALUATE)
    _, _, meta = checkpoint.load_with_meta(str(tmp_path))
    assert meta.class_names == ("dark", "light", "class 2", "class 3", "class 4")


def test_losses_that_are_no_numbers_end_the_run(config, tmp_path):
    config.train.learning_rate, config.train.max_bad_steps = 1e20, 3
    config.train.eval_every_epochs = 0
    lines = said.Recorder()
    with pytest.raises(
        errors.InputError,
        match=r"no finite number in 4 steps in a row, up to step \d+, which changed nothing; "
        r"config.train.learning_rate=1e\+20 may be too high, and the last checkpoint is from bef",
    ):
        classifier.train(config, str(tmp_path), EVALUATE, progress=lines)
    assert sum("the step changes nothing" in line for line in lines.lines) == 1
    if checkpoint.latest_step_dir(str(tmp_path)):
        params = checkpoint.load(str(tmp_path))[1]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_torn_last_line_is_dropped_on_resume(config, tmp_path):
    config.train.num_epochs = 1
    classifier.train(config, str(tmp_path), EVALUATE)
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 3, "lo')
    classifier.train(config, str(tmp_path), EVALUATE)
    assert [line["step"] for line in _lines(tmp_path)] == [1, 2, 3, 3]


@pytest.mark.parametrize("text", ["no json", "[]", '{"speed": 1}'])
def test_a_config_json_that_is_none_is_named(config, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(errors.InputError, match=r"config\.json is no config|no field"):
        classifier.train(config, str(tmp_path), EVALUATE)
