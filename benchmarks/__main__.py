"""Every benchmark that this machine allows, in at most ten minutes, one after another.

    python -m benchmarks [--output=DIR] [--images=FOLDER]

Each is a command of its own that can be run for longer; accuracy, imagenet_decode and
feature_programs need data or hours, and are not run here.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time

from absl import app, flags

_OUTPUT = flags.DEFINE_string("output", "runs/bench", "Folder of the JSON files.")
_IMAGES = flags.DEFINE_string("images", "", "Folder of JPEG files to read; see benchmarks.input.")

# With these two cores take less than ten minutes for all. By hand they run for longer, and more of
# them: training in bfloat16 and beside torch.compile, which compiles for a minute.
COMMANDS = {
    "windows": ["--rounds=5"],
    "windows_fresh": ["--rounds=5", "--drawn=uniform", "--fresh"],
    "pooling": ["--rounds=9"],
    "training_step": ["--rounds=5", "--dtypes=float32", "--nocompile"],
    "input": ["--rounds=3"],
    "start": ["--rounds=2"],
    "detection": ["--rounds=2"],
    "multi_view": ["--rounds=2"],
}


def choose() -> dict[str, list[str]]:
    """Returns the commands of this machine: fewer runs on CPUs, no loader where there is none."""
    chosen = dict(COMMANDS)
    if shutil.which("nvidia-smi"):
        chosen["training_step"] = ["--rounds=5"]
    if importlib.util.find_spec("grain") is None:
        print("grain is not installed: no benchmark of input, nor of the start of eval.py")
        del chosen["input"], chosen["start"]
    return chosen


def main(_: list[str]) -> None:
    failed = []
    begin = time.monotonic()
    for name, arguments in choose().items():
        print(f"\n## {name}\n", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name.removesuffix('_fresh')}", *arguments]
        command.append(f"--output={os.path.join(_OUTPUT.value, f'speed_{name}.json')}")
        if name == "input" and _IMAGES.value:
            command.append(f"--images={_IMAGES.value}")
        start = time.monotonic()
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        print(f"({time.monotonic() - start:.0f} s)", flush=True)
    print(f"\nall in {time.monotonic() - begin:.0f} s; JSON files in {_OUTPUT.value}")
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
