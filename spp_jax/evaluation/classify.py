"""Scores a network on a set: every example exactly once, the last partial batch included.

Shapes: b rows of a batch · (H, W) canvas · V views · K classes.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spp_jax import cluster, sharding
from spp_jax import config as config_lib
from spp_jax.canvas import arithmetic, flight, packing, planning
from spp_jax.data.loading import reading
from spp_jax.data.sources import base
from spp_jax.evaluation import protocols, sharing
from spp_jax.models import sppnet, topology
from spp_jax.runs import progress as progress_lib

Size = tuple[int, int]


def evaluate(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    config: config_lib.Config,
    source: base.Source,
    protocol: str,
    *,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> dict[str, Any]:
    """Scores the views of every example; several views by the mean of their softmax scores.

    Images of one canvas are scored together. A canvas holds images of several sizes, each with its
    extent, so that each gets the result it would get alone. Canvases are chosen by
    `planning.choose` from the sizes in the files' headers, which are read first; there is one
    compiled program per canvas.

    Args:
        model: the network.
        variables: its parameters, on one device or on each of several.
        config: of the run; its data.*, eval.* and train.sizes[0] make the views.
        source: the examples; of several processes each scores its share, and all return the same.
        protocol: of `config.PROTOCOLS`, explained at `protocols.Protocol`.
        progress: is told how far it is.

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
    views = protocols.make_protocol(config, protocol)
    indices = reading.even_sample(len(source), config.eval.num_examples)
    sizes, refused = dict.fromkeys(indices, (views.size, views.size)), {}
    if views.takes_whole_images:
        heads, refused = sharing.read_heads(
            source, config.data.num_workers, indices, limits=views.limits
        )
        sizes = {index: head.size for index, head in heads.items()}
    plan = _Plan(views, model.backbone, config, sizes.values(), jax.local_device_count())
    tally = _Tally(views.num_images * (2 if views.is_mirrored else 1))
    own = cluster.share(list(sizes))
    examples = reading.eval_examples(source, views, config.data.num_workers, own)
    bar = progress.bar(f"protocol {protocol}", len(own))
    with contextlib.closing(examples), bar as advance:
        unread: dict[int, str] = {}
        rows = _rows(zip(own, examples), plan, unread, advance)
        for batch, scores in flight.behind(_start(model, variables, plan, rows)):
            for row, log_sum in zip(batch.rows, np.asarray(scores)):
                tally.add(row.index, row.label, log_sum, batch.num_views)
    refused = sharing.gather_refused(unread) | refused
    return {
        "protocol": protocol,
        **tally.means(),
        "num_refused": len(refused),
        "refused": [refused[index] for index in sorted(refused)],
        "scales": list(views.scales if protocol == "multi_view" else views.shown_scales),
        "full_scale": views.scale if protocol == "full" or views.has_full_views else None,
        "size": views.size,
        "num_canvases": len(plan.num_rows),
        "padded_share": plan.padded_share(),
        "seconds": time.monotonic() - start,
    }


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how many classes stand before the label's, (b,), of scores (b, K).

    Equal scores stand in the order of their classes, and a score that is not a number stands
    before all others, so a broken network is not taken for a right one.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    is_earlier = np.arange(scores.shape[1]) < labels[:, None]
    is_before = (scores > own) | ((scores == own) & is_earlier) | np.isnan(scores)
    # A label's own NaN counts as well: its rank is then never 0.
    return np.sum(is_before, axis=1)


class _Tally:
    """Adds up the scores of each example's parts, its images and their mirror images, and counts
    it when all are there."""

    def __init__(self, num_parts: int):
        self._num_parts = num_parts
        self._open: dict[int, list[tuple[np.ndarray, int]]] = collections.defaultdict(list)
        self._ranks: list[int] = []
        self._losses: list[float] = []
        self._num_views = 0

    def add(self, index: int, label: int, log_sum: np.ndarray, num_views: int) -> None:
        """Takes the log of the sum of the softmax scores, (K,), over an image's views."""
        self._open[index].append((log_sum, num_views))
        if len(self._open[index]) < self._num_parts:
            return
        parts = self._open.pop(index)
        self._num_views = sum(n for _, n in parts)
        # In an order that does not depend on what they were computed with, for the same last digit.
        log_sums = np.sort(np.asarray([p for p, _ in parts], np.float64), axis=0)
        scores = np.logaddexp.reduce(log_sums, axis=0) - math.log(self._num_views)
        self._ranks.append(int(ranks(scores[None], np.asarray([label]))[0]))
        self._losses.append(-float(scores[label]))

    def means(self) -> dict[str, Any]:
        """Returns the means over the examples of all processes."""
        parts = cluster.gather_arrays(
            {
                "ranks": np.asarray(self._ranks, np.int64),
                "losses": np.asarray(self._losses, np.float64),
                "num_views": np.asarray(self._num_views),
            }
        )
        of_examples = np.concatenate([part["ranks"] for part in parts])
        count = len(of_examples)
        return {
            "top1": int(np.sum(of_examples < 1)) / max(count, 1),
            "top5": int(np.sum(of_examples < 5)) / max(count, 1),
            # Of the exact sum, whose order does not matter.
            "loss": math.fsum(x for part in parts for x in part["losses"]) / max(count, 1),
            "num_examples": count,
            "num_views": max(int(part["num_views"]) for part in parts),
        }


class _Program(NamedTuple):
    """Which program scores an image: of a canvas (height, width), and with V views of each row."""

    canvas: Size
    num_views: int


