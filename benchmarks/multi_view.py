"""96 views of an image pooled from its maps against 96 crops run one by one (section 3.1.5).

    python -m benchmarks.multi_view --output=docs/results/speed_multi_view.json

Maps of the whole image and its mirror image at six scales, and on them 18 windows a scale, 6 at the
smallest; or the same views cut out of the resized images. Weights are random.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import steps, timing
from spp_jax.models import sppnet, topology

_NETWORKS = flags.DEFINE_list(
    "networks", ["zf5", "overfeat7"], "Names of spp_jax.make_model, or tiny."
)
_SIZE = flags.DEFINE_list("size", ["375", "500"], "Height and width of the image, pixels.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the networks.")
_SCALES = flags.DEFINE_list(  # the paper's, also if the package's preset changes
    "scales",
    ["224", "256", "300", "360", "448", "560"],
    "Shorter sides of the image at six scales.",
)
_BATCH = flags.DEFINE_integer("batch", 96, "Crops run at once.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each is run, in turns.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")


def place_views(height: int, width: int, backbone: topology.Backbone) -> np.ndarray:
    """Returns (V, 4) cells of an image's views: of the middle, corners and mid-sides, or three."""
    tops = np.linspace(0, height - backbone.size, 3 if height > backbone.size else 1)
    lefts = np.linspace(0, width - backbone.size, 3 if width > backbone.size else 1)
    y, x = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    shown = np.stack([x, y, x + backbone.size, y + backbone.size], axis=1)
    return topology.window_cells(backbone, backbone.layers[-1].name, shown, (height, width))


def make_case(name: str, height: int, width: int) -> tuple[timing.Case, float]:
    """Returns the two ways, and how many times as many pixels the crops are."""
    model = steps.make_model(name, dtype=_DTYPE.value)
    size = model.backbone.size
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3), jnp.uint8))
    variables = sppnet.cast_params(model, variables)
    rng = np.random.default_rng(0)
    whole, cells, num_views = [], [], 0
    for scale in timing.numbers("scales", ",".join(_SCALES.value), ",", 6):
        rows, columns = (round(x * scale / min(height, width)) for x in (height, width))
        image = rng.integers(0, 256, (1, rows, columns, 3)).astype(np.uint8)
        whole.append(jax.device_put(np.concatenate([image, image[:, :, ::-1]])))
        # The mirror image's windows are those of the image, mirrored: as many, and of their sizes.
        views = place_views(rows, columns, model.backbone)
        cells.append(jax.device_put(np.stack([views, views])))
        num_views += 2 * len(views)
    crops = rng.integers(0, 256, (_BATCH.value, size, size, 3)).astype(np.uint8)
    crops = jax.device_put(crops)

    @jax.jit
    def from_maps(x: jax.Array, windows: jax.Array) -> Any:
        return model.apply(variables, x, windows, method="window_logits")

    from_crops = jax.jit(lambda x: model.apply(variables, x))
    case = timing.Case(
        f"{name}, {num_views} views",
        timing.Run(lambda: [from_maps(x, w) for x, w in zip(whole, cells)]),
        {f"{num_views} crops": timing.Run(lambda: from_crops(crops), num_views / _BATCH.value)},
    )
    return case, num_views * size**2 / sum(x[..., 0].size for x in whole)


def main(_: list[str]) -> None:
    height, width = timing.numbers("size", ",".join(_SIZE.value), ",", 2)
    rows = []
    for name in _NETWORKS.value:
        case, pixels = make_case(name, height, width)
        rows.append(timing.measure(case, _ROUNDS.value) | {"times_as_many_pixels": pixels})
        print(f"{case.name}: the crops are {pixels:.2f} times as many pixels", flush=True)
    what = f"an image of {height}x{width}, {_DTYPE.value}"
    timing.report(rows, what, "python -m benchmarks.multi_view", _OUTPUT.value)


if __name__ == "__main__":
    timing.run(main)
