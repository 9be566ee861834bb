"""The commands as a user runs them: one sentence for wrong input, and a whole small run."""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from spp_jax import checkpoint
from tests import folders
from tests.data import test_voc
from tests.detection import shapes
from tests.support import commands

ROOT = pathlib.Path(__file__).parent.parent

SMALL = """
from spp_jax import config as config_lib

def get_config():
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.data.batch_size, config.data.shorter_side, config.data.crop_size = 8, 36, 32
    config.train.sizes, config.train.num_epochs = (32, 24), 4
    config.train.learning_rate = 0.005
    config.train.log_every_steps, config.train.checkpoint_every_steps = 1, 2
    config.train.eval_protocol = "full"
    config.eval.canvas_step = 64
    return config
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "small.py"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folders.make_folder(tmp_path_factory.mktemp("images"), {"train": 13, "val": 5})


def _command(script, *arguments):
    return [sys.executable, str(ROOT / script), *arguments]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, preset, folder):
    workdir = str(tmp_path_factory.mktemp("trained"))
    result = commands.run(
        "train.py", f"--config={preset}", f"--workdir={workdir}", f"--config.data.path={folder}"
    )
    assert result.returncode == 0, result.stderr
    return workdir, result.stdout


def test_what_a_user_sees(trained):
    _, out = trained
    assert "4 cpu device(s), mesh {'data': 4}" in out
    assert "folder: 26 training examples of 2 classes, 10 to evaluate on; 3 steps of 8" in out
    assert re.search(r"backbone/conv1/kernel +7x7x3x\d+", out)
    assert re.search(r"32 px: compiled in [\d.]+ s, [\d.]+ GFLOP/image, [\d.]+ GB\n24 px: ", out)
    assert re.search(
        r"step 12/12 100% \| size 32 \| loss [\d.]+ \| top1 [\d.]+ \| lr 0.005 \| \d+ img/s \| "
        r"data \d+% \| eta 0m00s\n",
        out,
    )
    assert re.search(
        r"epoch 4 \| full \| top1 [\d.]+ \| top5 1.0000 \| loss [\d.]+ \| 10 exam", out
    )


@pytest.mark.parametrize("protocol", ["center", "full"])
def test_eval_writes_its_numbers(trained, protocol):
    workdir, _ = trained
    result = commands.run("eval.py", f"--workdir={workdir}", f"--protocol={protocol}")
    assert result.returncode == 0, result.stderr
    with open(f"{workdir}/eval_{protocol}.json") as f:
        values = json.load(f)
    assert values["num_examples"] == 10
    assert values["step"] == 12
    assert set(values) >= {"top1", "top5", "loss"}
    assert f"top1 {values['top1']:.4f}" in result.stdout


def test_eval_of_another_folder_and_scale(trained, folder):
    workdir, _ = trained
    result = commands.run(
        "eval.py", f"--workdir={workdir}", "--protocol=full", "--config.eval.scale=48",
        f"--config.data.path={folder}/train",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with open(f"{workdir}/eval_full.json") as f:
        values = json.load(f)
    assert (values["num_examples"], values["scales"]) == (26, [48])


def test_eval_of_nothing_but_broken_images_is_an_error(trained, tmp_path):
    (tmp_path / "dark").mkdir()
    (tmp_path / "dark" / "0.png").write_bytes(b"rubbish")
    result = commands.run(
        "eval.py", f"--workdir={trained[0]}", "--protocol=warp", f"--config.data.path={tmp_path}"
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: no example of folder {tmp_path} can be read: ")
    assert not os.path.exists(f"{trained[0]}/eval_warp.json")


def test_eval_keeps_the_network_of_the_checkpoint(trained):
    result = commands.run("eval.py", f"--workdir={trained[0]}", "--config.model.levels=(3,)")
    assert result.returncode == 2
    assert result.stderr == "error: config.model is the checkpoint's and cannot be changed here\n"


def test_extract(trained, folder, tmp_path):
    output = tmp_path / "features.npz"
    arguments = (
        f"--checkpoint={trained[0]}", f"--images={folder}", "--layer=conv5,fc6", "--levels=2,1",
        "--scale=36", "--num_programs=2", "--normalize", f"--output={output}",
    )  # fmt: skip
    result = commands.run("extract.py", *arguments)
    assert result.returncode == 0, result.stderr
    assert re.search(r"36 images, \d+ sizes as shown: [12] programs, [\d.]+ % of", result.stdout)
    assert re.search(r"\(36, 736\) float32, 0 refused -> .*features.npz\n$", result.stdout)
    with np.load(output) as archive:
        lengths = np.linalg.norm(archive["features"], axis=1)
        np.testing.assert_allclose(lengths, np.sqrt(2), rtol=1e-5)
        assert sorted(set(archive["labels"].tolist())) == [0, 1]
    result = commands.run("extract.py", *arguments[:-1], f"--output={output}", "--dtype=float16")
    assert result.returncode == 2
    assert "is there and holds something else (dtype was 'float32' and is 'f" in result.stderr


def test_eval_with_svms(trained, folder, tmp_path):
    result = commands.run(
        "eval.py", "--protocol=svm", "--config=configs/caltech101_svm.py",
        f"--checkpoint={trained[0]}", f"--workdir={tmp_path}", f"--config.data.path={folder}",
        "--config.scales=36,", "--config.main_scale=36", "--config.num_programs=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "eval_svm.json") as f:
        values = json.load(f)
    assert values["num_examples"] == 10
    assert values["mean_class_accuracy"] == values["rows"][-1]["mean_class_accuracy"]
    assert "| conv5 {6,3,2,1} 50 bins | 4,800 | " in result.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        (
            "train.py",
            ["--config.train.epochs=1"],
            "unknown config field: config.train.epochs; the nearest is config.train.num_epochs",
        ),
        ("train.py", ["--config.train.sizes=2,"], r"config.train.sizes=\(2,\): .* at least"),
        ("train.py", ["--config.data.path=/nowhere"], "no folder /nowhere"),
        ("train.py", ["--config=/nowhere.py"], "--config=/nowhere.py cannot be read"),
        ("train.py", ["--config=spp_jax/errors.py"], "--config: .*get_config"),
        ("train.py", ["--config=configs/imagenette_small.py:x"], "x is none of multisize, single"),
        ("train.py", ["--workdir="], "--workdir is missing: it is the folder that checkpoints"),
        ("train.py", ["--config.train.learning_rate=fast"], "fast"),
        ("eval.py", ["--workdir=/nowhere"], "there is no folder --workdir=/nowhere"),
        ("eval.py", ["--protocol=best"], "best"),
        ("eval.py", ["--protocol=svm,full"], "svm alone"),
        ("eval.py", ["--protocol=svm"], "--config=PRESET is missing, or its get_config"),
        (
            "eval.py",
            ["--protocol=svm", "--config=configs/digits_single.py"],
            "--config=configs/digits_single.py is a preset of `train`, not of `eval --prot",
        ),
        (
            "eval.py",
            ["--protocol=svm", "--config=configs/voc07_svm.py"],
            "protocol svm needs --checkpoint=DIR",
        ),
        (
            "eval.py",
            ["--protocol=svm", "--config=configs/voc07_svm.py", "--config.c=-1"],
            "config.c must be more than 0, got -1",
        ),
        ("extract.py", ["--output=x.txt"], "'x.txt' must end in .npz or .npy"),
        ("extract.py", ["--levels=two"], "--levels=two is no list of whole numbers"),
        ("extract.py", ["--levels=70"], "--levels=70 makes 4,900 bins; at most 4,096 are allowed"),
        ("extract.py", ["--levels=2,1/1/1"], "has 3 pyramids for 1 layers"),
        ("extract.py", ["--images=/nowhere"], "no folder /nowhere"),
        ("extract.py", ["--images=spp_jax"], "folder spp_jax holds no image"),
        ("extract.py", ["--images="], "give --images=FOLDER or --tfds=NAME"),
    ],
)
def test_wrong_input_is_one_sentence(script, arguments, sentence, preset, tmp_path):
    defaults = [f"--workdir={tmp_path / 'run'}"]
    if script == "extract.py":
        output = tmp_path / "x.npz"
        defaults = ["--checkpoint=/nowhere", "--layer=conv5", f"--output={output}"]
        if not any(a.startswith("--images") for a in arguments):
            defaults.append("--images=/nowhere")
    if script == "train.py" and not any(a.startswith("--config=") for a in arguments):
        defaults.append(f"--config={preset}")
    result = commands.run(script, *defaults, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.strip().split("\n")
    assert len(lines) == 1, result.stderr
    assert re.match(f"error: .*{sentence}", lines[0])
    assert not (tmp_path / "run").exists()


def _start(preset, folder, workdir, **streams):
    command = _command(
        "train.py", f"--config={preset}", f"--workdir={workdir}",
        f"--config.data.path={folder}", "--config.train.num_epochs=200",
    )  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, text=True, **(streams or {"stdout": subprocess.PIPE})
    )


def _wait_for_step(process, step):
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step ") and int(line.split()[1].split("/")[0]) >= step:
            return
    raise AssertionError("the run ended early")


def _stop_at_step(preset, folder, workdir, step, number):
    """Trains until a step, sends a signal, and returns the exit code and the rest of the output."""
    process = _start(preset, folder, workdir)
    _wait_for_step(process, step)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def test_sigterm_saves_and_exits_143_and_the_run_goes_on(preset, folder, tmp_path):
    code, out = _stop_at_step(preset, folder, tmp_path, 4, signal.SIGTERM)
    assert code == 143
    saved = int(re.search(r"SIGTERM: saved step (\d+) of 600; the same command", out).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    assert checkpoint.load_with_meta(str(tmp_path))[2].step == saved
    code, _ = _stop_at_step(preset, folder, tmp_path, saved + 1, signal.SIGINT)
    assert code == 130


def test_a_terminal_or_a_reader_that_is_gone_saves(preset, folder, tmp_path):
    code, out = _stop_at_step(preset, folder, tmp_path, 4, signal.SIGHUP)
    assert code == 129
    assert "SIGHUP: saved step" in out
    process = _start(preset, folder, tmp_path)
    before = checkpoint.load_with_meta(str(tmp_path))[2].step
    _wait_for_step(process, before + 2)
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    assert process.wait(60) == 129
    assert checkpoint.load_with_meta(str(tmp_path))[2].step > before


def test_a_closed_terminal_saves(preset, folder, tmp_path):
    # All three streams are the terminal: to print gives EIO when it is gone.
    master, slave = pty.openpty()
    terminal = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = _start(preset, folder, tmp_path, **terminal, start_new_session=True)
    os.close(slave)
    printed = b""
    while b"step 5/" not in printed:
        printed += os.read(master, 4096)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129
    assert checkpoint.load_with_meta(str(tmp_path))[2].step >= 5


@pytest.mark.slow
def test_kill_9_at_random_steps_then_resume_equals_the_unbroken_run(
    trained, preset, folder, tmp_path
):
    command = _command(
        "train.py", f"--config={preset}", f"--workdir={tmp_path}", f"--config.data.path={folder}"
    )
    rng = np.random.default_rng(time.time_ns())
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        stop_at = int(rng.integers(1, 10))
        for line in process.stdout:
            if line.startswith("step ") and int(line.split()[1].split("/")[0]) >= stop_at:
                break
        process.kill()
        process.wait()
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
    resumed, expected = (checkpoint.load(path)[1]["params"] for path in (tmp_path, trained[0]))
    for part in expected:
        for layer in expected[part]:
            for name, value in expected[part][layer].items():
                np.testing.assert_array_equal(resumed[part][layer][name], value)
    with (
        open(tmp_path / "metrics.jsonl") as a,
        open(os.path.join(trained[0], "metrics.jsonl")) as b,
    ):
        hashes = [[json.loads(line).get("batch_hash") for line in f] for f in (a, b)]
    assert hashes[0] == hashes[1]


# Of detect.py: what is wrong is one sentence, before work starts.
WRONG_DETECTION = [
    (("detect",), "the first argument must be one of train, eval, predict, score, got 'detect'"),
    (
        ("train", "--config=configs/animals_detection.py", "--workdir=/tmp/none"),
        "config.checkpoint is not set: it is the network to start from",
    ),
    (
        ("train", "--config=configs/digits_single.py", "--workdir=/tmp/none"),
        "--config=configs/digits_single.py is a preset of `train`, not of `detect train`",
    ),
    (("eval", "--workdir=/tmp/none"), "/tmp/none is no workdir of detect.py: no config.json"),
    (("score", "x.json", "--data=a"), "unexpected argument 'x.json'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_DETECTION)
def test_wrong_detection_is_one_sentence(arguments, sentence):
    result = commands.run("detect.py", *arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


FIXTURE = ROOT.parent / "shared" / "data" / "map_fixture" / "test_case_1"


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="shared/data/map_fixture is not here")
@pytest.mark.parametrize(("min_iou", "eleven"), [(0.3, 0.2683982683), (0.5, 0.0303030303)])
def test_a_published_fixture_through_the_command(tmp_path, min_iou, eleven):
    objects = {}
    for path in sorted((FIXTURE / "gts").glob("*.txt")):
        rows = [[int(v) for v in line.split()[1:]] for line in path.read_text().splitlines()]
        # Corners x and x + width are both inclusive pixels there.
        boxes = [(x, y, x + width, y + height) for x, y, width, height in rows]
        objects[path.stem] = [test_voc.make_object("object", box) for box in boxes]
    root = test_voc.make_voc(tmp_path, {"test": list(objects)}, objects, size=(1000, 1000))
    lines = []
    for path in sorted((FIXTURE / "dets").glob("*.txt")):
        for line in path.read_text().splitlines():
            _, score, *rest = line.split()
            x, y, width, height = map(int, rest)
            lines.append(f"{path.stem} {score} {x} {y} {x + width} {y + height}")
    (tmp_path / "comp4_det_test_object.txt").write_text("\n".join(lines))
    output = tmp_path / "score.json"
    result = commands.run(
        *("detect.py", "score", f"--data={root}", f"--detections={tmp_path}"),
        *(f"--output={output}", f"--min_iou={min_iou}"),
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(output.read_text())["map_11point"] == pytest.approx(eleven, abs=1e-10)


@pytest.mark.slow
def test_a_detector_from_the_command_line(tmp_path):
    root = shapes.make_voc(tmp_path / "data", num_train=8, num_test=4)
    network = shapes.make_network(tmp_path / "network")
    workdir = str(tmp_path / "detector")
    flags = (
        "--config=configs/animals_detection.py",
        f"--workdir={workdir}",
        f"--config.checkpoint={network}",
        f"--config.data.path={root}",
        "--config.features.map=",
        "--config.features.levels=(3, 1)",
        "--config.features.scales=(96,)",
        "--config.features.target_side=32",
        "--config.proposals.min_side=8",
        "--config.svm.c=0.1",
    )
    result = commands.run("detect.py", "train", *flags)
    assert result.returncode == 0, result.stderr
    assert re.search(r"trainval: 8 images, 16 objects of 2 classes \(0 difficult\)", result.stdout)
    for name in ("proposals", "regression.npz", "svm.npz", "eval.json"):
        assert f"-> {workdir}/{name}" in result.stdout
    first = json.loads((tmp_path / "detector/eval.json").read_text())
    assert first["map_11point"] > 0.8
    assert (tmp_path / "detector/detections/curves_test.png").exists()
    result = commands.run(
        "detect.py", "eval", f"--workdir={workdir}", "--config.test.max_detections=1"
    )
    assert result.returncode == 0, result.stderr
    fewer = json.loads((tmp_path / "detector/eval.json").read_text())
    assert max(fewer["num_detections"].values()) <= 4
    output = tmp_path / "score.json"
    result = commands.run(
        "detect.py",
        "score",
        f"--data={root}",
        "--split=test",
        f"--detections={workdir}/detections",
        f"--output={output}",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(output.read_text())["map_11point"] == pytest.approx(fewer["map_11point"])
    images = f"{root}/VOC2007/JPEGImages"
    result = commands.run(
        "detect.py", "predict", images, f"--workdir={workdir}", f"--output={tmp_path}/p"
    )
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "p").glob("*.png"))) == 12
