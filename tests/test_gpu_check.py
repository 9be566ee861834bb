"""The check that runs on a borrowed GPU: all of it with small shapes, and what it says of results.

Machines with GPUs are lent without what loads data: the dry run here has none of that either.
"""

import importlib
import json
import math
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from absl import flags

from benchmarks import verdicts


def _load(name):
    """Imports a benchmark, and takes its flags back: others define the same names."""
    before = set(flags.FLAGS)
    module = importlib.import_module(f"benchmarks.{name}")
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    return module


device_tests, equal, gpu_check, limits, pooling = map(
    _load, ("device_tests", "equal", "gpu_check", "limits", "pooling")
)

# Python runs a file of this name in every process that has its folder on the path.
_ABSENT = """
import sys
from importlib.machinery import PathFinder

ABSENT = {absent!r}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""

ABSENT = (
    *("tensorflow_datasets", "grain", "ml_collections", "simplejpeg", "cv2", "pytest"),
    *("hypothesis", "PIL", "sklearn", "tensorboardX", "matplotlib", "torch"),
)


def _run(*arguments, env):
    command = [sys.executable, "-m", "benchmarks.gpu_check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_a_dry_run_needs_no_data_library_and_measures_every_part(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_ABSENT.format(absent=set(ABSENT)))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    output = tmp_path / "results"
    ended = _run("--dry_run", "--limit=900", f"--output={output}", env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "not installed: torch" in ended.stdout
    written = json.loads((output / "gpu_check.json").read_text())
    names = [part.name for part in gpu_check.choose(is_dry=True)]
    assert [part["part"] for part in written["parts"]] == names
    commands = {part.command for part in gpu_check.PARTS}
    assert {part.command for part in gpu_check.choose(is_dry=True)} == commands
    results = {name: json.loads((output / f"{name}.json").read_text()) for name in names}
    assert results["device_tests"]["missing"] == ["pytest", "hypothesis"]
    assert results["training_zf5"]["rows"][0]["seconds"]["ours"] > 0
    assert results["memory_zf5"]["rows"][0]["compiler_bytes"] > 1e5
    assert set(results["detection"]["kinds"]) == {"1 scale", "5 scales"}
    # bfloat16 rounds to 8 bits: equal to the last bit would mean that nothing was compared.
    errors = {row["case"]: row["error"] for row in results["equal"]["compared"]}
    assert errors["by hand: pool_windows"] == 0
    assert 1e-4 < errors["tiny, bfloat16: logits"] < 3e-2


def test_without_a_gpu_it_is_one_sentence(tmp_path):
    ended = _run(f"--output={tmp_path}", env=os.environ)
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: JAX has no GPU here, only cpu; --dry_run runs small shapes on CPUs\n"
    )


def test_every_part_has_its_budget_whatever_the_earlier_ones_took():
    parts = gpu_check.PARTS
    assert sum(part.seconds for part in parts) <= 480
    left = 480.0
    for number, part in enumerate(parts):
        seconds = gpu_check.allowance(list(parts), number, left)
        assert seconds >= part.seconds - 1e-9
        left -= seconds  # each takes all it may
    assert left == pytest.approx(0)
    few = [gpu_check.Part("a", "a", 30), gpu_check.Part("b", "b", 10)]
    # 20 of 40 seconds are half of each budget; 50 are ten more for the one that runs.
    assert gpu_check.allowance(few, 0, 20) == pytest.approx(15)
    assert gpu_check.allowance(few, 0, 50) == pytest.approx(40)


def _part(tmp_path, monkeypatch, code, seconds):
    """Returns what is said of a part that runs this code."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "broken.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    part = gpu_check.Part("name", "broken", 1)
    return gpu_check.run_part(part, str(tmp_path), dict(os.environ), seconds, is_dry=False)


def test_a_part_that_fails_is_said_in_one_line(tmp_path, monkeypatch):
    code = "import sys\nprint('a\\nlong table')\nsys.exit('error: it broke')"
    ended = _part(tmp_path, monkeypatch, code, 60)
    assert (ended["state"], ended["why"]) == ("failed", "error: it broke")


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().split()[2] != "Z"  # dead, and nobody has asked for it
    except FileNotFoundError:
        return False


