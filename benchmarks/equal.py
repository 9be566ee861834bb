"""The device's results against those of the CPU beside it, and against answers worked out by hand.

    python -m benchmarks.equal --output=FILE

Pooling compares numbers and must be exact; of gradients the order of sums may differ. Maps, logits
and one training step are computed on the device in three precisions, and by the CPU in float32 with
the highest one. A difference beyond its tolerance is printed, and the exit code is then 1.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from benchmarks import facts, steps, timing
from spp_jax.pooling import max_pool, pyramid, windows
from spp_jax.training import state as state_lib
from spp_jax.training import steps as steps_lib

_NETWORKS = flags.DEFINE_list(
    "networks", ["digits", "zf5_small"], "Names of spp_jax.make_model, or tiny."
)
_BATCH = flags.DEFINE_integer("batch", 8, "Images of a step.", lower_bound=1)
_PRECISIONS = flags.DEFINE_list("precisions", ["highest", "default", "bfloat16"], "Of the device.")
_MAP = flags.DEFINE_list("map", ["38", "50"], "Height and width of the pooled maps, cells.")
_WINDOWS = flags.DEFINE_integer("windows", 500, "Windows pooled from a map.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Precision:
    """How the device computes a network, and how far it may then be from the CPU's float32.

    Attributes:
        name: of it.
        dtype: of the network.
        products: `jax.default_matmul_precision`.
        maps: largest difference of a map, the logits or the loss, as a share of its largest number.
        gradients: largest difference of a parameter's gradient, as a share of its length.
    """

    name: str
    dtype: str
    products: str
    maps: float
    gradients: float


# A maximum of two numbers closer than their rounding may fall to the other one, whose cell then
# gets the gradient: so gradients differ by far more than maps. Measured on a CPU, the networks
# digits and zf5_small, maps and gradients: parameters changed by one rounding 2e-6 and 1e-6; inputs
# of products cut to TensorFloat-32's 10 bits 1e-3 and 7e-2; bfloat16 1e-2 and 3e-1. The
# tolerances are two to three times that, and of "highest" more: convolutions by Winograd's or
# Fourier's way lose two digits, and one maximum that falls to another cell changes a gradient by
# 1e-2. A wrong gradient differs by about 1.
PRECISIONS = (
    Precision("highest", "float32", "highest", 1e-4, 2e-2),
    Precision("default", "float32", "default", 4e-3, 2e-1),
    Precision("bfloat16", "bfloat16", "default", 3e-2, 5e-1),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        case: what was compared.
        error: the largest difference, as a share of the expected numbers' size.
        tolerance: what it may be.
    """

    case: str
    error: float
    tolerance: float

    def __post_init__(self):
        # NaN compares as neither: it must not pass.
        object.__setattr__(self, "error", float(np.nan_to_num(self.error, nan=np.inf)))


