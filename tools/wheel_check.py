"""Builds the wheel, installs it where nothing else is, and runs it outside the checkout.

    python -m tools.wheel_check

What stands in the checkout alone, presets among it, would be missing there.
"""

import glob
import os
import subprocess
import sys
import tempfile

# Commands that need neither the checkout nor a download, with what they print.
COMMANDS = (
    ("--help", "from training to detection"),
    ("presets", "digits_multisize"),
    ("fields digits_multisize train.sizes", "config.train.sizes"),
    ("networks", "| zf5 |"),
    (
        "train --config=digits_multisize --config.run.smoke=True --workdir=run",
        "epoch 2 | full",
    ),
    ("eval --workdir=run --protocol=full", "full: top1"),
)


def main() -> int:
    root = os.path.abspath(os.path.dirname(os.path.dirname(__file__)))
    with tempfile.TemporaryDirectory(prefix="wheel ") as folder:
        # A clone, of the last commit: setuptools leaves files in the folder that it builds from.
        source = os.path.join(folder, "source")
        _run(["git", "clone", "--quiet", root, source], folder)
        _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source], root)
        (wheel,) = glob.glob(os.path.join(folder, "*.whl"))
        _run([sys.executable, "-m", "venv", os.path.join(folder, "venv")], folder)
        binaries = os.path.join(folder, "venv", "bin")
        _run([os.path.join(binaries, "python"), "-m", "pip", "install", "-q", wheel], folder)
        for arguments, wanted in COMMANDS:
            out = _run([os.path.join(binaries, "spp"), *arguments.split()], folder)
            if wanted not in out:
                raise SystemExit(f"spp {arguments} does not print {wanted!r}:\n{out}")
            print(f"ok  spp {arguments}", flush=True)
    return 0


def _run(command: list[str], folder: str) -> str:
    """Runs a command without this process's modules; ends this one if it fails."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
