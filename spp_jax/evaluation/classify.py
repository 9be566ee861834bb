"""Scores a classifier: every example exactly once, the last partial batch included.

Shapes: b rows of a batch · (H, W) canvas · K classes.
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress

from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.data import pipeline, sources
from spp_jax.evaluation import views
from spp_jax.models import sppnet


def evaluate(
    model: sppnet.SPPNet,
    variables: dict,
    config: config_lib.Config,
    source: sources.Source,
    protocol: str,
    *,
    has_progress_bar: bool = False,
) -> dict[str, Any]:
    """Scores one view of every example.

    Images of one canvas are scored together. In protocol "full" a canvas holds images of several
    sizes, each with its extent, so that each gets the result it would get alone; the compiled
    programs are as many as the canvases met.

    Args:
        model: the network.
        variables: its parameters, on one device or on each of several.
        config: of the run; its data.*, eval.* and train.sizes[0] make the views.
        source: the examples.
        protocol: of `config.PROTOCOLS`.
        has_progress_bar: whether to show one on the console.

    Returns:
        protocol, top1, top5 (shares; top5 counts the first K of fewer classes), loss (mean cross
        entropy), num_examples (scored), num_refused and refused (sentences of unreadable images),
        scale, size, num_canvases, padded_share (of the pixels computed), seconds.

    Raises:
        InputError: the network or the config does not allow the protocol.
    """
    config_lib.check_protocol(config, protocol)
    start = time.monotonic()
    size = config.train.sizes[0]
    scale = config.data.shorter_side
    if protocol == "full":
        scale = config.eval.scale or scale
    batch_size = config.eval.batch_size or config.data.batch_size
    num_pixels = batch_size * (scale if protocol == "full" else size) ** 2
    view = views.View(protocol, scale, size)
    examples = pipeline.eval_examples(source, view, config.data.num_workers)

    mesh = sharding.make_mesh()
    variables = sharding.put_replicated(variables, mesh)
    waiting: dict[tuple[int, int], list[pipeline.EvalExample]] = {}
    refused: list[str] = []
    sums: list[dict[str, jax.Array]] = []
    computed = 0

    def score(canvas: tuple[int, int], num_rows: int) -> int:
        batch = _make_batch(waiting.pop(canvas), canvas, num_rows, protocol == "full")
        sums.append(_score(model, variables, sharding.put_batch(batch, mesh)))
        return num_rows * canvas[0] * canvas[1]

    used = 0
    canvases: dict[tuple[int, int], int] = {}
    bar = rich.progress.track(
        examples, f"protocol {protocol}", len(source), disable=not has_progress_bar
    )
    for example in bar:
        if example.refused:
            refused.append(example.refused)
            continue
        height, width = example.image.shape[:2]
        used += height * width
        step = config.eval.canvas_step if protocol == "full" else 1
        canvas = views.canvas(height, width, step)
        # Large canvases go in smaller batches, so that all need about the same memory.
        num_rows = max(1, num_pixels // (canvas[0] * canvas[1]) // mesh.size) * mesh.size
        canvases[canvas] = num_rows
        waiting.setdefault(canvas, []).append(example)
        if len(waiting[canvas]) == num_rows:
            computed += score(canvas, num_rows)
    for canvas in list(waiting):
        computed += score(canvas, canvases[canvas])

    total = dict.fromkeys(("loss", "top1", "top5", "weight"), 0.0)
    for batch_sums in jax.device_get(sums):
        for name, value in batch_sums.items():
            total[name] += float(value)
    count = round(total.pop("weight"))
    return {
        "protocol": protocol,
        **{name: value / max(count, 1) for name, value in total.items()},
        "num_examples": count,
        "num_refused": len(refused),
        "refused": refused,
        "scale": scale,
        "size": size,
        "num_canvases": len(canvases),
        "padded_share": 1 - used / max(computed, 1),
        "seconds": time.monotonic() - start,
    }


def _make_batch(
    examples: list[pipeline.EvalExample], canvas: tuple[int, int], num_rows: int, has_extents: bool
) -> dict[str, np.ndarray]:
    """Puts images into the upper left corners of canvases; missing rows get weight 0."""
    batch = {
        "image": np.zeros((num_rows, *canvas, 3), np.uint8),
        "label": np.zeros(num_rows, np.int32),
        "weight": np.zeros(num_rows, np.float32),
    }
    extents = np.tile(np.asarray(canvas, np.int32), (num_rows, 1))
    for row, example in enumerate(examples):
        height, width = example.image.shape[:2]
        batch["image"][row, :height, :width] = example.image
        batch["label"][row] = example.label
        batch["weight"][row] = 1
        extents[row] = height, width
    return batch | ({"extents": extents} if has_extents else {})


@functools.partial(jax.jit, static_argnums=0)
def _score(model: sppnet.SPPNet, variables: dict, batch: dict) -> dict[str, jax.Array]:
    logits: Any = model.apply(variables, batch["image"], extents=batch.get("extents"))
    labels, weights = batch["label"], batch["weight"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    rank = ranks(logits, labels)
    return {
        "loss": jnp.sum(jnp.where(weights > 0, losses, 0)),
        "top1": jnp.sum((rank < 1) * weights),
        "top5": jnp.sum((rank < 5) * weights),
        "weight": jnp.sum(weights),
    }


def ranks(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns how many classes stand before the label's, (b,), of logits (b, K).

    Equal logits stand in the order of their classes, and a logit that is not a number stands
    before all others, so a broken network is not taken for a right one.
    """
    mine = jnp.take_along_axis(logits, labels[:, None], axis=1)
    is_earlier = jnp.arange(logits.shape[1]) < labels[:, None]
    is_before = (logits > mine) | ((logits == mine) & is_earlier) | jnp.isnan(logits)
    # A label's own NaN counts as well: its rank is then never 0.
    return jnp.sum(is_before, axis=1)
