"""The tests of pooling, networks and steps on the device that JAX uses here.

    python -m benchmarks.device_tests --output=FILE

They run with products of the highest precision, for which their tolerances are written, until the
time is over: then what has run counts. Without pytest and hypothesis none runs.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from typing import Any

import jax
from absl import flags

from benchmarks import facts, timing

_PATHS = flags.DEFINE_list(
    "paths",
    # The quickest first.
    ["tests/training/test_steps.py", "tests/pooling", "tests/models"],
    "Files and folders of tests.",
)
_SECONDS = flags.DEFINE_float("seconds", 60, "After these no further test begins.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

NEEDED = ("pytest", "hypothesis")


def run_tests(paths: list[str], platform: str, seconds: float) -> dict[str, Any]:
    """Returns {"passed", "skipped", "failed": [name], "ended": whether all of them ran}.

    Args:
        paths: files and folders of tests.
        platform: JAX's name of the platform to use.
        seconds: after these the tests are interrupted.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": platform,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider"]
        # A warning of another version of a library is no fault of the device's.
        command += ["-W", "default", "-m", "not slow", f"--junitxml={report}", *paths]
        process = subprocess.Popen(command, env=environment)
        ended = True
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            ended = False
            process.send_signal(signal.SIGINT)
            process.wait()
        cases = ElementTree.parse(report).getroot().iter("testcase")
        kinds = {f"{c.get('classname')}.{c.get('name')}": {e.tag for e in c} for c in cases}
    if not ended and kinds and not kinds[list(kinds)[-1]]:
        kinds.popitem()  # the interrupted one, of which pytest says nothing
    failed = [name for name, tags in kinds.items() if tags & {"failure", "error"}]
    skipped = [name for name, tags in kinds.items() if "skipped" in tags]
    return {
        "passed": len(kinds) - len(failed) - len(skipped),
        "skipped": len(skipped),
        "failed": failed,
        "ended": ended,
    }


def main(_: list[str]) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    result: dict[str, Any] = {"missing": missing}
    if missing:
        print(f"no tests: {', '.join(missing)} not installed")
    else:
        platform = "cpu" if jax.default_backend() == "cpu" else "cuda"
        result |= run_tests(_PATHS.value, platform, _SECONDS.value)
        late = "" if result["ended"] else ", then the time was over"
        print(f"{result['passed']} passed, {len(result['failed'])} failed{late}")
    if _OUTPUT.value:
        origin = facts.facts(timing.given("python -m benchmarks.device_tests"), "jax", "flax")
        device = jax.devices()[0].device_kind
        facts.write(_OUTPUT.value, {**origin, "device": device, **result})
    if result.get("failed"):
        print(f"error: failed: {', '.join(result['failed'])}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    timing.run(main)
