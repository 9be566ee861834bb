"""The most memory that training steps take on the device, against the compiler's own figure.

    python -m benchmarks.memory --network=zf5 --output=FILE

`train.py` prints that figure of each size before the first step (`programs.Program.bytes`). One
network a process, as a device never forgets the most it gave away. What compiling tries out counts
as well: the most before the first step is given beside the most of all.
"""

from typing import Any

import jax
from absl import flags

from benchmarks import facts, steps, timing

_NETWORK = flags.DEFINE_string("network", "zf5", "Its name.")
_SIDE = flags.DEFINE_integer("side", 224, "Of the images, pixels.", lower_bound=32)
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "Of the network.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images of a step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 3, "Steps to make.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")


def peak(device: Any) -> int | None:
    """Returns the most bytes that the device ever held at once; None where it does not count."""
    stats = device.memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def main(_: list[str]) -> None:
    device = jax.devices()[0]
    ours = steps.Ours(_NETWORK.value, _SIDE.value, _DTYPE.value, _BATCH.value)
    row = {
        "case": f"{_NETWORK.value} {_SIDE.value} {_DTYPE.value}",
        "batch": _BATCH.value,
        "compiler_bytes": ours.program.bytes,
        "peak_bytes_before": peak(device),
    }
    for _step in range(_STEPS.value):
        jax.block_until_ready(ours())
    row["peak_bytes"] = peak(device)
    shown = {
        k: f"{v / 1e9:.3f} GB" if v else "not reported" for k, v in row.items() if "bytes" in k
    }
    print(f"{row['case']}, a step of {_BATCH.value}: {shown}", flush=True)
    if _OUTPUT.value:
        origin = facts.facts(timing.given("python -m benchmarks.memory"), "jax", "flax")
        facts.write(_OUTPUT.value, {**origin, "device": device.device_kind, "rows": [row]})


if __name__ == "__main__":
    timing.run(main)
