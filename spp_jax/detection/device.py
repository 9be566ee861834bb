"""Detection's programs on the device: maps, features of windows, and an image's detections.

Shapes: B images, one per device · R windows of an image · U distinct cells of these windows, R and
U padded to a few counts · P pooled features · F features of the SVMs' layer · K classes ·
M detections per class, padded.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spp_jax.detection import boxes
from spp_jax.models import sppnet
from spp_jax.pooling import windows as pool_windows


@functools.partial(jax.jit, static_argnums=(0, 1))
def make_map(
    model: sppnet.SPPNet, name: str, variables: Mapping[str, Any], batch: dict[str, jax.Array]
) -> jax.Array:
    """Returns the named map, (B, h, w, C), of images on a canvas.

    Args:
        model: the network.
        name: of the map.
        variables: the network's.
        batch: `images` (B, H, W, 3) uint8 and their `extents` (B, 2), (height, width) in pixels.
    """
    extents = batch["extents"]
    maps: Any = model.apply(variables, batch["images"], extents=extents, method="maps")
    return maps[name]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def pool_maps(
    model: sppnet.SPPNet,
    pyramid: tuple[tuple[int, ...], Any],
    layer: str,
    variables: Mapping[str, Any],
    maps: tuple[jax.Array, ...],
    batch: dict[str, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Returns the pooled features (B, U, P) of cells, and a layer's features (B, U, F), float32.

    Args:
        model: the network.
        pyramid: levels, and the reduction of each bin, "max" or "mean".
        layer: "fc6" or "fc7"; "pool" returns the pooled features twice.
        variables: the network's.
        maps: one per scale, (B, h, w, C).
        batch: `cells` (B, U, 4), and `map_index` (B, U), the index in `maps` of each one's map.
    """
    levels, reduce = pyramid

    # Mapped over images, so that devices that share a batch need none of each other's maps.
    def pool(maps: tuple[jax.Array, ...], cells: jax.Array, map_index: jax.Array) -> jax.Array:
        return pool_windows.pool_windows(maps, cells, levels, map_index=map_index, reduce=reduce)

    pooled = jax.vmap(pool)(maps, batch["cells"], batch["map_index"])
    features = pooled
    if layer != "pool":
        layers: Any = model.apply(variables, pooled, method="head_layers")
        features = layers[layer]
    return pooled.astype(jnp.float32), features.astype(jnp.float32)


@jax.jit
def apply_linear(weights: jax.Array, bias: jax.Array, features: jax.Array) -> jax.Array:
    """Returns features (R, F) @ weights (F, K) + bias (K,), in full float32 precision."""
    return jnp.dot(features, weights, precision="highest") + bias[None]


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
    """Returns boxes (K, M, 4), scores (K, M) and a mask of detections (K, M), best first.

    Args:
        parts: one dictionary per detector: {"svm": {"weights", "bias"}, "layer": (U, F) features,
            "row": (R,) row of each window in them} and, if the detector moves windows,
            {"regressor": {"weights", "bias"}, "pool": (U, P) features}.
        windows: (R, 4) pixels.
        count: number of windows; the rows after them are padding.
        sides: (4,) width, height, width, height of the image, to which boxes are clipped.
        min_score, nms_iou, max_detections: `score_threshold`, `iou_threshold` and `max_kept` of
            `boxes.nms`.
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
            moved = boxes.decode_deltas(windows, deltas[part["row"]])
        all_scores.append(scores)
        all_boxes.append(jnp.clip(moved, 0, sides[None, None]))
    candidates, scores = jnp.concatenate(all_boxes), jnp.concatenate(all_scores)
    selection = boxes.nms(
        candidates,
        scores,
        iou_threshold=nms_iou,
        score_threshold=min_score,
        max_kept=max_detections,
    )
    classes, row = jnp.arange(scores.shape[1])[:, None], selection.row
    return candidates[row, classes], scores[row, classes], selection.is_kept
