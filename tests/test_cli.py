"""What the commands share, as it shows in a process of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

SCRIPT = """
import sys
from spp_jax.commands import cli

class Command:
    EXAMPLES = ()

    def define_flags(self):
        pass

    def main(self, arguments):
        print("caf\\udce9.jpg, caf\\xe9.jpg")
        print("refused: caf\\udce9.jpg", file=sys.stderr)
        return 0

cli.run(Command(), sys.argv)
"""


def test_any_name_can_be_printed_where_output_is_strict():
    for encoding, shown in (("utf-8", "caf\xe9"), ("ascii", r"caf\xe9")):
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
            capture_output=True,
            check=True,
        )
        assert result.stdout.decode(encoding) == rf"caf\udce9.jpg, {shown}.jpg" + "\n"
        assert result.stderr.decode(encoding) == r"refused: caf\udce9.jpg" + "\n"


def _run(*command):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (("train.py",), ("--config=PRESET", "--config.FIELD=VALUE", "--workdir=", "python train")),
        (("eval.py",), ("--protocol=", "--config.FIELD=VALUE", "(default: center)")),
        (("extract.py",), ("--checkpoint=", "--layer=", "(default: float32)")),
        (("detect.py",), ("predict", "--min_iou=", "python detect.py eval --workdir=DIR")),
        (("detect.py", "train"), ("--dry_run", "python detect.py")),
    ],
    ids=" ".join,
)
def test_help_is_printed_and_is_no_error(command, lines):
    result = _run(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    text = result.stdout.lower()
    for line in lines:
        assert line.lower() in text


def test_presets_have_names(tmp_path):
    result = _run(
        *("train.py", "--config=digits_single", f"--workdir={tmp_path}/run"),
        *("--config.data.batch_size=0",),
    )
    assert result.returncode == 2
    assert result.stderr == "error: config.data.batch_size must be more than 0, got 0\n"


def test_an_unknown_command_is_one_sentence():
    result = _run("-m", "spp_jax", "trian")
    assert result.returncode == 2
    assert result.stderr.startswith("error: the first argument must be one of train, eval, ")
