"""Runs every command of README.md and docs/*.md that needs no download, in a fresh clone.

    python -m tools.readme_check [--only=TEXT]

The clone, of the last commit, lies in a folder with a space in its name. Commands run from its root
with the words that are printed, so with relative paths; what stands for a user's files there,
FOLDER, VOCROOT, TARS ..., are files and folders of just these names, made of noise. Flags are added
to shorten, and those only: RULES has them. A command without a rule is an error, so that none is
printed untried. Python examples run as they stand, after PRELUDE.
"""

import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags, logging

from tools import readme_files

_ONLY = flags.DEFINE_string("only", "", "Run the commands that hold this text alone.")

SMOKE = "--config.run.smoke=True"
FEW_STEPS = "--config.finetune.num_steps=2 '--config.finetune.drop_steps=(1,)'"
TENSORFLOW = "needs TensorFlow (requirements-prepare.txt)"

# (page, beginning of the command, flags that shorten it or None, why it is not run or links).
# Links {name: target} are made before the command runs; for target "" the name is free.
Rule = tuple[str, str, str | None, Any]
RULES: list[Rule] = [
    ("", "make train", "", {}),
    ("", "make detect", "", {}),
    ("", "make test", None, "make check runs it"),
    ("", "make bench", None, "takes ten minutes; tests/test_benchmarks.py runs its parts"),
    ("", "make gpu-check", None, "needs a GPU; tests/test_gpu_check.py runs its parts on CPUs"),
    ("", "make gpu-programs", None, "installs 6 GB; tests/test_gpu_counts.py checks its counts"),
    ("", "make faults", None, "takes an hour; tests/test_faults.py runs its short form"),
    ("", "make readme-check", None, "is this"),
    ("", "make check", None, "this is a part of it"),
    ("", "make format", None, "changes the clone only"),
    ("", "make test-all", None, "takes half an hour"),
    ("", "make wheel-check", None, "make check runs it"),
    ("", "python -m benchmarks", None, "docs/results has what they printed"),
    ("", "tensorboard", None, "is installed by the user"),
    ("", "pip install", None, "is the user's choice"),
    ("", "python -m spp_jax.models", "", {}),
    ("", "python -m spp_jax presets", "", {}),
    ("", "python -m spp_jax fields", "", {}),
    ("", "spp", None, "is python -m spp_jax, once the package is installed"),
    ("", "python -m spp_jax.data.prepare NAME", None, "NAME is none"),
    ("", "python -m spp_jax.data.prepare imagenet2012_256", "--num_workers=2", {}),
    ("", "python -m spp_jax.data.prepare imagenet2012 ", None, TENSORFLOW),
    ("", "python -m tools.try_imagenet2012", None, TENSORFLOW),
    ("", "python -m spp_jax.interop --", "", {"DIR": ""}),
    ("", "python -m spp_jax.interop", None, "is named there without its flags"),
    ("", "python -m spp_jax.data.object_crops", "", {}),
    ("", "python -m spp_jax launch -n 2 train", SMOKE, {}),
    ("", "python -m spp_jax launch -n 2 eval", "--config.eval.num_examples=32", {}),
    ("", "python -m spp_jax", None, "is spp, whose commands have rules of their own"),
    ("", "mkdir", "", {}),
    ("", "ln", "", {}),
    ("", "for", "", {}),
    ("README.md", "python train.py --config=configs/imagenet_multisize", SMOKE, {"DIR": ""}),
    (
        *("", "python train.py --config=configs/ilsvrc_det_pretrain"),
        f"{SMOKE} --config.model.name=zf5_small",
        {"NETWORK": ""},
    ),
    ("", "python train.py", SMOKE, {}),
    (
        *("README.md", "python eval.py --workdir=runs/mine"),
        "--config.eval.num_examples=4 '--config.eval.scales=(224, 256)'",
        {},
    ),
    ("docs/pretrained.md", "python eval.py --workdir=DIR", "", {}),
    ("docs/features.md", "python extract.py", "", {"DIR": "runs/googlenet"}),
    ("", "python extract.py", "", {}),
    (
        *("", "python eval.py --protocol=svm --config=configs/caltech101_svm.py"),
        "--config.data.num_train=3 --config.data.num_splits=2 --config.scales=224,",
        {"DIR": "runs/googlenet", "OUT": ""},
    ),
    (
        *("", "python eval.py --protocol=svm --config=configs/voc07_svm.py"),
        "--config.scales=224, --config.main_scale=224",
        {"DIR": "runs/googlenet", "OUT": ""},
    ),
    (
        *("", "python detect.py train --config=configs/ilsvrc_detection.py"),
        f"{FEW_STEPS} '--config.features.scales=(96,)'",
        {"DIR": ""},
    ),
    (
        *("docs/detection.md", "python detect.py train --config=configs/animals_detection.py"),
        "'--config.features.scales=(100, 150)'",
        {"DIR": "runs/animals", "NETWORK": "runs/googlenet"},
    ),
    (
        *("docs/detection.md", "python detect.py score", ""),
        {"DETECTIONS": "runs/animals/detections"},
    ),
    (
        *("", "python detect.py eval --workdir=DIR --with=DIR2,DIR3", ""),
        dict.fromkeys(("DIR", "DIR2", "DIR3"), "runs/animals"),
    ),
    (
        *("", "python detect.py train --config=configs/animals_detection.py"),
        "'--config.features.scales=(100, 150)'",
        {},
    ),
    ("", "python detect.py predict", "", {}),
    ("", "python detect.py score", "", {}),
]