@dataclasses.dataclass(frozen=True)
class _Row:
    """An image to score; `cells` are its views on the map, (V, 4), None where it is one view."""

    program: _Program
    index: int
    label: int
    image: np.ndarray
    cells: np.ndarray | None


class _Batch(NamedTuple):
    """Images of one program, and the arrays that it takes."""

    num_views: int
    rows: list[_Row]
    arrays: dict[str, np.ndarray]


class _Plan:
    """Which images are scored together.

    Attributes:
        protocol: makes the images.
        num_rows: of each program.
    """

    def __init__(
        self,
        protocol: protocols.Protocol,
        backbone: topology.Backbone,
        config: config_lib.Config,
        sizes: Iterable[Size],
        num_devices: int,
    ):
        """Plans the programs for images of the given (height, width) as stored."""
        self.protocol, self._backbone = protocol, backbone
        self._step = config.eval.canvas_step if protocol.takes_whole_images else 1
        self._num_used = self._num_computed = 0
        side = protocol.scale if protocol.name == "full" else protocol.size
        max_pixels = (config.eval.batch_size or config.data.batch_size) * side**2
        counts: dict[int, collections.Counter[Size]] = {}
        for size in sizes:
            for shown in protocol.shown_sizes(*size):
                cells = self._cells(*shown)
                of_views = counts.setdefault(
                    1 if cells is None else len(cells), collections.Counter()
                )
                of_views[arithmetic.round_up(*shown, self._step)] += 1
        self.num_rows: dict[_Program, int] = {}
        self._program: dict[tuple[Size, int], _Program] = {}
        for num_views, of_views in counts.items():
            chosen = planning.choose(of_views, len(of_views), max_pixels, num_devices)
            on_canvas: collections.Counter[Size] = collections.Counter()
            for rounded, canvas in chosen.items():
                on_canvas[canvas] += of_views[rounded]
                self._program[rounded, num_views] = _Program(canvas, num_views)
            for canvas, count in on_canvas.items():
                rows = planning.num_rows(canvas, count, max_pixels, num_devices)
                self.num_rows[_Program(canvas, num_views)] = rows

    def padded_share(self) -> float:
        """Returns the share of the pixels computed by all processes that belong to no image."""
        used, computed = np.sum(cluster.gather([self._num_used, self._num_computed]), axis=0)
        return 1 - int(used) / max(int(computed), 1)

    def row(self, index: int, label: int, image: np.ndarray) -> _Row:
        """Returns an image with the program that scores it."""
        height, width, _ = image.shape
        cells = self._cells(height, width)
        rounded = arithmetic.round_up(height, width, self._step)
        program = self._program[rounded, 1 if cells is None else len(cells)]
        return _Row(program, index, label, image, cells)

    def batches(self, rows: Iterable[_Row]) -> Iterator[_Batch]:
        """Yields full batches as rows come, then the partial ones."""
        waiting: dict[_Program, list[_Row]] = {}
        for row in rows:
            same = waiting.setdefault(row.program, [])
            same.append(row)
            if len(same) == self.num_rows[row.program]:
                yield self._pack(row.program, waiting.pop(row.program))
        for program, same in waiting.items():
            yield self._pack(program, same)

    def _pack(self, program: _Program, rows: list[_Row]) -> _Batch:
        num_rows = self.num_rows[program]
        arrays = packing.pack([row.image for row in rows], program.canvas, num_rows)
        if not self.protocol.takes_whole_images:
            del arrays["extents"]
        cells = [row.cells for row in rows if row.cells is not None]
        if cells:
            arrays["cells"] = np.zeros((num_rows, program.num_views, 4), np.int32)
            arrays["cells"][: len(cells)] = cells
        self._num_used += sum(row.image.shape[0] * row.image.shape[1] for row in rows)
        self._num_computed += num_rows * program.canvas[0] * program.canvas[1]
        return _Batch(program.num_views, rows, arrays)

    def _cells(self, height: int, width: int) -> np.ndarray | None:
        """Returns the views (V, 4) pooled from the map of an image; None where it is one view."""
        if self.protocol.name != "multi_view":
            return None
        return self.protocol.cells(height, width, self._backbone)


def _rows(
    examples: Iterable[tuple[int, reading.EvalExample]],
    plan: _Plan,
    unread: dict[int, str],
    advance: Callable[[int], None],
) -> Iterator[_Row]:
    """Yields the images of each example; adds to `unread`, and tells how many examples passed."""
    for index, example in examples:
        advance(1)
        if example.refused:
            unread[index] = example.refused
            continue
        for image in example.views:
            yield plan.row(index, example.label, image)


def _start(
    model: sppnet.SPPNet, variables: Mapping[str, Any], plan: _Plan, rows: Iterable[_Row]
) -> Iterator[tuple[_Batch, jax.Array]]:
    """Yields each batch with its scores, which the device may still be computing."""
    mesh = sharding.make_local_mesh()
    variables = sharding.put_replicated(sppnet.cast_params(model, variables), mesh)
    for batch in plan.batches(rows):
        placed = sharding.put_batch(batch.arrays, mesh)
        # The same program for the mirror images: half as much to compile.
        for is_mirrored in (False, True) if plan.protocol.is_mirrored else (None,):
            yield batch, score_batch(model, variables, placed, is_mirrored)


@functools.partial(jax.jit, static_argnums=0)
def score_batch(
    model: sppnet.SPPNet, variables: Mapping[str, Any], batch: dict, is_mirrored: bool | None
) -> jax.Array:
    """Returns the log of the sum over views of the softmax scores, (b, K).

    None in place of False makes a program that cannot mirror.
    """
    extents, cells = batch.get("extents"), batch.get("cells")
    images = batch["images"]
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
