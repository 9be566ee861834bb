"""Scores a network on a set: every example exactly once, the last partial batch included.

Shapes: b rows of a batch · (H, W) canvas · V views · K classes.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from jax.sharding import Mesh

from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.canvas import arithmetic, planning
from spp_jax.data import images
from spp_jax.data.loading import streams
from spp_jax.data.sources import base
from spp_jax.evaluation import protocols
from spp_jax.models import sppnet, topology

# Batches the device may be behind: enough to keep it busy, few enough to be held.
_BATCHES_IN_FLIGHT = 2


def evaluate(
    model: sppnet.SPPNet,
    variables: dict,
    config: config_lib.Config,
    source: base.Source,
    protocol: str,
    *,
    has_progress_bar: bool = False,
) -> dict[str, Any]:
    """Scores the views of every example; several views by the mean of their softmax scores.

    Images of one canvas are scored together. A canvas holds images of several sizes, each with its
    extent, so that each gets the result it would get alone. Canvases are chosen by
    `canvases.choose` from the sizes in the files' headers, which are read first; the compiled
    programs are as many.

    Args:
        model: the network.
        variables: its parameters, on one device or on each of several.
        config: of the run; its data.*, eval.* and train.sizes[0] make the views.
        source: the examples.
        protocol: of `config.PROTOCOLS`, explained at `views.Protocol`.
        has_progress_bar: whether to show one on the console.

    Returns:
        protocol, top1, top5 (shares; top5 counts the first K of fewer classes), loss (mean cross
        entropy), num_examples (scored), num_views (of each), num_refused and refused (sentences of
        unreadable images), scales, full_scale (of full views, or None), size, num_canvases,
        padded_share (of the pixels computed), seconds.

    Raises:
        InputError: the network or the config does not allow the protocol.
    """
    protocols.check_protocol(config, protocol)
    start = time.monotonic()
    shown = protocols.make_protocol(config, protocol)
    indices = streams.even_sample(len(source), config.eval.num_examples)
    refused: list[str] = []
    if shown.takes_whole_images:
        sizes = _read_sizes(source, config.data.num_workers, indices, refused)
    else:
        sizes = dict.fromkeys(indices, (shown.size, shown.size))
    tally = _Tally(shown.num_images * (2 if shown.is_mirrored else 1))
    batches = _Batches(model, variables, config, shown, sizes.values(), tally)
    examples = streams.eval_examples(source, shown, config.data.num_workers, list(sizes))
    with rich.progress.Progress(disable=not has_progress_bar) as bar, contextlib.closing(examples):
        task = bar.add_task(f"protocol {protocol}", total=len(sizes))
        for index, example in zip(sizes, examples):
            bar.advance(task)
            if example.refused:
                refused.append(example.refused)
                continue
            for image in example.views:
                batches.add(index, example.label, image)
        batches.finish()
    return {
        "protocol": protocol,
        **tally.means(),
        "num_refused": len(refused),
        "refused": refused,
        "scales": list(shown.scales if protocol == "multi_view" else shown.shown_scales),
        "full_scale": shown.scale if protocol == "full" or shown.has_full_views else None,
        "size": shown.size,
        "num_canvases": batches.num_canvases,
        "padded_share": 1 - batches.num_used / max(batches.num_computed, 1),
        "seconds": time.monotonic() - start,
    }


def _read_sizes(
    source: base.Source, num_workers: int, indices: Sequence[int], refused: list[str]
) -> dict[int, tuple[int, int]]:
    """Returns the (height, width) of each image whose header can be read; adds to `refused`."""
    sizes = {}
    with contextlib.closing(
        streams.eval_examples(source, _read_size, num_workers, indices)
    ) as heads:
        for index, head in zip(indices, heads):
            if head.refused:
                refused.append(head.refused)
            else:
                sizes[index] = head.views
    return sizes


def _read_size(data: bytes, name: str) -> tuple[int, int]:
    return images.read_size(io.BytesIO(data), name)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Returns results of `evaluate` as a Markdown table of errors, like Tables 3 and 4."""
    lines = [
        "| protocol | shorter side | views | top-1 error % | top-5 error % | images | images/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        scales = "-" if r["protocol"] == "warp" else ", ".join(map(str, r["scales"]))
        if r["protocol"] == "multi_view" and r["full_scale"]:
            scales += f", full {r['full_scale']}"
        errors = (f"{100 * (1 - r[name]):.2f}" for name in ("top1", "top5"))
        speed = f"{r['num_examples'] / max(r['seconds'], 1e-9):.1f}"
        cells = (r["protocol"], scales, r["num_views"], *errors, r["num_examples"], speed)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how many classes stand before the label's, (b,), of scores (b, K).

    Equal scores stand in the order of their classes, and a score that is not a number stands
    before all others, so a broken network is not taken for a right one.
    """
    mine = np.take_along_axis(scores, labels[:, None], axis=1)
    is_earlier = np.arange(scores.shape[1]) < labels[:, None]
    is_before = (scores > mine) | ((scores == mine) & is_earlier) | np.isnan(scores)
    # A label's own NaN counts as well: its rank is then never 0.
    return np.sum(is_before, axis=1)


class _Tally:
    """Adds up the scores of each example's parts, its images and their mirror images, and counts
    it when all are there."""

    def __init__(self, num_parts: int):
        self._num_parts = num_parts
        self._open: dict[int, list[tuple[np.ndarray, int]]] = collections.defaultdict(list)
        self._sums = dict.fromkeys(("top1", "top5", "loss"), 0.0)
        self._count = 0
        self._num_views = 0

    def add(self, index: int, label: int, log_sum: np.ndarray, num_views: int) -> None:
        """Takes the log of the sum of the softmax scores, (K,), over an image's views."""
        self._open[index].append((log_sum, num_views))
        if len(self._open[index]) < self._num_parts:
            return
        parts = self._open.pop(index)
        self._num_views = sum(n for _, n in parts)
        log_sums = np.asarray([p for p, _ in parts], np.float64)
        scores = np.logaddexp.reduce(log_sums, axis=0) - math.log(self._num_views)
        rank = ranks(scores[None], np.asarray([label]))[0]
        self._count += 1
        self._sums["top1"] += float(rank < 1)
        self._sums["top5"] += float(rank < 5)
        self._sums["loss"] -= float(scores[label])

    def means(self) -> dict[str, Any]:
        means = {name: value / max(self._count, 1) for name, value in self._sums.items()}
        return {**means, "num_examples": self._count, "num_views": self._num_views}


_Counter = collections.Counter[tuple[int, int]]


@dataclasses.dataclass
class _Row:
    index: int
    label: int
    image: np.ndarray
    cells: np.ndarray | None


class _Programs:
    """Which program scores an image: (height, width) of its canvas, and V views of each row.

    Attributes:
        num_rows: {(height, width, V): rows of that program}.
    """

    def __init__(
        self,
        protocol: protocols.Protocol,
        backbone: topology.Backbone,
        config: config_lib.Config,
        sizes: Iterable[tuple[int, int]],
        num_devices: int,
    ):
        """Plans the programs for images of the given (height, width) as stored."""
        self._protocol, self._backbone = protocol, backbone
        self._step = config.eval.canvas_step if protocol.takes_whole_images else 1
        side = protocol.scale if protocol.name == "full" else protocol.size
        max_pixels = (config.eval.batch_size or config.data.batch_size) * side**2
        counts: dict[int, collections.Counter[tuple[int, int]]] = {}
        for size in sizes:
            for shown in protocol.shown_sizes(*size):
                cells = self.cells(*shown)
                of_views = counts.setdefault(1 if cells is None else len(cells), _Counter())
                of_views[arithmetic.round_up(*shown, self._step)] += 1
        self.num_rows: dict[tuple[int, ...], int] = {}
        self._canvas: dict[tuple[int, ...], tuple[int, int]] = {}
        for num_views, of_views in counts.items():
            chosen = planning.choose(of_views, len(of_views), max_pixels, num_devices)
            on_canvas = _Counter()
            for rounded, canvas in chosen.items():
                on_canvas[canvas] += of_views[rounded]
                self._canvas[*rounded, num_views] = canvas
            for canvas, count in on_canvas.items():
                rows = planning.num_rows(canvas, count, max_pixels, num_devices)
                self.num_rows[*canvas, num_views] = rows

    def cells(self, height: int, width: int) -> np.ndarray | None:
        """Returns the views (V, 4) pooled from the map of an image; None where it is one view."""
        if self._protocol.name != "multi_view":
            return None
        return self._protocol.cells(height, width, self._backbone)

    def key(self, height: int, width: int, num_views: int) -> tuple[int, int, int]:
        """Returns the program of an image as shown."""
        rounded = arithmetic.round_up(height, width, self._step)
        return (*self._canvas[*rounded, num_views], num_views)


class _Batches:
    """Collects images by canvas, runs full batches on the device, and hands on their scores."""

    def __init__(
        self,
        model: sppnet.SPPNet,
        variables: dict,
        config: config_lib.Config,
        protocol: protocols.Protocol,
        sizes: Iterable[tuple[int, int]],
        tally: _Tally,
    ):
        self.num_used = 0
        self.num_computed = 0
        self._model = model
        self._mesh: Mesh = sharding.make_mesh()
        self._variables = sharding.put_replicated(variables, self._mesh)
        self._protocol = protocol
        self._tally = tally
        self._programs = _Programs(protocol, model.backbone, config, sizes, self._mesh.size)
        self._waiting: dict[tuple[int, ...], list[_Row]] = {}
        self._in_flight: collections.deque[tuple[jax.Array, list[_Row], int]] = collections.deque()

    def add(self, index: int, label: int, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        self.num_used += height * width
        cells = self._programs.cells(height, width)
        key = self._programs.key(height, width, 1 if cells is None else len(cells))
        rows = self._waiting.setdefault(key, [])
        rows.append(_Row(index, label, image, cells))
        if len(rows) == self._programs.num_rows[key]:
            self._run(key)

    @property
    def num_canvases(self) -> int:
        return len(self._programs.num_rows)

    def finish(self) -> None:
        for key in list(self._waiting):
            self._run(key)
        self._drain(0)

    def _run(self, key: tuple[int, ...]) -> None:
        rows, num_rows = self._waiting.pop(key), self._programs.num_rows[key]
        height, width, num_views = key
        self.num_computed += num_rows * height * width
        batch: dict[str, np.ndarray] = {"image": np.zeros((num_rows, height, width, 3), np.uint8)}
        extents = np.tile(np.asarray([height, width], np.int32), (num_rows, 1))
        for i, row in enumerate(rows):
            extents[i] = row.image.shape[:2]
            batch["image"][i, : extents[i, 0], : extents[i, 1]] = row.image
        if self._protocol.takes_whole_images:
            batch["extents"] = extents
        cells = [row.cells for row in rows if row.cells is not None]
        if cells:
            batch["cells"] = np.zeros((num_rows, num_views, 4), np.int32)
            batch["cells"][: len(cells)] = cells
        placed = sharding.put_batch(batch, self._mesh)
        # The same program for the mirror images: half as much to compile.
        for is_mirrored in (False, True) if self._protocol.is_mirrored else (None,):
            scores = _score(self._model, self._variables, placed, is_mirrored)
            self._in_flight.append((scores, rows, num_views))
        self._drain(_BATCHES_IN_FLIGHT)

    def _drain(self, keep: int) -> None:
        while len(self._in_flight) > keep:
            scores, rows, num_views = self._in_flight.popleft()
            for row, log_sum in zip(rows, np.asarray(scores)):
                self._tally.add(row.index, row.label, log_sum, num_views)


@functools.partial(jax.jit, static_argnums=0)
def _score(
    model: sppnet.SPPNet, variables: dict, batch: dict, is_mirrored: bool | None
) -> jax.Array:
    """Returns the log of the sum over views of the softmax scores, (b, K).

    None in place of False makes a program that cannot mirror.
    """
    extents, cells = batch.get("extents"), batch.get("cells")
    images = batch["image"]
    if is_mirrored is not None:
        images = jnp.where(is_mirrored, _mirror(images, extents), images)
    logits: Any
    if cells is None:
        logits = model.apply(variables, images, extents=extents)
        return jax.nn.log_softmax(logits)
    logits = model.apply(variables, images, cells, extents=extents, method="window_logits")
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1)


def _mirror(images: jax.Array, extents: jax.Array | None) -> jax.Array:
    """Mirrors (b, H, W, 3) left to right, each within its extent."""
    if extents is None:
        return images[:, :, ::-1]
    # Beyond the extent anything will do: the network sets it to zero.
    column = (extents[:, 1:] - 1 - jnp.arange(images.shape[2])[None]) % images.shape[2]
    return jnp.take_along_axis(images, column[:, None, :, None], axis=2)
