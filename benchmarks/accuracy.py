"""Multi-size against single-size against no SPP, several seeds: a table.

    python -m benchmarks.accuracy --experiment=digits --output=docs/results/digits.json
    python -m benchmarks.accuracy --experiment=imagenette --data_path=FOLDER --output=FILE

Runs train.py and eval.py as a user would, one run after another, prints the table and writes the
numbers. Started again it goes on where it was stopped.
"""

import json
import os
import statistics
import subprocess
import sys
import time

from absl import app, flags

from benchmarks import facts

_WORKDIR = flags.DEFINE_string("workdir", "runs/accuracy", "Where the runs go.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "config.seed of the runs.")
_DATA = flags.DEFINE_string("data_path", "", "config.data.path of the runs.")

# Presets and their protocols. Without SPP a network takes one size: it has no full view of an
# image, nor views pooled from its map.
EXPERIMENTS = {
    "digits": {
        "digits_multisize.py": ("center", "warp", "full"),
        "digits_single.py": ("center", "warp", "full"),
        "digits_nospp.py": ("center", "warp"),
    },
    "imagenette": {
        "imagenette_small.py:multisize": ("center", "ten_view", "full", "multi_view"),
        "imagenette_small.py:single": ("center", "ten_view", "full", "multi_view"),
        "imagenette_small.py:nospp": ("center", "ten_view"),
    },
}
_EXPERIMENT = flags.DEFINE_enum("experiment", None, list(EXPERIMENTS), "Which.", required=True)


def run(preset: str, seed: str) -> dict:
    """Trains and scores one network; returns {"preset", "seed", "seconds", protocol: top1}."""
    workdir = os.path.join(_WORKDIR.value, f"{preset.replace('.py', '').replace(':', '_')}_{seed}")
    done = os.path.join(workdir, "accuracy.json")
    if os.path.exists(done):
        with open(done, encoding="utf-8") as f:
            return json.load(f)
    start = time.monotonic()
    command = [sys.executable, "train.py", f"--config=configs/{preset}"]
    command += [f"--workdir={workdir}", f"--config.seed={seed}"]
    subprocess.run([*command, f"--config.data.path={_DATA.value}"], check=True)
    record: dict = {"preset": preset, "seed": int(seed), "seconds": time.monotonic() - start}
    protocols = EXPERIMENTS[_EXPERIMENT.value][preset]
    command = [sys.executable, "eval.py", f"--workdir={workdir}"]
    subprocess.run([*command, f"--protocol={','.join(protocols)}"], check=True)
    for protocol in protocols:
        with open(os.path.join(workdir, f"eval_{protocol}.json"), encoding="utf-8") as f:
            record[protocol] = json.load(f)["top1"]
    with open(done, "w", encoding="utf-8") as f:
        json.dump(record, f)
    return record


def table(runs: list[dict]) -> str:
    """Returns a Markdown table: mean and deviation over the seeds, percent."""
    presets = EXPERIMENTS[_EXPERIMENT.value]
    protocols = list(dict.fromkeys(p for listed in presets.values() for p in listed))
    lines = [f"| preset | {' | '.join(protocols)} |", "|---" * (len(protocols) + 1) + "|"]
    for preset in presets:
        mine = [r for r in runs if r["preset"] == preset]
        cells = []
        for protocol in protocols:
            values = [100 * r[protocol] for r in mine if protocol in r]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "-")
        lines.append(f"| {preset} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_: list[str]) -> None:
    runs = [run(preset, seed) for seed in _SEEDS.value for preset in EXPERIMENTS[_EXPERIMENT.value]]
    command = " ".join(["python", *sys.argv])
    facts.write(_OUTPUT.value, {**facts.facts(command, "jax"), "runs": runs})
    print(table(runs))


if __name__ == "__main__":
    app.run(main)
