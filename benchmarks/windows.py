"""pool_windows: 2,000 windows of a feature map against a masked vmap, torch and a loop in C.

    python -m benchmarks.windows --output=docs/results/speed_windows.json

Slow peers are timed on some of the windows and scaled. The limit is the time to write the result
and read the map once. The C loop runs on one core, and makes a new result each time, as ours does.
`--drawn=uniform --fresh` is what a program sees that does not keep the memory it frees.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import peers, timing
from spp_jax.pooling import windows

_SIZES = flags.DEFINE_list("sizes", ["38x50", "75x100"], "Heights and widths of the maps, cells.")
_CHANNELS = flags.DEFINE_integer("channels", 256, "Of the map.", lower_bound=1)
_WINDOWS = flags.DEFINE_integer("windows", 2000, "Windows of the map.", lower_bound=20)
_DRAWN = flags.DEFINE_enum(
    "drawn", "log", ["log", "uniform"], "Sides of windows: as proposals have them, or any alike."
)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times each is run, in turns.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

LEVELS = (6, 3, 2, 1)

C_LOOP = """
#include <math.h>
#include <stddef.h>
void pool(const float *restrict map, int width, int channels, const int *windows, int count,
          const int *levels, int num_levels, float *restrict out) {
  for (int r = 0; r < count; r++, windows += 4)
    for (int l = 0; l < num_levels; l++)
      for (int i = 0, n = levels[l]; i < n; i++)
        for (int j = 0; j < n; j++, out += channels) {
          int w = windows[2] - windows[0], h = windows[3] - windows[1];
          int top = windows[1] + i * h / n, bottom = windows[1] + ((i + 1) * h + n - 1) / n;
          int left = windows[0] + j * w / n, right = windows[0] + ((j + 1) * w + n - 1) / n;
          for (int c = 0; c < channels; c++) out[c] = -INFINITY;
          for (int y = top; y < bottom; y++)
            for (int x = left; x < right; x++) {
              const float *cell = map + ((size_t)y * width + x) * channels;
              for (int c = 0; c < channels; c++) out[c] = cell[c] > out[c] ? cell[c] : out[c];
            }
        }
}
"""


def draw_windows(height: int, width: int, count: int, drawn: str = "log") -> np.ndarray:
    """Returns (count, 4) windows with sides of two cells to all, log-uniform or uniform."""
    rng = np.random.default_rng(0)
    if drawn == "log":
        sides = np.exp(rng.uniform(np.log(2), np.log([width, height]), (count, 2)))
    else:
        sides = rng.uniform(2, [width, height], (count, 2))
    corner = rng.uniform(0, [width, height] - sides)
    boxes = np.concatenate([np.floor(corner), np.ceil(corner + sides)], axis=1)
    return np.clip(boxes, 0, [width, height] * 2).astype(np.int32)


def compile_c() -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Returns the loop in C as a function of a map and windows; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler: no loop in C")
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = os.path.join(folder, "pool.c"), os.path.join(folder, "pool.so")
        with open(source, "w", encoding="utf-8") as f:
            f.write(C_LOOP)
        options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        subprocess.run([compiler, *options, "-o", library, source], check=True)
        loop = ctypes.CDLL(library).pool
    levels = np.asarray(LEVELS, np.int32)

    def call(fmap: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        _, width, channels = fmap.shape
        out = np.empty((len(boxes), sum(n * n for n in LEVELS) * channels), np.float32)
        pointer = [array.ctypes.data_as(ctypes.c_void_p) for array in (fmap, boxes, levels, out)]
        loop(
            pointer[0], width, channels, pointer[1], len(boxes), pointer[2], len(levels), pointer[3]
        )
        return out

    return call


@jax.jit
def pool_masked(fmap: jax.Array, boxes: jax.Array) -> jax.Array:
    """The plain way in JAX: every bin a masked maximum of the whole map."""

    def spread(start: jax.Array, stop: jax.Array, n: int, side: int) -> jax.Array:
        i, cell = jnp.arange(n)[:, None], jnp.arange(side)[None]
        length = stop - start
        first, last = start + i * length // n, start - (-(i + 1) * length // n)
        return (cell >= first) & (cell < last)

    def one(box: jax.Array) -> jax.Array:
        bins = []
        for n in LEVELS:
            rows = spread(box[1], box[3], n, fmap.shape[0])
            columns = spread(box[0], box[2], n, fmap.shape[1])
            strips = jnp.where(rows[:, :, None, None], fmap[None], -jnp.inf).max(axis=1)
            grid = jnp.where(columns[:, :, None], strips[:, None], -jnp.inf).max(axis=2)
            bins.append(grid.reshape(-1))
        return jnp.concatenate(bins)

    return jax.lax.map(one, boxes, batch_size=20)


def pool_torch(fmap: Any, boxes: np.ndarray) -> None:
    """torch's adaptive pool of each window, one by one."""
    for x1, y1, x2, y2 in boxes.tolist():
        peers.pyramid(fmap[:, :, y1:y2, x1:x2], LEVELS)