def test_a_part_that_takes_too_long_is_ended_with_its_children(tmp_path, monkeypatch):
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pid', 'w').write(str(p.pid))\ntime.sleep(600)"
    )
    ended = _part(tmp_path, monkeypatch, code, 3)
    assert (ended["state"], ended["why"]) == ("out of time", "ended after 3 s")
    child = (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 10
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_differences_are_of_the_largest_number_and_of_the_length():
    assert equal.largest([1.0, -4.0], [1.0, -5.0]) == pytest.approx(0.2)
    assert equal.length([3.0, 4.0], [0.0, 4.0]) == pytest.approx(0.75)
    assert equal.largest(np.zeros(3), np.zeros(4)) == math.inf
    assert equal.Row("a", math.nan, 1.0).error == math.inf


def test_a_pool_that_is_wrong_on_the_device_is_named(monkeypatch):
    device = jax.devices()[0]
    right = equal.max_pool.max_pool
    monkeypatch.setattr(
        equal.max_pool, "max_pool", lambda x, *sides, **options: 2 * right(x, *sides, **options)
    )
    wrong = equal.judge(equal.compare_literals(device))
    assert [sentence.split(" differs")[0] for sentence in wrong] == [
        "by hand: max_pool",
        "by hand: max_pool, gradient",
        "by hand: max_pool, gradient of ties",
    ]


def test_tests_on_the_device_say_what_failed_and_what_there_was_no_time_for(tmp_path):
    path = tmp_path / "test_some.py"
    path.write_text(
        "import pytest, time\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_skipped(): pytest.skip('no')\n"
        "def test_long(): time.sleep(600)\n"
    )
    result = device_tests.run_tests([str(path)], "cpu", 15)
    failed = result.pop("failed")
    assert [name.rpartition(".")[2] for name in failed] == ["test_bad"]
    assert {k: result[k] for k in ("passed", "skipped", "ended")} == {
        **{"passed": 1, "skipped": 1, "ended": False}
    }


PROGRAMS = [
    {"name": "zf5 224 bfloat16", "seconds_limit": 0.002, "device": "h200", "deterministic": False},
    {"name": "zf5 224 bfloat16", "seconds_limit": 0.003, "device": "h200", "deterministic": True},
    {"name": "zf5 224 bfloat16", "seconds_limit": 0.001, "device": "b200", "deterministic": False},
    {"name": "detection: windows alone bfloat16", "seconds_limit": 0.01, "device": "h200"},
    {"name": "zf5 180 bfloat16", "seconds_limit": 0.001, "device": "h200"},
]


def _limits(tmp_path, windows_seconds):
    results = tmp_path / "results"
    results.mkdir()
    (tmp_path / "programs.json").write_text(json.dumps({"programs": PROGRAMS}))
    row = {"case": "zf5 224 bfloat16", "seconds": {"ours": 0.003, "ours, deterministic": 0.006}}
    training = {"device": "NVIDIA H200", "rows": [row]}
    (results / "training_zf5.json").write_text(json.dumps(training))
    kinds = {"5 scales": {"seconds": {"pooling": windows_seconds}, "ratio": 20}}
    detection = {"device": "NVIDIA H200", "kinds": kinds}
    (results / "detection.json").write_text(json.dumps(detection))
    command = [sys.executable, "-m", "benchmarks.limits", f"--folder={results}"]
    command += [f"--programs={tmp_path / 'programs.json'}", f"--output={tmp_path / 'out.json'}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended, json.loads((tmp_path / "out.json").read_text())["limits"]


def test_measured_times_are_compared_with_the_limits_of_their_device(tmp_path):
    ended, rows = _limits(tmp_path, 0.02)
    assert ended.returncode == 0, ended.stderr
    assert {row["name"]: row["ratio"] for row in rows} == pytest.approx(
        {
            "zf5 224 bfloat16": 1.5,
            "zf5 224 bfloat16, deterministic": 2.0,
            "detection: windows alone bfloat16": 2.0,
        }
    )
    assert verdicts.worst({"limits": rows}).startswith("2.00 times the limit (")


def test_a_program_faster_than_its_limit_shows_that_the_model_is_wrong(tmp_path):
    ended, _ = _limits(tmp_path, 0.009)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "error: faster than the model allows: detection: windows alone bfloat16"
    )


def test_names_of_limits_are_those_of_the_benchmarks():
    names = {f"{what}, {dtype}" for what in pooling.SIZES for dtype in ("float32", "bfloat16")} | {
        "75x100 float32, backward too"
    }
    stages = ("convolutions", "pooling", "SVMs, regression, NMS")
    names |= {f"5 scales: {stage}" for stage in stages}
    assert {name for _, name in limits.NAMES.values()} <= names


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            {
                "rows": [
                    {
                        "case": "a",
                        "ratios": {
                            **{"torch": [1.5, 1, 2], "compiled": [0.8, 0.7, 1]},
                            **{"limit": [0.1, 0.1, 0.1], "ours, deterministic": [1.3, 1, 2]},
                        },
                    },
                    {"case": "b", "ratios": {"torch": [0.9, 0.9, 0.9]}},
                ]
            },
            "compiled takes 0.80 times ours (a); deterministic 1.30",
        ),
        (
            {"rows": [{"case": "a", "ratios": {"limit": [0.25, 0.2, 0.3]}}]},
            "limit takes 0.25 times ours (a)",
        ),
        (
            {"rows": [{"case": "a", "peak_bytes": 3, "compiler_bytes": 2}]},
            "1.50 times the compiler's bytes (a)",
        ),
        (
            {"kinds": {"1 scale": {"ratio": 9.0}, "5 scales": {"ratio": 7.0}}},
            "7.0 times as fast as once per window (5 scales)",
        ),
        (
            {
                "compared": [
                    {"case": "a", "error": 0.1, "tolerance": 0.2},
                    {"case": "b", "error": 0.0, "tolerance": 0},
                ]
            },
            "0.50 of the tolerance (a)",
        ),
        ({"passed": 3, "failed": ["a"]}, "3 passed, 1 failed"),
        ({"limits": []}, ""),
        ({"missing": ["pytest"]}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_worst_of_a_result(result, expected):
    assert verdicts.worst(result) == expected
