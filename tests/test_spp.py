"""The command `spp`: help without JAX, fields and presets, sentences, and a dry run."""

import os
import pathlib
import subprocess
import sys

import pytest

import spp_jax
from spp_jax import config as config_lib
from tests import folders
from tests.support import commands

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = (
    *("train", "eval", "extract", "detect", "import", "networks", "prepare", "crops"),
    *("fields", "launch", "presets"),
)


def _spp(*arguments, cwd=ROOT):
    return commands.run("-m", "spp_jax", *arguments, folder=cwd)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_there_without_jax(command):
    script = (
        f"import sys; sys.argv = ['spp', *{[command] if command else []}, '--help']\n"
        "from spp_jax.commands import main\n"
        "try:\n    main.run()\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'jax', 'flax', 'tensorflow_datasets', 'grain', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    if command in ("train", "detect"):
        assert "--config" in result.stdout
    if command:
        assert result.stdout.count(f"\n  spp {command}") >= 1
    else:
        assert all(f"\n    {name}" in result.stdout for name in COMMANDS)


def test_fields_say_what_the_preset_has():
    result = _spp("fields", "configs/imagenet_multisize.py:overfeat7", "train.")
    assert result.returncode == 0, result.stderr
    assert "config.train.num_epochs: int = 70; here 90; more than 0\n" in result.stdout
    paths = [e.path for e in config_lib.entries(config_lib.Config()) if "train." in e.path]
    assert [line.split(":")[0] for line in result.stdout.splitlines() if line[0] != " "] == [
        f"config.{path}" for path in paths
    ]
    assert "begins with 'nothing.'" in _spp("fields", "caltech101_svm", "nothing.").stderr
    assert "there is no preset nowhere" in _spp("fields", "nowhere").stderr


def test_every_preset_is_listed_with_its_command():
    lines = _spp("presets").stdout.splitlines()
    names = {p.stem for p in (ROOT / "configs").glob("*.py")} - {"__init__"}
    assert {line.split()[0] for line in lines} == names
    assert [line for line in lines if line.startswith("voc07_detection ")] == [
        "voc07_detection          detect train         Section 4: detection on VOC 2007 at one "
        "scale; `:5scale` is the paper's best, at five."
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--config=digits_multisize"], "--workdir is missing: it is the folder that"),
        (
            ["train", "--config=digits_multisize", "--config.train.learing_rate=1", "--workdir=x"],
            "unknown config field: config.train.learing_rate; the nearest is config.train.learning",
        ),
        (
            ["train", "--config=voc07_detection", "--workdir=x"],
            "is a preset of `detect train`, not of `train`",
        ),
        (["train", "--workdir=x"], "--config=PRESET is missing"),
        (["detect", "train", "--config=digits_single", "--workdir=x"], "not of `detect train`"),
        (["fly"], "the first argument must be one of train, eval, extract, detect"),
        (["train", "--config=nothing_of_the_kind", "--workdir=x"], "cannot be read"),
    ],
)
def test_wrong_words_are_one_sentence(arguments, sentence, tmp_path):
    result = _spp(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert sentence in result.stderr
    assert not os.listdir(tmp_path)


def test_a_dry_run_says_programs_and_writes_nothing(tmp_path):
    folder = folders.make_folder(tmp_path / "images", {"train": 8, "val": 2})
    result = _spp(
        "train",
        "--config=digits_multisize",
        f"--config.data.path={folder}",
        "--config.data.name=folder",
        "--config.data.batch_size=8",
        "--workdir=run",
        "--dry_run",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert '"learning_rate": 0.008' in result.stdout
    assert "16 training examples of 2 classes, 4 to evaluate on; 2 steps of 8" in result.stdout
    assert "64 px: compiled in" in result.stdout
    assert "48 px: compiled in" in result.stdout
    assert "64 steps would be trained; nothing was written" in result.stdout
    assert os.listdir(tmp_path) == ["images"]


def test_public_names_and_nothing_else():
    assert dir(spp_jax) == sorted([*spp_jax.__all__, "__version__"])
    assert all(getattr(spp_jax, name) is not None for name in spp_jax.__all__)
    assert "zf5" in spp_jax.network_names()
