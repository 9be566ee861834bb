"""What runs on the device: maps, pooled windows, and detections of an image.

Shapes: B images, one a device · U windows on distinct cells and R windows, both padded to a few
counts · P pooled features · F features of the SVMs' layer · K classes · M detections of a class,
padded.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from spp_jax.detection import boxes
from spp_jax.models import sppnet
from spp_jax.pooling import windows as pool_windows


@functools.partial(jax.jit, static_argnums=(0, 1))
def make_map(
    model: sppnet.SPPNet, name: str, variables: dict, batch: dict[str, jax.Array]
) -> jax.Array:
    """Returns the named map, (B, h, w, C), of `images` on a canvas and their `extents`."""
    extents = batch["extents"]
    maps: Any = model.apply(variables, batch["images"], extents=extents, method="maps")
    return maps[name]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def pool_maps(
    model: sppnet.SPPNet,
    pyramid: tuple[tuple[int, ...], Any],
    layer: str,
    variables: dict,
    maps: tuple[jax.Array, ...],
    batch: dict[str, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Returns float32 pooled features (B, U, P) of cells, and those of a layer (B, U, F).

    Args:
        model: the network.
        pyramid: levels, and what a bin holds.
        layer: "pool", which is the first result again, or "fc6", "fc7".
        variables: the network's.
        maps: one a scale, (B, h, w, C).
        batch: `cells` (B, U, 4) and `map_index` (B, U).
    """
    levels, reduce = pyramid

    # Mapped over images, not one pool of all: so devices that share a batch share no maps.
    def pool(maps: tuple[jax.Array, ...], cells: jax.Array, map_index: jax.Array) -> jax.Array:
        return pool_windows.pool_windows(maps, cells, levels, map_index=map_index, reduce=reduce)

    pooled = jax.vmap(pool)(maps, batch["cells"], batch["map_index"])
    found = pooled
    if layer != "pool":
        layers: Any = model.apply(variables, pooled, method="head_layers")
        found = layers[layer]
    return pooled.astype(jnp.float32), found.astype(jnp.float32)


@jax.jit
def apply_linear(weights: jax.Array, bias: jax.Array, features: jax.Array) -> jax.Array:
    """Returns features (R, F) @ weights (F, K) + bias (K,), as exact as float32 is."""
    return jnp.dot(features, weights, precision="highest") + bias[None]


def decode_deltas(windows: jax.Array, deltas: jax.Array) -> jax.Array:
    """Returns the boxes (R, K, 4) that deltas (R, K, 4) make of windows (R, 4)."""
    sides = (windows[:, 2:] - windows[:, :2])[:, None]
    centers = windows[:, None, :2] + sides / 2 + deltas[..., :2] * sides
    halves = jnp.exp(deltas[..., 2:]) * sides / 2
    return jnp.concatenate([centers - halves, centers + halves], axis=-1)


@functools.partial(jax.jit, static_argnames=("max_detections",))
def detect(
    parts: list[dict[str, Any]],
    windows: jax.Array,
    count: jax.Array,
    sides: jax.Array,
    min_score: jax.Array,
    nms_iou: jax.Array,
    *,
    max_detections: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns boxes (K, M, 4), scores (K, M) and which are detections (K, M), best first.

    Args:
        parts: of each detector {"svm": {"weights", "bias"}, "layer": (U, F), "row": (R,) of each
            window in it} and, where it moves windows, {"regressor": {"weights", "bias"}, "pool":
            (U, P)}.
        windows: (R, 4) pixels.
        count: of them that are windows; the others are padding.
        sides: (4,) width, height, width, height of the image, to which boxes are clipped.
        min_score, nms_iou, max_detections: as `boxes.suppress`.
    """
    is_window = (jnp.arange(windows.shape[0], dtype=count.dtype) < count)[:, None]
    all_boxes, all_scores = [], []
    for part in parts:
        scores = apply_linear(part["svm"]["weights"], part["svm"]["bias"], part["layer"])
        scores = jnp.where(is_window, scores[part["row"]], -jnp.inf)
        moved = jnp.broadcast_to(windows[:, None], (*scores.shape, 4))
        if "regressor" in part:
            weights, bias = part["regressor"]["weights"], part["regressor"]["bias"]
            deltas = jnp.einsum("up,pkc->ukc", part["pool"], weights, precision="highest")
            deltas += bias[None]
            moved = decode_deltas(windows, deltas[part["row"]])
        all_scores.append(scores)
        all_boxes.append(jnp.clip(moved, 0, sides[None, None]))
    found, scores = jnp.concatenate(all_boxes), jnp.concatenate(all_scores)
    kept = boxes.suppress(
        found, scores, iou_threshold=nms_iou, score_threshold=min_score, max_kept=max_detections
    )
    classes = jnp.arange(scores.shape[1])[:, None]
    return found[kept.row, classes], scores[kept.row, classes], kept.is_kept
