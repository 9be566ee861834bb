"""Compiles the programs for GPUs that are not there, and counts what they would do.

    python -m benchmarks.gpu_programs [--device=h200] [--devices=1] [--only=NAME ...]
        [--output=docs/results/gpu_programs.json]

`make gpu-programs` installs JAX for GPUs in .venv-gpu and runs it. Nothing here is measured: times
are estimates of moving the counted bytes, or of computing the counted operations, on the described
device (docs/results/gpu_programs.md). The JSON keeps the rows of earlier calls.
"""

import json
import os
import time
from typing import Any

from absl import flags
from jax.sharding import Mesh

from benchmarks import facts, timing
from benchmarks.gpu import cases, counts, devices, hlo
from spp_jax import errors

_DEVICE = flags.DEFINE_enum("device", "h200", list(devices.DEVICES), "The GPU that is described.")
_COUNT = flags.DEFINE_enum(
    "devices", "1", [str(n) for n in devices.COUNTS], "How many of them; 32 are four hosts."
)
_DETERMINISTIC = flags.DEFINE_enum(
    "deterministic", "both", ["no", "yes", "both"], "Operations of the programs that train."
)
_ONLY = flags.DEFINE_multi_string("only", [], "A row to compile, or how its name begins.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")
_TEXTS = flags.DEFINE_string("texts", "", "Folder for the programs' texts.")


def main(_: list[str]) -> None:
    devices.prepare()
    chosen = _choose([case.name for case in cases.ALL])
    device = devices.DEVICES[_DEVICE.value]
    mesh = devices.make_mesh(device, int(_COUNT.value))
    rows = _read(_OUTPUT.value)
    command = timing.given("python -m benchmarks.gpu_programs")
    origin = facts.facts(command, "jax", "jaxlib", "flax")
    wanted = [c for c in cases.ALL if c.name in chosen and (mesh.size == 1 or c.trains)]
    if not any(_kinds(case.trains) for case in wanted):
        raise errors.InputError(
            f"none of the rows trains: --devices={mesh.size} and --deterministic are for those"
        )
    for case in wanted:
        for deterministic in _kinds(case.trains):
            row = _compile(case, mesh, deterministic, device)
            print(_line(row), flush=True)
            rows[_key(row)] = {**row, **origin}
            if _OUTPUT.value:
                facts.write(_OUTPUT.value, {"programs": list(rows.values())})
    print()
    print(table([row for row in rows.values() if _is_of(row, chosen)]))


def _choose(names: list[str]) -> set[str]:
    """Returns the names of rows that --only asks for."""
    for start in _ONLY.value:
        if not any(name.startswith(start) for name in names):
            raise errors.InputError(
                f"--only={start}: no row begins so; there are: {'; '.join(names)}"
            )
    starts = tuple(_ONLY.value) or ("",)
    return {name for name in names if name.startswith(starts)}


def _kinds(trains: bool) -> list[bool]:
    if not trains:
        return [False] if _DETERMINISTIC.value != "yes" else []
    return {"no": [False], "yes": [True], "both": [False, True]}[_DETERMINISTIC.value]


def _read(path: str) -> dict[tuple, dict[str, Any]]:
    """Returns the rows of earlier calls."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return {_key(row): row for row in json.load(f)["programs"]}


def _key(row: dict[str, Any]) -> tuple:
    return row["device"], row["devices"], row["name"], row["deterministic"]


def _is_of(row: dict[str, Any], names: set[str]) -> bool:
    given = (_DEVICE.value, int(_COUNT.value))
    return row["name"] in names and (row["device"], row["devices"]) == given


def _compile(
    case: cases.Case, mesh: Mesh, deterministic: bool, device: devices.Device
) -> dict[str, Any]:
    """Returns the row of a case: sums over its programs."""
    start = time.monotonic()
    counted, temporaries = [], 0
    compiled: Any
    for number, compiled in enumerate(case.make(mesh, deterministic)):
        text = compiled.as_text()
        memory = compiled.memory_analysis()
        temporaries = max(temporaries, memory.temp_size_in_bytes)
        counted.append(counts.count(hlo.parse(text)))
        if _TEXTS.value:
            os.makedirs(_TEXTS.value, exist_ok=True)
            name = f"{case.name} {'deterministic ' * deterministic}{number}.txt".replace("/", "-")
            with open(os.path.join(_TEXTS.value, name.replace(" ", "_")), "w") as f:
                f.write(text)
    seconds = time.monotonic() - start
    total = counts.add(counted)
    moving, computing = device.seconds(total["bytes"], total["operations"], case.dtype)
    limit = max(moving, computing)
    return {
        "name": case.name,
        "device": _DEVICE.value,
        "devices": mesh.size,
        "deterministic": deterministic,
        "programs": len(counted),
        **total,
        "temporary_bytes": temporaries,
        "seconds_moving": moving,
        "seconds_computing": computing,
        "seconds_limit": limit,
        "utilisation": total["operations"] / (limit * device.peak[case.dtype]),
        "compile_seconds": round(seconds, 1),
    }


def _line(row: dict[str, Any]) -> str:
    kind = ", deterministic" * row["deterministic"]
    return (
        f"{row['name']}{kind}: {row['bytes'] / 1e9:.2f} GB, {row['operations'] / 1e12:.3f} TFLOP, "
        f"{1e3 * row['seconds_limit']:.2f} ms at the limit; compiled in {row['compile_seconds']} s"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    heads = (
        *("program", "GB", "TFLOP", "ms moving", "ms computing", "utilisation"),
        *("temporaries, GB", "fusions / library calls", "copies (GB)"),
        *("float32, 4 axes (largest, MB)", "scatters / sorts", "summed over devices"),
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        name = row["name"] + ", deterministic" * row["deterministic"]
        exchanged: dict[str, int] = {}
        for entry in row["collectives"]:
            exchanged[entry["dtype"]] = exchanged.get(entry["dtype"], 0) + entry["bytes"]
        cells = (
            name + (f", {row['devices']} devices" if row["devices"] > 1 else ""),
            f"{row['bytes'] / 1e9:.2f}",
            f"{row['operations'] / 1e12:.3f}",
            f"{1e3 * row['seconds_moving']:.2f}",
            f"{1e3 * row['seconds_computing']:.2f}",
            f"{row['utilisation']:.0%}",
            f"{row['temporary_bytes'] / 1e9:.2f}",
            f"{row['fusions']} / {row['library_calls']}",
            f"{row['copies']} ({row['copied_bytes'] / 1e9:.2f})",
            f"{row['float32_maps']} ({row['largest_float32_map'] / 1e6:.1f})",
            f"{row['scatters']} / {row['sorts']}",
            "; ".join(f"{kind} {n / 1e6:.0f} MB" for kind, n in exchanged.items()) or "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    timing.run(main)
