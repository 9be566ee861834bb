"""The benchmarks that a borrowed device runs, and what they measure, on small numbers."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import timing

# Run in a process of its own: what is imported there shows.
_IMPORT = """
import importlib, sys
importlib.import_module("benchmarks." + sys.argv[1])
print(*sorted({"grain", "tensorflow_datasets", "cv2", "PIL", "simplejpeg"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", ["windows", "pooling", "training_step", "detection", "multi_view"])
def test_device_code_imports_no_data_library(name):
    ended = subprocess.run(
        [sys.executable, "-c", _IMPORT, name], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split("\n")[-2] == ""


def test_ratios_are_of_runs_beside_each_other():
    assert timing.ratio([2.0, 6.0, 3.0], [1.0, 2.0, 3.0]) == [2.0, 1.0, 3.0]


def test_each_run_is_warmed_up_and_scaled():
    calls = []
    run = timing.Run(lambda: calls.append(1), factor=1e9)
    measured = timing.measure(timing.Case("sum", run, {"peer": timing.Run(lambda: None)}), 3)
    assert len(calls) == timing.WARM_UPS + 3
    assert measured["seconds"]["ours"] > 10
    assert measured["ratios"]["peer"][0] < 1e-3
    text = timing.table([measured, {"case": "b", "seconds": {"ours": 0.5}, "ratios": {}}], "what")
    assert text.splitlines()[-1] == "| b | 500 | - |"


def test_windows_benchmark_writes_its_table(tmp_path):
    """Ours, the masked vmap and the loop in C agree, or it would not end."""
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.windows", "--sizes=7x9", "--channels=8"]
    command += ["--windows=20", "--rounds=1", f"--output={output}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| 7x9 float32 |" in ended.stdout
    result = json.loads(output.read_text())
    assert {"commit", "jax", "device", "rows"} <= set(result)
    assert all(np.isfinite(row["seconds"]["ours"]) for row in result["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["windows", "--sizes=abc"], "--sizes: 'abc' is not 2 whole numbers"),
        (["windows", "--output=/proc/no/out.json"], "--output=/proc/no/out.json"),
        (["pooling", "extra"], "unexpected argument 'extra'"),
        (["training_step", "--cases=zf5"], "--cases: '' is not 1 whole numbers"),
        (["input", "--images=/nowhere"], "no JPEG files in --images=/nowhere"),
        (["input", "--count=100"], "--count=100 is no multiple of --batch_size=16"),
        (["multi_view", "--size=375"], "--size: '375' is not 2 whole numbers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_are_one_sentence(arguments, message):
    name, *flags = arguments
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"error: {message}" in ended.stderr
    assert "Traceback" not in ended.stderr
