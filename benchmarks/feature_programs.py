"""Features of images of many sizes: planned canvases against a program for every distinct size.

    python -m benchmarks.feature_programs --checkpoint=DIR --images=FOLDER
        --output=docs/results/feature_programs.json

Each variant extracts all images once with nothing compiled, then several times, taking turns, with
its programs at hand. The images are decoded and resized beforehand: that part is the same for all.
"""

import statistics
import time

import jax
import numpy as np
from absl import app, flags

import spp_jax
from benchmarks import facts
from spp_jax.canvas import planning
from spp_jax.data import images
from spp_jax.data.sources import folders
from spp_jax.evaluation import features

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of images.", required=True)
_OUTPUT = flags.DEFINE_string("output", "docs/results/feature_programs.json", "JSON to write.")
_LAYER = flags.DEFINE_string("layer", "inception_5b", "The map that is pooled by {3, 2, 1}.")
_SCALE = flags.DEFINE_integer("scale", 224, "Shorter side, pixels.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times each variant runs compiled.", lower_bound=1)

# Name: most programs, images of a batch. As many programs as sizes is no plan at all.
VARIANTS = {
    "4 planned canvases": (4, 32),
    "8 planned canvases": (8, 32),
    "12 planned canvases": (12, 32),
    "a program a size, batches": (10**6, 32),
    "a program a size, one image at a time": (10**6, 1),
}


def main(_: list[str]) -> None:
    # Programs of earlier runs must not count as compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    model, variables, _config = spp_jax.load(_CHECKPOINT.value)
    source = folders.scan_images(_IMAGES.value)
    shown = [
        images.resize_shorter(images.decode(e.data, e.name), _SCALE.value, kernel="triangle")
        for e in (source[i] for i in range(len(source)))
    ]
    sizes = {i: (image.shape[0], image.shape[1]) for i, image in enumerate(shown)}

    def extract(name: str) -> tuple[float, np.ndarray]:
        num_programs, batch_size = VARIANTS[name]
        start = time.perf_counter()
        values = features.extract(
            model, variables, shown, _LAYER.value, (3, 2, 1),
            scale=None, num_programs=num_programs, batch_size=batch_size,
        )  # fmt: skip
        return time.perf_counter() - start, values

    cold, reference = {}, None
    for name in VARIANTS:
        jax.clear_caches()
        cold[name], values = extract(name)
        reference = values if reference is None else reference
        worst = float(np.max(np.abs(values - reference)))
        print(f"{name}: cold {cold[name]:.1f} s, features within {worst:.1e}", flush=True)
        if worst > 1e-3 * float(np.max(reference)):
            raise SystemExit(f"{name} gives other features")
    for name in VARIANTS:  # the last one's alone are still there
        extract(name)
    warm: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _round in range(_ROUNDS.value):
        for name in VARIANTS:
            warm[name].append(extract(name)[0])
    rows = []
    for name, (num_programs, batch_size) in VARIANTS.items():
        batches = planning.plan(sizes, num_programs, batch_size * 224**2, jax.device_count())
        rows.append(
            {
                "variant": name,
                "num_programs": len({(b.canvas, b.num_rows) for b in batches}),
                "padded_share": planning.padded_share(batches, sizes),
                "cold_seconds": cold[name],
                "warm_seconds": warm[name],
            }
        )
    command = "python -m benchmarks.feature_programs --checkpoint=DIR --images=FOLDER"
    facts.write(
        _OUTPUT.value,
        {
            **facts.facts(command, "jax"),
            "network": model.backbone.name,
            "num_images": len(shown),
            "num_sizes": len(set(sizes.values())),
            "rows": rows,
        },
    )
    print(table(rows, len(shown)))


def table(rows: list[dict], num_images: int) -> str:
    """Returns a Markdown table; ratios are to the last row, of runs beside each other."""
    lines = [
        "| canvases | programs | padded pixels % | cold, images/s | compiled, images/s | "
        "times as fast: cold | compiled |",
        "|---|---|---|---|---|---|---|",
    ]
    last = rows[-1]
    for row in rows:
        ratios = [b / a for a, b in zip(row["warm_seconds"], last["warm_seconds"])]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        lines.append(
            f"| {row['variant']} | {row['num_programs']} | {100 * row['padded_share']:.1f} | "
            f"{num_images / row['cold_seconds']:.2f} | "
            f"{num_images / statistics.median(row['warm_seconds']):.1f} | "
            f"{last['cold_seconds'] / row['cold_seconds']:.1f} | "
            f"{statistics.median(ratios):.2f} ({spread}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
