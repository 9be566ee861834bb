"""Everything there is to check and to time on a GPU, in eight minutes, each part on its own.

    python -m benchmarks.gpu_check [--output=DIR] [--limit=480] [--dry_run]

Each part is a command with a JSON file in DIR, written before the next one begins, and a log. A
part that fails or takes too long ends alone. The exit code is 1 if any did, and 2 without a GPU.
Needed are JAX, Flax, Optax, Orbax and chex; torch and torchvision are timed beside us where they
are installed.
--dry_run runs all parts with small shapes on CPUs: its numbers mean nothing.
"""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags

from benchmarks import facts, verdicts
from spp_jax import errors

_OUTPUT = flags.DEFINE_string(
    "output", "", "Folder of the JSON files and logs; empty: runs/gpu_check, _dry for a dry run."
)
_LIMIT = flags.DEFINE_float("limit", 480, "Seconds for all parts together.", lower_bound=10)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Whether to run small shapes on CPUs.")

# What some parts use if it is there; what is missing is said at the beginning.
OPTIONAL = ("torch", "torchvision", "pytest", "hypothesis", "cv2")


@dataclasses.dataclass(frozen=True)
class Part:
    """A command of the check.

    Attributes:
        name: of its JSON file.
        command: module of `benchmarks`.
        seconds: budget on an H200; what a part leaves of it, the next ones have.
        arguments: its flags.
        small: its flags in a dry run.
    """

    name: str
    command: str
    seconds: float
    arguments: tuple[str, ...] = ()
    small: tuple[str, ...] = ()


def _training(name: str, seconds: float, case: str, *arguments: str) -> Part:
    small = ("--cases=tiny:48", "--batch=4", "--rounds=1", "--square=64", "--dtypes=float32")
    return Part(name, "training_step", seconds, (f"--cases={case}", *arguments), small)


# In the order of what is most wanted if time runs out. Programs compiled by one part are read from
# the cache by later ones, so those that train without torch.compile come before those with it.
PARTS = (
    Part(
        *("equal", "equal", 65, ()),
        small=(
            "--networks=tiny",
            "--batch=2",
            "--map=5,7",
            "--windows=9",
            "--precisions=bfloat16",
        ),
    ),
    Part(
        *("device_tests", "device_tests", 35, ("--seconds=30",)),
        small=("--paths=tests/pooling/test_bins.py", "--seconds=20"),
    ),
    _training("training_zf5", 45, "zf5:224", "--dtypes=bfloat16", "--nocompile"),
    _training("training_overfeat7", 45, "overfeat7:224", "--dtypes=bfloat16", "--nocompile"),
    _training("compiled_zf5", 55, "zf5:224", "--dtypes=bfloat16", "--noeager"),
    _training("compiled_overfeat7", 55, "overfeat7:224", "--dtypes=bfloat16", "--noeager"),
    _training("training_float32", 30, "zf5:224", "--dtypes=float32", "--nocompile"),
    Part(
        *("windows", "windows", 30, ("--rounds=5",)),
        small=("--sizes=7x9", "--channels=4", "--windows=20", "--rounds=1"),
    ),
    Part("pooling", "pooling", 20, ("--rounds=7",), small=("--maps=1", "--rounds=1")),
    Part(
        *("detection", "detection", 40, ("--dtype=bfloat16", "--rounds=3")),
        small=(
            # Scales that are alike: one program is compiled for all.
            *("--network=tiny", "--size=60,80", "--scales=72,72,72,72,72", "--windows=20"),
            *("--alone=16", "--classes=2", "--rounds=1"),
        ),
    ),
    Part(
        *("multi_view", "multi_view", 30, ("--networks=zf5", "--dtype=bfloat16", "--rounds=3")),
        small=(
            *("--networks=tiny", "--size=60,80", "--scales=72,72,72,72,72,72"),
            *("--batch=4", "--rounds=1"),
        ),
    ),
    Part(
        *("memory_zf5", "memory", 13, ("--network=zf5",)),
        small=("--network=tiny", "--side=48", "--dtype=float32", "--batch=4"),
    ),
    Part(
        *("memory_overfeat7", "memory", 13, ("--network=overfeat7",)),
        small=("--network=tiny", "--side=48", "--dtype=float32", "--batch=4"),
    ),
    Part("limits", "limits", 4),
)

_PROBE = """
import json, jax
device = jax.devices()[0]
print(json.dumps({"backend": jax.default_backend(), "device": device.device_kind}))
"""


def choose(is_dry: bool) -> list[Part]:
    """Returns the parts of a run; a dry one has each command once."""
    if not is_dry:
        return list(PARTS)
    return list({part.command: part for part in reversed(PARTS)}.values())[::-1]


def make_environment(cache: str, is_dry: bool) -> dict[str, str]:
    """Returns the environment of the parts: programs are compiled once for all of them.

    Args:
        cache: folder of compiled programs.
        is_dry: whether CPUs are to run them.
    """
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    platforms = environment.get("JAX_PLATFORMS", "")
    if is_dry:
        environment["JAX_PLATFORMS"] = "cpu"
        # Most of a dry run is compiling.
        fast = "--xla_backend_optimization_level=0"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {fast}"
    elif platforms and "cpu" not in platforms:
        environment["JAX_PLATFORMS"] = f"{platforms},cpu"  # the device is compared with the CPU
    return environment


