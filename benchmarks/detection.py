"""Detection: time per image by stage, and against the same network run once per window (Table 10).

    python -m benchmarks.detection --output=docs/results/speed_detection.json

Weights are random: they do not matter to time. Windows are drawn as proposals are: log-uniform
sides, anywhere. A network run per window warps each to the network's size, as R-CNN does; it is
timed on some windows, and its time for all is in proportion. Proposals and resizing are timed where
OpenCV is installed; nothing else here needs it. With `--fc6_rank` the head is timed once more, fc6
as two matrices of this rank (config.test.fc6_rank).
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import facts, steps, timing
from spp_jax import errors
from spp_jax.detection import boxes, device
from spp_jax.models import sppnet, topology

_NETWORK = flags.DEFINE_string("network", "zf5", "A name of spp_jax.make_model, or tiny.")
_SIZE = flags.DEFINE_list("size", ["375", "500"], "Height and width of the image, pixels.")
_SCALES = flags.DEFINE_list(
    "scales", ["480", "576", "688", "864", "1200"], "Shorter sides of an image at five scales."
)
_WINDOWS = flags.DEFINE_integer("windows", 2000, "Windows of the image.", lower_bound=1)
_ALONE = flags.DEFINE_integer("alone", 32, "Windows run one by one.", lower_bound=1)
_CLASSES = flags.DEFINE_integer("classes", 20, "SVMs.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each is run, in turns.", lower_bound=1)
_RANK = flags.DEFINE_integer("fc6_rank", 0, "Of a smaller fc6; 0: none is timed.", lower_bound=0)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the network.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

SMALLER = "smaller head"


def main(_: list[str]) -> None:
    model = steps.make_model(_NETWORK.value, dtype=_DTYPE.value)
    size = model.backbone.size
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3), jnp.uint8))
    height, width = timing.numbers("size", ",".join(_SIZE.value), ",", 2)
    rng = np.random.default_rng(0)
    windows = draw_windows(rng, height, width, _WINDOWS.value)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    scales = timing.numbers("scales", ",".join(_SCALES.value), ",", 5)
    kinds = {"1 scale": scales[2:3], "5 scales": scales}
    networks = {"head": (model, variables)}
    if _RANK.value:
        try:
            networks[SMALLER] = sppnet.factor_fc6(model, variables, _RANK.value)
        except ValueError as e:
            raise errors.InputError(f"--fc6_rank: {e}") from e
    # Parameters are cast once, as detectors cast theirs.
    heads = {name: (m, sppnet.cast_params(m, v)) for name, (m, v) in networks.items()}
    stages = {kind: make_stages(heads, image, windows, chosen) for kind, chosen in kinds.items()}
    runs = {
        f"{kind}: {name}": timing.Run(call)
        for kind, calls in stages.items()
        for name, call in calls.items()
    }
    runs["per window"] = make_alone(*heads["head"], _ALONE.value, len(windows))
    seconds = timing.alternate(runs, _ROUNDS.value)
    times = {
        kind: {name: seconds[f"{kind}: {name}"] for name in calls} for kind, calls in stages.items()
    }
    report(times, seconds["per window"], len(windows))


def draw_windows(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """Returns (count, 4) windows of an image, right and bottom exclusive."""
    sides = np.exp(rng.uniform(np.log(20), np.log([width, height]), (count, 2)))
    corner = rng.uniform(0, [width, height] - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def make_stages(
    heads: dict[str, tuple[Any, Any]],
    image: np.ndarray,
    windows: np.ndarray,
    scales: tuple[int, ...],
) -> dict[str, Callable[[], Any]]:
    """Returns what each stage runs; later ones start from results of the earlier ones.

    `heads` are {stage: (model, variables)}, which differ in fc6.
    """
    model, variables = heads["head"]
    height, width, _ = image.shape
    layer = model.backbone.layers[-1].name
    shown = [
        (round(height * s / min(height, width)), round(width * s / min(height, width)))
        for s in scales
    ]
    resized = [np.zeros((1, *extent, 3), np.uint8) for extent in shown]
    placed = _place(model.backbone, windows, np.asarray(scales) / min(height, width), shown)
    pyramid = (tuple(model.levels), model.reduce)

    def make_maps() -> tuple[jax.Array, ...]:
        return tuple(
            device.make_map(
                model,
                layer,
                variables,
                {"images": x, "extents": np.asarray([x.shape[1:3]], np.int32)},
            )
            for x in resized
        )

    maps = make_maps()
    pooled, _ = device.pool_maps(model, pyramid, "pool", variables, maps, placed)

    def make_head(model: Any, variables: Any) -> Callable[[], Any]:
        head = jax.jit(lambda variables, x: model.apply(variables, x, method="head_layers"))
        return lambda: head(variables, pooled[0])

    run_heads = {name: make_head(*network) for name, network in heads.items()}
    features = run_heads["head"]().get("fc7", pooled[0])
    rng = np.random.default_rng(1)
    svm = {
        "weights": rng.normal(0, 1, (features.shape[1], _CLASSES.value)).astype(np.float32),
        "bias": np.zeros(_CLASSES.value, np.float32),
    }
    svm["weights"] /= np.sqrt(np.square(np.asarray(features)).sum(axis=1).mean())
    regressor = {
        "weights": np.zeros((pooled.shape[2], _CLASSES.value, 4), np.float32),
        "bias": np.zeros((_CLASSES.value, 4), np.float32),
    }
    part = {
        **{"svm": svm, "layer": features, "row": np.arange(len(windows), dtype=np.int32)},
        **{"regressor": regressor, "pool": pooled[0]},
    }
    part = jax.device_put(part)

    def detect() -> Any:
        return device.detect(
            [part],
            windows,
            np.int32(len(windows)),
            np.asarray([width, height, width, height], np.float32),
            np.float32(-1.5),
            np.float32(0.3),
            max_detections=100,
        )

    def suppress() -> Any:
        return boxes.nms(windows, scores, iou_threshold=0.3, score_threshold=-1.5, max_kept=100)

    scores = device.apply_linear(svm["weights"], svm["bias"], features)
    calls: dict[str, Callable[[], Any]] = {}
    try:
        import cv2

        if len(scales) == 1:
            calls["proposals"] = lambda: _find_windows(image)
        sizes = [extent[::-1] for extent in shown]
        calls["resize"] = lambda: [cv2.resize(image, extent) for extent in sizes]
    except ImportError:
        print("OpenCV is not installed: proposals and resizing are not timed")
    return calls | {
        "convolutions": make_maps,
        "pooling": lambda: device.pool_maps(model, pyramid, "pool", variables, maps, placed),
        **run_heads,
        "SVMs, regression, NMS": detect,
        "NMS alone": suppress,
    }


def _place(
    backbone: topology.Backbone,
    windows: np.ndarray,
    factors: np.ndarray,
    shown: list[tuple[int, int]],
) -> dict[str, np.ndarray]:
    """Returns the cells of windows and the index of each one's map, as `device.pool_maps` takes.

    `factors` enlarge the image to its sizes `shown`.
    """
    pixels = np.prod(windows[:, 2:] - windows[:, :2], axis=1)[:, None]
    chosen = np.abs(pixels * factors**2 - backbone.size**2).argmin(axis=1)
    cells = np.zeros((len(windows), 4), np.int32)
    for number, extent in enumerate(shown):
        rows = chosen == number
        cells[rows] = topology.window_cells(
            backbone, backbone.layers[-1].name, windows[rows] * factors[number], extent
        )
    return {"cells": cells[None], "map_index": chosen[None].astype(np.int32)}


def _find_windows(image: np.ndarray) -> np.ndarray:
    from spp_jax.detection.proposals import search

    return search.find_windows(image, search.Settings("fast", 2000, 20, 500))


def make_alone(model: Any, variables: Any, count: int, num_windows: int) -> timing.Run:
    """Returns a run of the network on `count` of the windows, each warped to its size."""
    batch = min(count, 16 if jax.default_backend() == "cpu" else 128)
    num_batches = -(-count // batch)
    images = np.zeros((batch, model.backbone.size, model.backbone.size, 3), np.uint8)
    run = jax.jit(lambda x: model.apply(variables, x))
    return timing.Run(
        lambda: [run(images) for _ in range(num_batches)], num_windows / (num_batches * batch)
    )


def report(times: dict[str, dict[str, list[float]]], alone: list[float], num_windows: int) -> None:
    """Prints the table and writes the JSON."""
    result: dict[str, Any] = {
        "facts": facts.facts(timing.given("python -m benchmarks.detection"), "jax", "flax"),
        "device": jax.devices()[0].device_kind,
        "network": _NETWORK.value,
        "dtype": _DTYPE.value,
        "size": list(map(int, _SIZE.value)),
        "windows": num_windows,
        "per_window_seconds": statistics.median(alone),
        "kinds": {},
    }
    names = list(dict.fromkeys(name for seconds in times.values() for name in seconds))
    print(f"ms an image | {' | '.join(names)} | total without proposals | x per window (spread)")
    for kind, seconds in times.items():
        medians = {name: statistics.median(seconds[name]) for name in seconds}
        shown = [f"{1e3 * medians[n]:.1f}" if n in medians else "-" for n in names]
        for head in sorted({"head", SMALLER} & seconds.keys()):
            # Suppression is in the stage before as well.
            left_out = {"proposals", "NMS alone", "head", SMALLER} - {head}
            on_device = [n for n in seconds if n not in left_out]
            totals = [sum(seconds[n][i] for n in on_device) for i in range(_ROUNDS.value)]
            ratio, least, greatest = timing.ratio(alone, totals)
            row = kind if head == "head" else f"{kind}, {head}"
            print(
                f"{row} | {' | '.join(shown)} | {1e3 * statistics.median(totals):.1f} | "
                f"{ratio:.1f} ({least:.1f}-{greatest:.1f})"
            )
            result["kinds"][row] = {
                "seconds": medians,
                "total_seconds": statistics.median(totals),
                "ratio": ratio,
                "ratio_range": [least, greatest],
            }
    print(f"once per window: {statistics.median(alone):.1f} s")
    if _OUTPUT.value:
        facts.write(_OUTPUT.value, result)


if __name__ == "__main__":
    timing.run(main)