PRELUDE = """
import numpy as np
images = canvas = np.zeros((1, 224, 224, 3), np.uint8)
sizes, fmap = np.array([[200, 180]]), np.zeros((1, 13, 13, 8), np.float32)
windows, names = np.array([[0, 0, 5, 5]]), open("CLASSES").read().split("\\n")[:-1]
scores = np.ones((1, 1), np.float32)
from spp_jax.detection.scoring import mean_ap
detections = mean_ap.Detections(np.array([0]), scores[:, 0], windows)
truth = mean_ap.Truth(np.array([0]), windows, np.array([False]))
"""
_COMMAND = re.compile(
    r"([A-Z_]+=\S* )?(python[0-9.]*|\S*/python|make|pip|git|cd|tensorboard|mkdir|cp|ln|for|spp) "
)


def find_commands(text: str) -> list[str]:
    """Returns the commands of a page in their order, each once.

    They stand on lines of their own in blocks, or between backticks. Those with [...] or ... in
    them say what there is to give, and are not meant to be run.
    """
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for line in text.splitlines()]
    candidates = [line for line in lines if "`" not in line] + re.findall(r"`([^`\n]+)`", text)
    commands = [c for c in dict.fromkeys(candidates) if _COMMAND.match(c)]
    return [c for c in commands if "[" not in c and "..." not in c]


def find_examples(text: str) -> str:
    """Returns the Python examples of a page, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


def find_rule(page: str, command: str) -> Rule:
    """Returns the first rule for a command of a page; raises SystemExit if there is none."""
    for rule in RULES:
        if rule[0] in ("", page) and command.startswith(rule[1]):
            return rule
    raise SystemExit(f"{page}: tools/readme_check.py has no rule for `{command}`")


def make_links(links: dict[str, str]) -> None:
    """Makes each name a link to its target; for target "" removes what has the name."""
    for name, target in links.items():
        if os.path.islink(name):
            os.remove(name)
        elif os.path.isdir(name):
            shutil.rmtree(name)
        if target:
            os.symlink(target, name)


def run(shown: str, command: str | list[str], environment: dict[str, str]) -> bool:
    """Runs a command in a shell, prints its time, and what it said if it failed."""
    start = time.monotonic()
    result = subprocess.run(
        command if isinstance(command, list) else ["bash", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    state = "ok" if result.returncode == 0 else f"FAILED with {result.returncode}"
    print(f"{time.monotonic() - start:6.1f} s  {state}  {shown}", flush=True)
    if result.returncode:
        print("\n".join((result.stdout + result.stderr).splitlines()[-30:]), flush=True)
    return result.returncode == 0


def check_page(page: str, environment: dict[str, str]) -> list[str]:
    """Runs the commands and examples of a page; returns those that failed."""
    with open(page, encoding="utf-8") as f:
        text = f.read()
    failed = []
    for command in find_commands(text):
        _, _, shorter, links = find_rule(page, command)
        if _ONLY.value not in command:
            continue
        if shorter is None or isinstance(links, str):
            print(f"         not run: `{command}` {links}", flush=True)
            continue
        make_links(links)
        if not run(f"{page}: {command}", f"{command} {shorter}", environment):
            failed.append(command)
    examples = find_examples(text)
    if examples and not _ONLY.value:
        code = [sys.executable, "-c", PRELUDE + examples]
        make_links({"DIR": "runs/animals"})
        if page == "docs/pretrained.md":  # its example imports once more
            make_links({"runs/googlenet": ""})
        if not run(f"{page}: its Python examples", code, environment):
            failed.append("its Python examples")
    return failed


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    root = os.path.abspath(os.path.dirname(os.path.dirname(__file__)))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        clone = os.path.join(directory, "a folder with spaces")
        subprocess.run(["git", "clone", "--quiet", root, clone], check=True)
        os.chdir(clone)
        # What `make setup` would install is installed: nothing asks for it that is newer.
        os.symlink(sys.prefix, ".venv")
        for name in glob.glob("requirements*.txt"):
            os.utime(name, (0, 0))
        readme_files.write_all()
        environment = {
            # Compiled fast and not optimised: most of the time of a shortened command is compiling.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            **os.environ,
            "SMOKE": "1",
            "HOME": os.path.join(directory, "home"),
            "PATH": os.path.join(clone, ".venv", "bin") + os.pathsep + os.environ["PATH"],
        }
        pages = ["README.md", *sorted(f"docs/{p}" for p in os.listdir("docs") if p.endswith(".md"))]
        commands = [c for page in pages for c in find_commands(pathlib.Path(page).read_text())]
        failed = [f"{page}: {name}" for page in pages for name in check_page(page, environment)]
        os.chdir(root)
    print(f"{time.monotonic() - start:.0f} s in all", flush=True)
    if not any(_ONLY.value in command for command in commands):
        raise SystemExit(f"--only={_ONLY.value}: no command holds that")
    if failed:
        raise SystemExit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    app.run(main)
