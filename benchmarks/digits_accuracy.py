"""Multi-size against single-size against no SPP on digit scenes, several seeds: a table.

    python benchmarks/digits_accuracy.py --workdir=runs/accuracy --output=docs/results/digits.json

Runs train.py and eval.py as a user would, one run after another, prints the table and writes the
numbers. Started again it goes on where it was stopped.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time

from absl import app, flags

_WORKDIR = flags.DEFINE_string("workdir", "runs/accuracy", "Where the runs go.")
_OUTPUT = flags.DEFINE_string("output", "docs/results/digits.json", "JSON file to write.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "config.seed of the runs.")
_DATA = flags.DEFINE_string("data_path", "", "TFDS's data_dir of digit_scenes.")

# Without SPP a network takes one size: there is no full view of it.
PRESETS = {
    "digits_multisize": ("center", "warp", "full"),
    "digits_single": ("center", "warp", "full"),
    "digits_nospp": ("center", "warp"),
}


def run(preset: str, seed: str) -> dict:
    """Trains and scores one network; returns {"preset", "seed", "seconds", protocol: top1}."""
    workdir = os.path.join(_WORKDIR.value, f"{preset}_{seed}")
    done = os.path.join(workdir, "accuracy.json")
    if os.path.exists(done):
        with open(done, encoding="utf-8") as f:
            return json.load(f)
    start = time.monotonic()
    command = [sys.executable, "train.py", f"--config=configs/{preset}.py"]
    command += [f"--workdir={workdir}", f"--config.seed={seed}"]
    subprocess.run([*command, f"--config.data.path={_DATA.value}"], check=True)
    found: dict = {"preset": preset, "seed": int(seed), "seconds": time.monotonic() - start}
    for protocol in PRESETS[preset]:
        command = [sys.executable, "eval.py", f"--workdir={workdir}", f"--protocol={protocol}"]
        subprocess.run(command, check=True)
        with open(os.path.join(workdir, f"eval_{protocol}.json"), encoding="utf-8") as f:
            found[protocol] = json.load(f)["top1"]
    with open(done, "w", encoding="utf-8") as f:
        json.dump(found, f)
    return found


def table(runs: list[dict]) -> str:
    """Returns a Markdown table: mean and deviation over the seeds, percent."""
    lines = ["| preset | centre crop | warped | full image |", "|---|---|---|---|"]
    for preset in PRESETS:
        mine = [r for r in runs if r["preset"] == preset]
        cells = []
        for protocol in ("center", "warp", "full"):
            values = [100 * r[protocol] for r in mine if protocol in r]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "-")
        lines.append(f"| {preset} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_: list[str]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
    }
    runs = [run(preset, seed) for seed in _SEEDS.value for preset in PRESETS]
    os.makedirs(os.path.dirname(_OUTPUT.value) or ".", exist_ok=True)
    with open(_OUTPUT.value, "w", encoding="utf-8") as f:
        json.dump({**facts, "runs": runs}, f, indent=1)
    print(table(runs))


if __name__ == "__main__":
    app.run(main)
