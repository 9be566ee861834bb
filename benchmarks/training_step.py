"""The training step beside torch's: eager, channels_last and compiled; images a second.

    python -m benchmarks.training_step --output=docs/results/speed_training_step.json

Each trains the same network on the same uint8 images already on the device: subtract the mean,
forward, cross entropy, backward, SGD with momentum and weight decay. Ours mirrors images at random
and measures the gradient as well. On GPUs float32 products are TensorFloat-32 on both sides, as is
JAX's default. The limit is its floating-point operations as a large square matrix product.
"""

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import peers, steps, timing

_CASES = flags.DEFINE_list(
    "cases", ["zf5:224", "zf5:180", "overfeat7:224"], "Networks and sides of their images."
)
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of the networks.")
_BATCH = flags.DEFINE_integer(
    "batch", 0, "Images of a step; 0 is 16 on CPUs, else 128.", lower_bound=0
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each is run, in turns.", lower_bound=1)
_COMPILE = flags.DEFINE_bool("compile", True, "Whether to time torch.compile as well.")
_EAGER = flags.DEFINE_bool("eager", True, "Whether to time torch without torch.compile as well.")
_SQUARE = flags.DEFINE_integer(
    "square", 0, "Side of the limit's matrices; 0 is 4096 on CPUs, else 8192.", lower_bound=0
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")


def make_case(name: str, side: int, dtype: str, count: int) -> timing.Case:
    """Returns a network's step at one size."""
    ours = steps.Ours(name, side, dtype, count)
    rivals = {}
    if peers.has_torch():
        kinds = {}
        if _EAGER.value:
            kinds = {"torch": ("first", False), "torch channels_last": ("last", False)}
        if _COMPILE.value:
            kinds["torch.compile channels_last"] = ("last", True)
        for kind, (layout, is_compiled) in kinds.items():
            peer = steps.Torch(name, side, dtype, count, layout, is_compiled)
            rivals[kind] = timing.Run(peers.waited(peer))
    if jax.default_backend() == "gpu":
        deterministic = steps.Ours(name, side, dtype, count, deterministic=True)
        rivals["ours, deterministic"] = timing.Run(deterministic)
    product = _SQUARE.value or (4096 if jax.default_backend() == "cpu" else 8192)
    square = jnp.ones((product, product), dtype)
    multiply = jax.jit(jnp.matmul)
    limit = None
    if ours.program.flops:
        limit = timing.Run(lambda: multiply(square, square), ours.program.flops / (2 * product**3))
    return timing.Case(f"{name} {side} {dtype}", timing.Run(ours), rivals, limit)


def main(_: list[str]) -> None:
    count = _BATCH.value or (16 if jax.default_backend() == "cpu" else 128)
    rows = []
    for dtype in _DTYPES.value:
        for case in _CASES.value:
            name, _colon, side = case.partition(":")
            (pixels,) = timing.numbers("cases", side, ",", 1)
            row = timing.measure(make_case(name, pixels, dtype, count), _ROUNDS.value)
            speeds = {kind: round(count / t, 1) for kind, t in row["seconds"].items()}
            print(f"{row['case']}, images/s: {speeds}", flush=True)
            rows.append(row | {"images_per_second": speeds})
    what = f"a step of {count}"
    timing.report(rows, what, "python -m benchmarks.training_step", _OUTPUT.value)


if __name__ == "__main__":
    timing.run(main)
