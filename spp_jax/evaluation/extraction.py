"""Extracts the features of a whole source to a file; interrupted, the same command goes on."""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from spp_jax import checkpoint, cluster, errors
from spp_jax import config as config_lib
from spp_jax.canvas import planning
from spp_jax.data.loading import reading
from spp_jax.data.sources import base
from spp_jax.evaluation import feature_files, feature_shares, features, protocols, sharing
from spp_jax.models import sppnet
from spp_jax.runs import places
from spp_jax.runs import progress as progress_lib


@dataclasses.dataclass(frozen=True)
class Request:
    """What is extracted, and how it is computed.

    Attributes:
        parts: layers and their pyramids; their vectors are concatenated.
        view: how an image is shown: "full", "center" or "warp" of `protocols.Protocol`.
        normalize: divide the vector of each part by its Euclidean norm.
        dtype: of the file, "float32" or "float16".
        batch_size: images of view.size x view.size pixels in a batch, or as many pixels.
        num_programs: programs to compile at most, but for what `planning.choose` says of memory.
        num_workers: 0, threads of this process, or loader processes.
    """

    parts: tuple[config_lib.Part, ...]
    view: protocols.Protocol
    normalize: bool = False
    dtype: str = "float32"
    batch_size: int = 32
    num_programs: int = 8
    num_workers: int = 0


def make_view(scale: str, size: int) -> protocols.Protocol:
    """Returns the view of a scale: "crop", "warp" (of `size` pixels) or a shorter side.

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
    variables: Mapping[str, Any],
    source: base.Source,
    request: Request,
    *,
    output_names: Sequence[str] = (),
    progress: progress_lib.Progress = progress_lib.SILENT,
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
        progress: is told of programs, and how far it is.

    Raises:
        InputError: wrong layers, a view the network does not take, an output that cannot be
            written or is there and of something else, also of other labels; or not one image that
            can be read.
    """
    with cluster.together():
        check_output(output)
        parts = features.check_parts(model, request.parts)
        check_view(model, request.view)
    heads, unread = sharing.read_heads(
        source, request.num_workers, range(len(source)), progress=progress
    )
    refused = list(unread.values())
    if not heads:
        raise errors.InputError(f"none of {len(source)} images can be read: {refused[0]}")
    facts = _facts(model, variables, source, heads, dataclasses.replace(request, parts=parts))
    description = feature_files.Description(
        {i: (source.name(i), head.label) for i, head in heads.items()},
        tuple(source.class_names),
        tuple(output_names) if any(part.layer == "logits" for part in parts) else (),
        _columns(model, parts),
    )
    cluster.agree("what is extracted", facts)
    with cluster.together():
        finished = feature_files.read_finished(output, facts, description)
    if all(cluster.gather(finished is not None)) and finished:
        progress.say(f"{output} was finished before")
        return finished
    plan = _Plan(source, request, parts, heads)
    try:
        count = features.num_features(model, parts)
        with feature_shares.unfinished(output, facts, description, count) as unfinished:
            _compute(model, variables, plan, unfinished, progress)
            return unfinished.finish(refused, plan.summary)
    except OSError as e:  # those of images are ImageErrors
        raise errors.InputError(f"output {output} cannot be written: {e.strerror or e}") from e


def _facts(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    source: base.Source,
    heads: dict[int, reading.Head],
    request: Request,
) -> dict[str, Any]:
    """Returns what makes features these ones, and not how they are computed, as JSON has it."""
    facts = {
        "backbone": model.backbone.name,
        "layers": [dataclasses.asdict(part) for part in request.parts],
        "view": request.view.name,
        "scale": request.view.scale,
        "is_normalized": request.normalize,
        "dtype": request.dtype,
        "parameters_crc32": checkpoint.checksum(variables),
        "images_sha256": _digest(source, heads),
    }
    return json.loads(json.dumps(facts))