def largest(actual: Any, expected: Any) -> float:
    """Returns the largest difference of two arrays, as a share of the largest expected number."""
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    if actual.shape != expected.shape:
        return np.inf
    difference = np.abs(actual - expected).max()
    return float(difference / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def length(actual: Any, expected: Any) -> float:
    """Returns the length of the difference of two arrays, as a share of the expected one's."""
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    norm = np.linalg.norm(expected)
    return float(np.linalg.norm(actual - expected) / max(norm, np.finfo(np.float32).tiny))


def compare_literals(device: Any) -> list[Row]:
    """Returns how far pooling on the device is from answers worked out by hand."""

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return jax.jit(function)(*jax.device_put(arguments, device))

    def pool_corner(fmap: jax.Array) -> jax.Array:
        return windows.pool_windows(fmap, np.asarray([[1, 1, 4, 3]]), (1,)).sum()

    def pool_strided(x: jax.Array) -> jax.Array:
        return max_pool.max_pool(x, 2, 2).sum()

    square = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    oblong = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    boxes = np.asarray([[0, 0, 4, 3], [1, 0, 3, 2], [2, 2, 2, 3]], np.int32)
    pooled = [[5, 7, 9, 11, 11], [1, 2, 5, 6, 6], [0, 0, 0, 0, 0]]
    corner = np.zeros((4, 4))
    corner[2, 3] = 1  # the largest of rows 1 and 2, columns 1 to 3
    strided = np.zeros((4, 4))
    strided[1::2, 1::2] = 1
    ties = np.zeros((4, 4))
    ties[::2, ::2] = 1  # of equal cells the first one gets the gradient
    actual = {
        "spatial_pyramid_pool": (
            run(lambda x: pyramid.spatial_pyramid_pool(x, (1, 2)), square),
            [[15, 5, 7, 13, 15]],
        ),
        "pool_windows": (run(lambda x: windows.pool_windows(x, boxes, (2, 1)), oblong), pooled),
        "pool_windows, gradient": (run(jax.grad(pool_corner), square[0])[..., 0], corner),
        "max_pool": (
            run(lambda x: max_pool.max_pool(x, 2, 2), square)[0, :, :, 0],
            [[5, 7], [13, 15]],
        ),
        "max_pool, gradient": (run(jax.grad(pool_strided), square)[0, :, :, 0], strided),
        "max_pool, gradient of ties": (
            run(jax.grad(pool_strided), np.ones_like(square))[0, :, :, 0],
            ties,
        ),
    }
    return [Row(f"by hand: {name}", largest(*pair), 0) for name, pair in actual.items()]


def compare_pools(
    device: Any, cpu: Any, extent: tuple[int, ...], count: int, dtypes: Sequence[str]
) -> list[Row]:
    """Returns how far pools of random maps on the device are from the CPU's, with gradients.

    Args:
        device: the one that is tried.
        cpu: a device of the CPU.
        extent: height and width of the maps, cells.
        count: windows pooled from one of them.
        dtypes: of the maps.
    """
    height, width = extent
    rng = np.random.default_rng(0)
    fmaps = rng.normal(size=(2, height, width, 8))
    corners = np.sort(rng.integers(0, [width + 1, height + 1], (count, 2, 2)), axis=1)
    boxes = corners.reshape(count, 4).astype(np.int32)
    pools = {
        "spatial_pyramid_pool": lambda x, boxes: pyramid.spatial_pyramid_pool(x),
        "pool_windows": lambda x, boxes: windows.pool_windows(x[0], boxes),
        "max_pool": lambda x, boxes: max_pool.max_pool(x, 3, 2, ceil_mode=True),
    }
    rows = []
    for name, pool in pools.items():

        def weighted(x: jax.Array, boxes: jax.Array, pool: Any = pool) -> tuple[Any, jax.Array]:
            pooled = pool(x, boxes)
            weights = jnp.cos(jnp.arange(pooled.size, dtype=jnp.float32).reshape(pooled.shape))
            return (pooled * weights).sum(dtype=jnp.float32), pooled

        run = jax.jit(jax.grad(weighted, has_aux=True))
        for dtype in dtypes:
            x = jnp.asarray(fmaps, dtype)
            (gradient, pooled), (wanted, expected) = (
                run(*jax.device_put((x, boxes), where)) for where in (device, cpu)
            )
            rows.append(Row(f"{name} {dtype}", largest(pooled, expected), 0))
            # A cell's gradient sums what up to all windows send it, in any order: a few roundings
            # of numbers of the largest one's size.
            tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
            rows.append(Row(f"{name} {dtype}, gradient", largest(gradient, wanted), tolerance))
    return rows


def compare_network(
    device: Any, cpu: Any, name: str, count: int, precisions: Sequence[Precision]
) -> list[Row]:
    """Returns how far a network's maps, loss and gradients on the device are from the CPU's."""
    model = steps.make_model(name, num_classes=NUM_CLASSES)
    side = model.backbone.size
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8),
        "label": np.arange(count, dtype=np.int32) % NUM_CLASSES,
        "weight": np.ones(count, np.float32),
    }
    # An optimizer whose state is the gradient.
    optimizer = optax.with_extra_args_support(optax.trace(0.0))
    mesh = jax.sharding.Mesh(np.asarray([cpu]), ("data",))
    state = jax.device_get(state_lib.init_state(model, optimizer, 0, side, mesh))

    def run(where: Any, precision: Precision) -> tuple[dict, float, dict]:
        """Returns the maps, the loss, and the gradients of a step."""
        model = steps.make_model(name, num_classes=NUM_CLASSES, dtype=precision.dtype)
        step = steps_lib.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0.0)
        with jax.default_matmul_precision(precision.products):
            placed = jax.device_put((state, batch), where)
            maps = jax.jit(lambda state, x: model.apply(state.variables, x, method="maps"))(
                placed[0], placed[1]["image"]
            )
            new, metrics = jax.jit(step)(*placed)
        named = jax.tree_util.tree_leaves_with_path(jax.device_get(new.opt_state.trace))
        gradients = {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in named}
        return jax.device_get(maps), float(metrics["loss"]), gradients

    maps, loss, gradients = run(cpu, PRECISIONS[0])
    rows = []
    for precision in precisions:
        actual, own_loss, own = run(device, precision)
        kind = f"{name}, {precision.name}"
        rows += [
            Row(f"{kind}: {layer}", largest(actual[layer], maps[layer]), precision.maps)
            for layer in maps
        ]
        rows.append(Row(f"{kind}: loss", largest(own_loss, loss), precision.maps))
        rows += [
            Row(
                f"{kind}: gradient of {path}",
                length(own[path], gradients[path]),
                precision.gradients,
            )
            for path in gradients
        ]
    return rows


def judge(rows: list[Row]) -> list[str]:
    """Prints the worst of each kind of comparison; returns those beyond their tolerance."""
    worst: dict[str, Row] = {}
    for row in rows:
        kind = row.case.partition(":")[0] + (", gradients" if "gradient of" in row.case else "")
        if kind not in worst or row.error > worst[kind].error:
            worst[kind] = row
    for kind, row in worst.items():
        print(f"{kind}: at most {row.error:.1e} of {row.tolerance:.0e} ({row.case})")
    wrong = [row for row in rows if row.error > row.tolerance]
    return [f"{row.case} differs by {row.error:.1e}, allowed {row.tolerance:.0e}" for row in wrong]


def main(_: list[str]) -> None:
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    extent = timing.numbers("map", ",".join(_MAP.value), ",", 2)
    precisions = [p for p in PRECISIONS if p.name in _PRECISIONS.value]
    dtypes = sorted({p.dtype for p in precisions})
    rows = compare_literals(device)
    rows += compare_pools(device, cpu, extent, _WINDOWS.value, dtypes)
    for name in _NETWORKS.value:
        rows += compare_network(device, cpu, name, _BATCH.value, precisions)
    wrong = judge(rows)
    if _OUTPUT.value:
        origin = facts.facts(timing.given("python -m benchmarks.equal"), "jax", "flax")
        compared = [dataclasses.asdict(row) for row in rows]
        facts.write(_OUTPUT.value, {**origin, "device": device.device_kind, "compared": compared})
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    timing.run(main)
