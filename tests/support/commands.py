"""Runs a command as a user does, in its own process."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def run(script, *arguments, folder=ROOT):
    """Runs `python SCRIPT ARGUMENTS` in a folder; the script is one of the repository."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


def output_of(script, *arguments, folder=ROOT):
    """Returns what a command printed; fails if it did not succeed."""
    process = run(script, *arguments, folder=folder)
    assert process.returncode == 0, process.stderr
    return process.stdout


def error_of(script, *arguments, folder=ROOT):
    """Returns the sentence of a command that refuses its input; fails if it does not."""
    process = run(script, *arguments, folder=folder)
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    return process.stderr