class _Plan:
    """Which images are computed together, and how."""

    def __init__(
        self,
        source: base.Source,
        request: Request,
        parts: tuple[config_lib.Part, ...],
        heads: dict[int, reading.Head],
    ):
        self.source, self.request, self.parts = source, request, parts
        self.sizes = {i: request.view.shown_size(*head.size) for i, head in heads.items()}
        max_pixels = request.batch_size * request.view.size**2
        self.batches = planning.plan(
            self.sizes, request.num_programs, max_pixels, jax.local_device_count()
        )
        self.summary = {
            "num_programs": len({(b.canvas, b.num_rows) for b in self.batches}),
            "padded_share": planning.padded_share(self.batches, self.sizes),
        }


def _compute(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    plan: _Plan,
    unfinished: feature_shares.Unfinished,
    progress: progress_lib.Progress,
) -> None:
    """Computes the batches that are not done yet, of several processes this one's share."""
    num_done, num_images, request = len(unfinished.done), len(plan.sizes), plan.request
    progress.say(
        f"{num_images} images, {len(set(plan.sizes.values()))} sizes as shown: "
        f"{plan.summary['num_programs']} programs, {100 * plan.summary['padded_share']:.1f} % "
        "of the pixels are padding" + (f"; {num_done} images are done" if num_done else "")
    )
    # Whole batches, so that with the same settings each is computed as in an unbroken run.
    todo = cluster.share(
        [batch for batch in plan.batches if not unfinished.done.issuperset(batch.indices)]
    )
    order = [index for batch in todo for index in batch.indices]
    start = time.monotonic()
    # Closed by name: as many are taken as there are, so that it does not see its end.
    examples = reading.eval_examples(plan.source, request.view, request.num_workers, order)
    bar = progress.bar("features", num_images, done=num_images - len(order))
    own = unfinished.open_share(order)
    try:
        with contextlib.closing(examples), own, bar as advance:
            for batch, values in features.compute(
                model,
                variables,
                plan.parts,
                todo,
                _images(zip(order, examples), own),
                normalize=request.normalize,
                extents=request.view.name == "full",
            ):
                own.write(batch.indices, values)
                advance(len(batch.indices))
    except KeyboardInterrupt:
        progress.say(f"{own.num_done} images are kept in {own.folder}; the same command goes on")
        raise
    seconds = time.monotonic() - start
    progress.say(f"{len(order)} images in {seconds:.1f} s, {len(order) / seconds:.1f} images/s")


def _images(
    examples: Iterable[tuple[int, reading.EvalExample]], own: feature_files.Unfinished
) -> Iterator[np.ndarray | None]:
    """Yields the image of each example, None for one that cannot be read, which is noted."""
    for index, example in examples:
        own.note(index, example.refused)
        yield None if example.refused else example.views[0]


def check_output(output: str) -> None:
    """Raises InputError unless a .npz or .npy can be written there."""
    if os.path.splitext(output)[1] not in (".npz", ".npy"):
        raise errors.InputError(f"output {output!r} must end in .npz or .npy")
    folder = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise errors.InputError(f"output {output}: folder {folder} is missing or not writable")
    name = os.path.basename(output)
    beside = [name + ".json"] if name.endswith(".npy") else []
    places.check(folder, files=[name, *beside], folders=[name + ".part"])


def check_view(model: sppnet.SPPNet, view: protocols.Protocol) -> None:
    """Raises InputError if the network does not take the images of a view."""
    if view.name == "full" and model.levels is None:
        raise errors.InputError(
            f"shorter side {view.scale} needs a network that takes any size, and this one has no "
            "SPP; show it crop or warp"
        )
    features.check_size(model, view.size, view.size, f"scale {view.scale}")


def _columns(
    model: sppnet.SPPNet, parts: tuple[config_lib.Part, ...]
) -> tuple[tuple[str, int, int], ...]:
    """Returns (layer, first column, the one after its last) of each part."""
    stops = np.cumsum([0, *features.part_sizes(model, parts)]).tolist()
    return tuple((p.layer, a, b) for p, a, b in zip(parts, stops, stops[1:]))


def _digest(source: base.Source, heads: dict[int, reading.Head]) -> str:
    digest = hashlib.sha256()
    for index, head in heads.items():
        name = os.path.basename(source.name(index))  # wherever the folder is, however it is spelled
        digest.update(b"%s\0%d\0" % (os.fsencode(name), head.crc32))
    return digest.hexdigest()
