"""Extracts the features of a whole source to a file; interrupted, the same command goes on."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import time
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.progress

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.canvas import planning
from spp_jax.data import images
from spp_jax.data.loading import streams
from spp_jax.data.sources import base
from spp_jax.evaluation import feature_files, features, protocols
from spp_jax.models import sppnet


@dataclasses.dataclass(frozen=True)
class Request:
    """What is extracted, and how it is computed.

    Attributes:
        parts: layers and their pyramids; their vectors are concatenated.
        view: how an image is shown: "full", "center" or "warp" of `views.Protocol`.
        is_normalized: divide the vector of each part by its Euclidean norm.
        dtype: of the file, "float32" or "float16".
        batch_size: images of view.size x view.size pixels in a batch, or as many pixels.
        num_programs: programs to compile at most, but for what `canvases.choose` says of memory.
        num_workers: 0, threads of this process, or loader processes.
    """

    parts: tuple[config_lib.Part, ...]
    view: protocols.Protocol
    is_normalized: bool = False
    dtype: str = "float32"
    batch_size: int = 32
    num_programs: int = 8
    num_workers: int = 0


class _Head(NamedTuple):
    """The (height, width) of an image, a checksum of its file, and its label."""

    size: tuple[int, int]
    crc32: int
    label: int = -1


def make_view(scale: str, size: int) -> protocols.Protocol:
    """Returns the view of a `--scale`: "crop", "warp" (of `size` pixels) or a shorter side.

    "crop" is the middle size x size pixels at shorter side `size` (section 3.2's "crop").

    Raises:
        InputError: none of these.
    """
    side = config_lib.read_scale(scale)
    if isinstance(side, int):
        return protocols.Protocol("full", side, side)
    return protocols.Protocol("center" if side == "crop" else "warp", size, size)


def extract_to(
    output: str,
    model: sppnet.SPPNet,
    variables: dict,
    source: base.Source,
    request: Request,
    *,
    output_names: Sequence[str] = (),
    has_progress_bar: bool = False,
) -> feature_files.Extracted:
    """Extracts the features of every image of a source to a .npz or .npy file.

    A .npz holds `features` (N, D), `paths`, `labels` (-1: none), `class_names` (of the labels),
    `output_names` (of the columns that are logits), `indices` and `metadata`, JSON. A .npy holds
    the features alone, to be mapped into memory; OUTPUT.json beside it holds the rest. A finished
    file of the same request and the same labels is returned as it is.

    Args:
        output: FILE.npz or FILE.npy.
        model, variables: the network.
        source: the images.
        request: what to extract.
        output_names: of the network's classes; stored where logits are among the layers.
        has_progress_bar: whether to show one, and lines about programs and refusals.

    Raises:
        InputError: wrong layers, a view the network does not take, an output that cannot be
            written or is there and of something else, also of other labels; or not one image that
            can be read.
    """
    check_output(output)
    parts = features.check_parts(model, request.parts)
    check_view(model, request.view)
    heads, refused = _read_heads(source, request.num_workers, has_progress_bar)
    if not heads:
        raise errors.InputError(f"none of {len(source)} images can be read: {refused[0]}")
    # What makes them these features, and not how they are computed.
    facts: dict[str, Any] = {
        "backbone": model.backbone.name,
        "layers": [dataclasses.asdict(part) for part in parts],
        "view": request.view.name,
        "scale": request.view.scale,
        "is_normalized": request.is_normalized,
        "dtype": request.dtype,
        "parameters_crc32": checkpoint.checksum(variables),
        "images_sha256": _digest(source, heads),
    }
    facts = json.loads(json.dumps(facts))  # as it will be read
    described = feature_files.Description(
        {i: (source.name(i), head.label) for i, head in heads.items()},
        tuple(source.class_names),
        tuple(output_names) if any(part.layer == "logits" for part in parts) else (),
        _columns(model, parts),
    )
    done = feature_files.read_finished(output, facts, described)
    if done:
        if has_progress_bar:
            print(f"{output} was finished before")
        return done
    plan = _Plan(source, request, parts, heads)
    try:
        unfinished = feature_files.Unfinished(
            output, facts, described, features.num_features(model, parts)
        )
        _compute(model, variables, plan, unfinished, has_progress_bar)
        return unfinished.finish(refused, plan.summary)
    except OSError as e:  # those of images are ImageErrors
        raise errors.InputError(f"output {output} cannot be written: {e.strerror or e}") from e


class _Plan:
    """Which images are computed together, and how."""

    def __init__(
        self,
        source: base.Source,
        request: Request,
        parts: tuple[config_lib.Part, ...],
        heads: dict[int, _Head],
    ):
        self.source, self.request, self.parts = source, request, parts
        self.sizes = {i: request.view.shown_size(*head.size) for i, head in heads.items()}
        max_pixels = request.batch_size * request.view.size**2
        self.batches = planning.plan(
            self.sizes, request.num_programs, max_pixels, jax.device_count()
        )
        self.summary = {
            "num_programs": len({(b.canvas, b.num_rows) for b in self.batches}),
            "padded_share": planning.padded_share(self.batches, self.sizes),
        }


def _compute(
    model: sppnet.SPPNet,
    variables: dict,
    plan: _Plan,
    unfinished: feature_files.Unfinished,
    has_progress_bar: bool,
) -> None:
    """Computes the batches that are not done yet."""
    num_done = unfinished.num_done
    if has_progress_bar:
        print(
            f"{len(plan.sizes)} images, {len(set(plan.sizes.values()))} sizes as shown: "
            f"{plan.summary['num_programs']} programs, {100 * plan.summary['padded_share']:.1f} % "
            "of the pixels are padding" + (f"; {num_done} images are done" if num_done else ""),
            flush=True,
        )
    # Whole batches, so that with the same settings each is computed as in an unbroken run.
    todo = [batch for batch in plan.batches if not unfinished.is_done(batch.indices)]
    order = [index for batch in todo for index in batch.indices]
    request = plan.request
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    start = time.monotonic()
    # Closed by name: as many are taken as there are, so that it does not see its end.
    examples = streams.eval_examples(plan.source, request.view, request.num_workers, order)
    with (
        contextlib.closing(examples),
        unfinished,
        rich.progress.Progress(*columns, disable=not has_progress_bar) as bar,
    ):
        task = bar.add_task(
            "features", total=len(plan.sizes), completed=len(plan.sizes) - len(order)
        )
        shown = unfinished.images_of(zip(order, examples))
        has_extents = request.view.name == "full"
        for batch, values in features.compute(
            model, variables, plan.parts, todo, shown, request.is_normalized, has_extents
        ):
            unfinished.write(batch.indices, values)
            bar.advance(task, len(batch.indices))
    if has_progress_bar:
        seconds = time.monotonic() - start
        print(f"{len(order)} images in {seconds:.1f} s, {len(order) / seconds:.1f} images/s")


def check_output(output: str) -> None:
    """Raises InputError unless a .npz or .npy can be written there."""
    if os.path.splitext(output)[1] not in (".npz", ".npy"):
        raise errors.InputError(f"output {output!r} must end in .npz or .npy")
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise errors.InputError(f"output {output}: folder {folder} is missing or not writable")


def check_view(model: sppnet.SPPNet, view: protocols.Protocol) -> None:
    """Raises InputError if the network does not take the images of a view."""
    if view.name == "full" and model.levels is None:
        raise errors.InputError(
            f"shorter side {view.scale} needs a network that takes any size, and this one has no "
            "SPP; show it crop or warp"
        )
    features.check_size(model, view.size, view.size, f"scale {view.scale}")


def _read_heads(
    source: base.Source, num_workers: int, has_progress_bar: bool
) -> tuple[dict[int, _Head], list[str]]:
    """Returns {index: head} of the images whose header can be read, and refusals."""
    heads: dict[int, _Head] = {}
    refused = []
    found = streams.eval_examples(source, _read_head, num_workers)
    for index, head in enumerate(
        rich.progress.track(found, "sizes", len(source), disable=not has_progress_bar)
    ):
        if head.refused:
            refused.append(head.refused)
        else:
            heads[index] = head.views._replace(label=head.label)
    return heads, refused


def _read_head(data: bytes, name: str) -> _Head:
    return _Head(images.read_size(io.BytesIO(data), name), zlib.crc32(data))


def _columns(
    model: sppnet.SPPNet, parts: tuple[config_lib.Part, ...]
) -> tuple[tuple[str, int, int], ...]:
    """Returns (layer, first column, the one after its last) of each part."""
    stops = np.cumsum([0, *features.part_sizes(model, parts)]).tolist()
    return tuple((p.layer, a, b) for p, a, b in zip(parts, stops, stops[1:]))


def _digest(source: base.Source, heads: dict[int, _Head]) -> str:
    found = hashlib.sha256()
    for index, head in heads.items():
        name = os.path.basename(source.name(index))  # wherever the folder is, however it is spelled
        found.update(b"%s\0%d\0" % (os.fsencode(name), head.crc32))
    return found.hexdigest()