def pool_torch_backward(fmap: Any, boxes: np.ndarray) -> None:
    """torch's pool of each window, and the sum of the gradients."""
    total = peers.torch.zeros_like(fmap)
    for x1, y1, x2, y2 in boxes.tolist():
        part = fmap[:, :, y1:y2, x1:x2].detach().requires_grad_()
        peers.pyramid(part, LEVELS).sum().backward()
        total[:, :, y1:y2, x1:x2] += part.grad


def pool_torchvision(fmap: Any, boxes: Any) -> None:
    """torchvision's pool of regions at each level."""
    for n in LEVELS:
        peers.roi_pool(fmap, boxes, n)


def make_cases(height: int, width: int, dtype: str) -> list[timing.Case]:
    """Returns forward, and in float32 forward and backward, on one map."""
    boxes = draw_windows(height, width, _WINDOWS.value, _DRAWN.value)
    some = boxes[:: max(1, len(boxes) // 100)]
    scale = len(boxes) / len(some)
    plain = np.random.default_rng(1).normal(size=(height, width, _CHANNELS.value))
    fmap, on_device = jnp.asarray(plain, dtype), jnp.asarray(boxes)
    pool = jax.jit(functools.partial(windows.pool_windows, levels=LEVELS))
    pooled = pool(fmap, on_device)
    expected = pool_masked(fmap, some)
    np.testing.assert_array_equal(pool(fmap, some), expected)
    rivals = {"masked vmap": timing.Run(lambda: pool_masked(fmap, some), scale)}
    backward_rivals = {}
    if peers.has_torch():
        nchw = peers.tensor(fmap[None], dtype)
        rivals["torch, each window"] = timing.Run(
            peers.waited(lambda: pool_torch(nchw, some)), scale
        )
        if dtype == "float32":
            backward_rivals["torch, each window"] = timing.Run(
                peers.waited(lambda: pool_torch_backward(nchw, some)), scale
            )
        if peers.roi_pool and peers.device() == "cuda" and dtype == "float32":
            # Both corners of its boxes are inside; and it takes no bfloat16.
            batch = peers.tensor(np.insert(boxes - [0, 0, 1, 1], 0, 0, axis=1))
            contiguous = nchw.contiguous()
            rivals["torchvision roi_pool"] = timing.Run(
                peers.waited(lambda: pool_torchvision(contiguous, batch))
            )
    loop = compile_c() if dtype == "float32" and jax.default_backend() == "cpu" else None
    if loop:
        contiguous = np.ascontiguousarray(plain, np.float32)
        np.testing.assert_array_equal(loop(contiguous, boxes), pooled)
        rivals["C loop"] = timing.Run(lambda: loop(contiguous, boxes))
    # Reads the map, writes the result.
    write = jax.jit(lambda fmap: jnp.full(pooled.shape, fmap.max()))
    limit = timing.Run(lambda: write(fmap))
    name = f"{height}x{width} {dtype}"
    cases = [timing.Case(name, timing.Run(lambda: pool(fmap, on_device)), rivals, limit)]
    if dtype == "float32":
        grad = jax.jit(jax.value_and_grad(lambda fmap: pool(fmap, on_device).sum()))
        cases.append(
            timing.Case(f"{name}, backward too", timing.Run(lambda: grad(fmap)), backward_rivals)
        )
    return cases


def main(_: list[str]) -> None:
    rows = []
    for size in _SIZES.value:
        height, width = timing.numbers("sizes", size, "x", 2)
        for dtype in ("float32", "bfloat16"):
            for case in make_cases(height, width, dtype):
                rows.append(timing.measure(case, _ROUNDS.value))
    what = f"{_WINDOWS.value} windows ({_DRAWN.value}), {_CHANNELS.value} channels"
    timing.report(rows, what, "python -m benchmarks.windows", _OUTPUT.value)


if __name__ == "__main__":
    timing.run(main)
