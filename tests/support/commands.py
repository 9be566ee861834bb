"""Runs a command as a user does, in its own process."""

import os
import pathlib
import subprocess
import sys
import tempfile

from tests.faults import processes

ROOT = processes.ROOT
# As they were when the first of the processes was started that others are forked from.
_ENVIRONMENT = dict(os.environ)


def run(script, *arguments, folder=ROOT):
    """Runs `python SCRIPT ARGUMENTS` in a folder; the script is one of the repository, or "-m".

    Forked from a process that has imported the libraries, it begins some seconds earlier.
    """
    script = script if script == "-m" else str(ROOT / script)
    command = [script, *map(str, arguments)]
    changed = {n: v for n, v in os.environ.items() if _ENVIRONMENT.get(n) != v}
    if any(name.startswith("JAX_") for name in changed):  # JAX reads them when it is imported
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=folder, check=False
        )
    with tempfile.TemporaryDirectory() as printed:
        output, errors = pathlib.Path(printed, "output"), pathlib.Path(printed, "errors")
        faults = processes.Faults(environment=changed)
        process = processes.start(command, output, faults, errors=errors, folder=folder)
        code = process.wait(600)
        return subprocess.CompletedProcess(command, code, output.read_text(), errors.read_text())


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