def probe(environment: dict[str, str], seconds: float) -> dict[str, str]:
    """Returns {"backend", "device"} as JAX names them.

    A process of its own asks, because a GPU's memory would stay with the one that did.

    Raises:
        InputError: JAX does not start.
    """
    command = [sys.executable, "-c", _PROBE]
    try:
        ended = subprocess.run(
            command, env=environment, timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise errors.InputError(f"JAX named no device within {seconds:.0f} s") from e
    if ended.returncode:
        raise errors.InputError(f"JAX does not start: {_last_line(ended.stderr)}")
    return json.loads(ended.stdout.splitlines()[-1])


def allowance(parts: list[Part], number: int, left: float) -> float:
    """Returns the seconds that a part may take: what is left, less the budgets of later parts.

    Where less is left than all budgets, each part gets its share of it.
    """
    later = sum(part.seconds for part in parts[number + 1 :])
    share = min(1.0, left / (parts[number].seconds + later))
    return max(left - share * later, 0.0)


def run_part(
    part: Part, folder: str, environment: dict[str, str], seconds: float, is_dry: bool
) -> dict[str, Any]:
    """Returns {"part", "seconds", "state", "why", "worst"}, the latter two maybe empty.

    Args:
        part: to run.
        folder: of its JSON and its log.
        environment: of its process.
        seconds: after these it is ended, with the processes that it started.
        is_dry: whether shapes are small.
    """
    output = os.path.join(folder, f"{part.name}.json")
    arguments = list(part.small if is_dry else part.arguments)
    if part.command == "limits":
        arguments.append(f"--folder={folder}")
    command = [sys.executable, "-m", f"benchmarks.{part.command}", *arguments]
    command.append(f"--output={output}")
    log = os.path.join(folder, f"{part.name}.log")
    start = time.monotonic()
    if seconds < 1:
        return {"part": part.name, "seconds": 0.0, "state": "not begun", "why": "", "worst": ""}
    with open(log, "wb") as f:
        process = subprocess.Popen(
            command, env=environment, stdout=f, stderr=subprocess.STDOUT, start_new_session=True
        )
        state, why = "ok", ""
        try:
            if process.wait(seconds):
                state = "failed"
        except subprocess.TimeoutExpired:
            state, why = "out of time", f"ended after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if state == "failed":
        with open(log, encoding="utf-8", errors="replace") as f:
            why = _last_line(f.read())
    taken = time.monotonic() - start
    return {
        **{"part": part.name, "seconds": round(taken, 1), "state": state, "why": why},
        "worst": verdicts.read_worst(output),
    }


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1][:300]


def table(ended: list[dict[str, Any]]) -> str:
    """Returns a Markdown table of the parts."""
    lines = ["| part | | seconds | worst ratio to a peer or a limit |", "|---|---|---|---|"]
    lines += [f"| {e['part']} | {e['state']} | {e['seconds']:.0f} | {e['worst']} |" for e in ended]
    return "\n".join(lines)


def _clear(folder: str) -> None:
    """Makes the folder of the results, without those of a check before; raises InputError."""
    try:
        os.makedirs(folder, exist_ok=True)
        for part in PARTS:
            for kind in ("json", "log"):
                path = os.path.join(folder, f"{part.name}.{kind}")
                if os.path.exists(path):
                    os.remove(path)
    except OSError as e:
        raise errors.InputError(f"--output={folder}: {e.strerror}") from e


def check(folder: str, limit: float, is_dry: bool) -> list[str]:
    """Runs the parts; returns a sentence of each that did not end well.

    Raises:
        InputError: there is no GPU, or no place for the results.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        environment = make_environment(cache, is_dry)
        named = probe(environment, min(limit, 90))
        if named["backend"] != "gpu" and not is_dry:
            raise errors.InputError(
                f"JAX has no GPU here, only {named['device']}; --dry_run runs small shapes on CPUs"
            )
        _clear(folder)
        missing = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
        print(f"{named['device']}; not installed: {', '.join(missing) or 'nothing'}", flush=True)
        origin = facts.facts("python -m benchmarks.gpu_check", "jax", "flax") | named
        parts, ended = choose(is_dry), []
        for number, part in enumerate(parts):
            left = limit - (time.monotonic() - begin)
            # Budgets are an H200's.
            seconds = left if is_dry else allowance(parts, number, left)
            ended.append(run_part(part, folder, environment, seconds, is_dry))
            last = ended[-1]
            why = f": {last['why']}" if last["why"] else ""
            print(f"{part.name}: {last['state']}, {last['seconds']:.0f} s{why}", flush=True)
            written = {**origin, "missing": missing, "parts": ended}
            facts.write(os.path.join(folder, "gpu_check.json"), written)
    print(f"\n{table(ended)}\n\nall in {time.monotonic() - begin:.0f} s; JSON and logs in {folder}")
    return [f"{e['part']} ({e['state']})" for e in ended if e["state"] != "ok"]


def main(argv: list[str]) -> None:
    try:
        if len(argv) > 1:
            raise errors.InputError(f"unexpected argument {argv[1]!r}")
        folder = _OUTPUT.value or f"runs/gpu_check{'_dry' * _DRY_RUN.value}"
        bad = check(folder, _LIMIT.value, _DRY_RUN.value)
    except errors.InputError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    if bad:
        print(f"error: {', '.join(bad)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
