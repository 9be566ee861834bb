"""The pyramid of whole maps and strided max pooling, forward and backward, against torch.

    python -m benchmarks.pooling --output=docs/results/speed_pooling.json

The limit reads the maps and writes as many numbers again: what a gradient must at least move.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import peers, timing
from spp_jax.pooling import max_pool, pyramid

_MAPS = flags.DEFINE_integer("maps", 128, "Maps in a batch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times each is run, in turns.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

# Side and channels of ZF-5's last map and of its first, at 224 pixels.
SIZES = {"pyramid {6, 3, 2, 1}": (13, 256), "max pool 3 / 2": (110, 96)}


def make_case(what: str, side: int, channels: int, dtype: str) -> timing.Case:
    """Returns the forward and backward pass of one operation."""
    shape = (_MAPS.value, side, side, channels)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    is_pyramid = what.startswith("pyramid")
    pool = (
        pyramid.spatial_pyramid_pool
        if is_pyramid
        else functools.partial(max_pool.max_pool, window=3, stride=2, ceil_mode=True)
    )

    ones = jnp.ones(jax.eval_shape(pool, x).shape, dtype)

    @jax.jit
    def ours(x: jax.Array, ones: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, vjp = jax.vjp(pool, x)
        return y, vjp(ones)[0]

    rivals = {}
    if peers.has_torch():
        torch = peers.torch
        peer = peers.pyramid if is_pyramid else torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        # Of its two layouts the faster one, on CPUs by 2 to 4 times.
        call = peers.forward_backward(peer, peers.tensor(x, dtype))
        rivals["torch channels_last"] = timing.Run(call)
    copy = jax.jit(lambda x: x * 2)
    return timing.Case(
        f"{what}, {dtype}", timing.Run(lambda: ours(x, ones)), rivals, timing.Run(lambda: copy(x))
    )


def main(_: list[str]) -> None:
    rows = []
    for what, (side, channels) in SIZES.items():
        for dtype in ("float32", "bfloat16"):
            rows.append(timing.measure(make_case(what, side, channels, dtype), _ROUNDS.value))
    what = f"{_MAPS.value} maps, forward and backward"
    timing.report(rows, what, "python -m benchmarks.pooling", _OUTPUT.value)


if __name__ == "__main__":
    timing.run(main)
