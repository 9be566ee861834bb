"""Measured times against those that benchmarks.gpu_programs estimates for the same programs.

    python -m benchmarks.limits --folder=DIR --programs=docs/results/gpu_programs.json

The estimate is the time of moving the bytes that a program's operations name, or of computing them.
A program that was measured to be faster shows that the model is wrong for it, as where its arrays
stay in the cache; the exit code is then 1. Limits of other devices than the measured one are left
out.
"""

import json
import os
import sys
from typing import Any

from absl import flags

from benchmarks import facts, timing

_FOLDER = flags.DEFINE_string("folder", "runs/gpu_check", "Folder of the measured JSON files.")
_PROGRAMS = flags.DEFINE_string(
    "programs", "docs/results/gpu_programs.json", "JSON of benchmarks.gpu_programs."
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

# Names of gpu_programs: (how the measured file's name begins, the name there). Others have the same
# name in both.
NAMES = {
    "pools of 2,000 windows and their gradient": ("windows", "75x100 float32, backward too"),
    "pyramids of 128 maps and their gradient": ("pooling", "pyramid {6, 3, 2, 1}, bfloat16"),
    "detection: maps at five scales bfloat16": ("detection", "5 scales: convolutions"),
    "detection: windows alone bfloat16": ("detection", "5 scales: pooling"),
    "detection: SVMs, regression, suppression": ("detection", "5 scales: SVMs, regression, NMS"),
}

# The bandwidth is a share of the vendor's peak, and copies differ by some hundredths between runs.
LEAST = 0.95


def read_measured(folder: str) -> list[dict[str, Any]]:
    """Returns [{"file", "device", "name", "deterministic", "seconds"}] of all JSON of a folder."""
    measured = []
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".json"):
            continue
        with open(os.path.join(folder, file), encoding="utf-8") as f:
            result = json.load(f)
        base = {"file": file, "device": result.get("device", ""), "deterministic": False}
        for row in result.get("rows", []):
            seconds = row.get("seconds", {})
            if "ours" in seconds:
                measured.append({**base, "name": row["case"], "seconds": seconds["ours"]})
            if "ours, deterministic" in seconds:
                own = {"seconds": seconds["ours, deterministic"], "deterministic": True}
                measured.append({**base, "name": row["case"], **own})
        for kind, stages in result.get("kinds", {}).items():
            measured += [
                {**base, "name": f"{kind}: {stage}", "seconds": seconds}
                for stage, seconds in stages["seconds"].items()
            ]
    return measured


def compare(programs: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns [{"name", "seconds", "seconds_limit", "ratio"}] of programs that were measured."""
    rows = []
    for program in programs:
        file, name = NAMES.get(program["name"], ("", program["name"]))
        wanted = program.get("deterministic", False)
        for entry in measured:
            if (
                (entry["name"], entry["deterministic"]) == (name, wanted)
                and entry["file"].startswith(file)
                and program.get("device", "") in entry["device"].lower()
                and program.get("devices", 1) == 1
            ):
                limit = program["seconds_limit"]
                kind = ", deterministic" if wanted else ""
                own = {"seconds": entry["seconds"], "seconds_limit": limit}
                ratio = entry["seconds"] / limit
                rows.append({"name": program["name"] + kind, **own, "ratio": ratio})
    return rows


def main(_: list[str]) -> None:
    programs, rows = [], []
    if os.path.exists(_PROGRAMS.value):
        with open(_PROGRAMS.value, encoding="utf-8") as f:
            programs = json.load(f)["programs"]
        rows = compare(programs, read_measured(_FOLDER.value))
        print(f"{len(programs)} programs with limits, {len(rows)} of them measured here")
    else:
        print(f"no limits: there is no {_PROGRAMS.value}")
    for row in rows:
        shown = f"{1e3 * row['seconds']:.3g} ms, limit {1e3 * row['seconds_limit']:.3g}"
        print(f"{row['name']}: {shown}, {row['ratio']:.2f} times")
    if _OUTPUT.value:
        origin = facts.facts(timing.given("python -m benchmarks.limits"), "jax")
        facts.write(_OUTPUT.value, {**origin, "limits": rows})
    wrong = [row["name"] for row in rows if row["ratio"] < LEAST]
    if wrong:
        print(f"error: faster than the model allows: {', '.join(wrong)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    timing.run(main)
