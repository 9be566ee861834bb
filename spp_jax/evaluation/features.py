"""Features of images of any size: named layers, pooled by any pyramid (sections 2.2 and 3.2).

Shapes: N images · (H, W) canvas · D features of an image, those of all its parts concatenated.
Images are (h, w, 3) uint8 RGB.
"""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors, sharding
from spp_jax.canvas import flight, packing, planning
from spp_jax.evaluation import inputs
from spp_jax.models import layers, sppnet, topology
from spp_jax.pooling import pyramid
from spp_jax.runs import progress as progress_lib

# As `spp_jax.Part`, where it is written in scripts of version 0.1.
Part = config_lib.Part

# Images whose reasons one message gives; the others are counted.
_MOST_NAMED = 3


def extract(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    images: Iterable[Any],
    layer: str | Sequence[Part],
    levels: Sequence[int] = (1,),
    *,
    reduce: pyramid.Reduce = "max",
    scale: int | None = 224,
    normalize: bool = False,
    batch_size: int = 32,
    num_programs: int = 8,
    refused: Literal["nan", "raise"] = "nan",
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> np.ndarray:
    """Returns the features of images of any sizes, (N, D) float32.

    An image gets the features it would get alone, whatever it is computed with. The images are
    grouped by `planning.plan`, so that few programs are compiled and few pixels padded.

    Args:
        model, variables: as `spp_jax.load` gives them.
        images: paths of image files, encoded files as bytes, PIL images, and arrays (h, w, 3) uint8
            RGB or (h, w) uint8 grey, NumPy's or JAX's; any iterable of them, which is gone through
            once. EXIF orientation is applied to all but arrays.
        layer: a name of `SPPNet.maps`, or several `Part`s, whose vectors are concatenated.
        levels: bins per side of each level of the pyramid that pools the map.
        reduce: "max" or "mean" over the cells of each bin.
        scale: the shorter side each image is resized to, pixels; None takes them as they are.
        normalize: divide the vector of each part by its Euclidean norm.
        batch_size: images of 224 x 224 pixels computed together, or as many pixels.
        num_programs: programs to compile at most, but for what `planning.choose` says of memory.
        refused: what becomes of files that cannot be read: "nan" gives them rows of NaN, and one
            warning counts them and names the first; "raise" raises.
        progress: is told how many images are done.

    Returns:
        (N, D); the axis of a map runs over level, bin row, bin column, channel, the last fastest.

    Raises:
        InputError: no such layer, wrong levels, or an image that is no image or smaller than the
            network takes.
        ImageError: none of the files can be read; or one cannot, with "raise", before any work
            where its header shows it.
    """
    if refused not in ("nan", "raise"):
        raise errors.InputError(f'refused must be "nan" or "raise", got {refused!r}')
    parts = [Part(layer, levels, reduce)] if isinstance(layer, str) else layer
    return _extract(
        model,
        variables,
        images,
        check_parts(model, parts),
        scale=inputs.check_scale(scale),
        normalize=normalize,
        max_pixels=inputs.check_count(batch_size, "batch_size") * 224**2,
        num_programs=inputs.check_count(num_programs, "num_programs"),
        raises=refused == "raise",
        progress=progress,
    )


def _extract(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    images: Iterable[Any],
    parts: tuple[Part, ...],
    *,
    scale: int | None,
    normalize: bool,
    max_pixels: int,
    num_programs: int,
    raises: bool,
    progress: progress_lib.Progress,
) -> np.ndarray:
    """Returns what `extract` does; `raises`: an image that cannot be read ends it."""
    given, reasons = inputs.take(images)
    sizes = inputs.read_sizes(given, scale, reasons)
    if reasons and raises:
        raise errors.ImageError(_first_few(reasons))
    for i, (height, width) in sizes.items():
        check_size(model, height, width, errors.printable(given[i].name))
    batches = planning.plan(sizes, num_programs, max_pixels, jax.local_device_count())
    features = np.full((len(given), num_features(model, parts)), np.nan, np.float32)
    order = [i for batch in batches for i in batch.indices]
    shown = inputs.load_all(given, order, scale, None if raises else reasons)
    takes_any_size = model.levels is not None
    with progress.bar("features", len(order)) as advance:
        for batch, values in compute(
            model, variables, parts, batches, shown, normalize=normalize, extents=takes_any_size
        ):
            features[list(batch.indices)] = values
            advance(len(batch.indices))
    if reasons:
        features[list(reasons)] = np.nan
        _tell(reasons, len(given))
    return features


def _tell(reasons: Mapping[int, str], num_images: int) -> None:
    """Warns of images that cannot be read; raises ImageError if all of them cannot."""
    if len(reasons) == num_images:
        first = reasons[min(reasons)]
        raise errors.ImageError(f"none of {num_images} images can be read: {first}")
    warnings.warn(
        f"{len(reasons)} of {num_images} images cannot be read and have features of NaN: "
        + _first_few(reasons),
        stacklevel=4,  # where `extract` is called
    )


def _first_few(reasons: Mapping[int, str]) -> str:
    """Returns the sentences of the first images, and how many more there are."""
    first = [reasons[i] for i in sorted(reasons)[:_MOST_NAMED]]
    rest = len(reasons) - len(first)
    return "; ".join(first) + (f"; and {rest} more" if rest else "")


def check_parts(model: sppnet.SPPNet, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Returns the parts, those that are vectors without levels.

    Raises:
        InputError: no parts, a layer the network does not have, or wrong levels of a map.
    """
    maps, vectors = _map_names(model), _vector_sizes(model)
    if not parts:
        raise errors.InputError("no layer is given")
    checked = []
    for part in parts:
        if not isinstance(part, Part):
            raise errors.InputError(f"several layers are given as Parts, got {part!r}")
        if part.layer in vectors:
            checked.append(Part(part.layer))
            continue
        if part.layer not in maps:
            outer = [name for name in maps if "/" not in name]
            raise errors.InputError(
                f"{model.backbone.name} has no layer {part.layer!r}; it has "
                f"{', '.join([*outer, *vectors])}"
                + (f", and those inside blocks, as {maps[0]}" if "/" in maps[0] else "")
            )
        try:
            levels = pyramid.check_levels(part.levels)
            pyramid.check_reduce(part.reduce)
        except ValueError as e:
            raise errors.InputError(f"layer {part.layer}: {e}") from e
        checked.append(dataclasses.replace(part, levels=levels))
    return tuple(checked)


def check_size(model: sppnet.SPPNet, height: int, width: int, name: str) -> None:
    """Raises InputError, which calls it `name`, unless the network takes an image of that size."""
    try:
        sppnet.check_images(
            model.backbone, (1, height, width, 3), any_size=model.levels is not None
        )
    except ValueError as e:
        raise errors.InputError(f"{name}: {e}") from e


def part_sizes(model: sppnet.SPPNet, parts: Sequence[Part]) -> list[int]:
    """Returns the number of features of each part."""
    vectors, channels = _vector_sizes(model), topology.channels(model.backbone)
    channels[model.backbone.cell_classifier] = model.num_classes
    return [
        vectors[p.layer] if p.layer in vectors else channels[p.layer] * sum(n * n for n in p.levels)
        for p in parts
    ]


def num_features(model: sppnet.SPPNet, parts: Sequence[Part]) -> int:
    """Returns D."""
    return sum(part_sizes(model, parts))


def compute(
    model: sppnet.SPPNet,
    variables: Mapping[str, Any],
    parts: tuple[Part, ...],
    batches: Sequence[planning.Batch],
    images: Iterable[np.ndarray | None],
    *,
    normalize: bool,
    extents: bool,
) -> Iterator[tuple[planning.Batch, np.ndarray]]:
    """Yields each batch with its features, (images of the batch, D) float32, in order.

    Args:
        model, variables: the network.
        parts: as `check_parts` returned them.
        batches: of a plan.
        images: those of the batches, one after the other, of the sizes they were planned with; in
            place of None a black one is computed.
        normalize: as in `extract`.
        extents: whether images may be smaller than their canvas.
    """
    mesh = sharding.make_local_mesh()
    variables = sharding.put_replicated(sppnet.cast_params(model, variables), mesh)
    in_order = iter(images)

    def start() -> Iterator[tuple[planning.Batch, jax.Array]]:
        for batch in batches:
            own = list(itertools.islice(in_order, len(batch.indices)))
            arrays = packing.pack(own, batch.canvas, batch.num_rows)
            if not extents:
                del arrays["extents"]
            placed = sharding.put_batch(arrays, mesh)
            yield batch, compute_batch(model, parts, normalize, variables, placed)

    for batch, values in flight.behind(start()):
        yield batch, np.asarray(values)[: len(batch.indices)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def compute_batch(
    model: sppnet.SPPNet,
    parts: tuple[Part, ...],
    normalize: bool,
    variables: Mapping[str, Any],
    batch: dict[str, jax.Array],
) -> jax.Array:
    """Returns (rows, D) float32."""
    extents = batch.get("extents")
    maps: Any = model.apply(variables, batch["images"], extents=extents, method="maps")
    inside = {} if extents is None else topology.sides(model.backbone, extents)
    # The map of the classifier on cells has no entry of its own: its cells are the last map's.
    last = inside.get(model.backbone.layers[-1].name)
    vectors = []
    for part in parts:
        x = maps[part.layer]
        if part.levels:
            pool = layers.SpatialPyramidPooling(part.levels, part.reduce)
            x = pool.apply({}, x, extents=inside.get(part.layer, last))
        x = jnp.asarray(x, jnp.float32)
        if normalize:
            # A vector of nothing but zeros stays one.
            x = x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        vectors.append(x)
    return jnp.concatenate(vectors, axis=1)


def _map_names(model: sppnet.SPPNet) -> list[str]:
    own = [model.pooled_map] if model.classifies_cells else []
    return [*topology.channels(model.backbone), *own]


def _vector_sizes(model: sppnet.SPPNet) -> dict[str, int]:
    if model.classifies_cells:
        return {"pool": model.num_classes, "logits": model.num_classes}
    shapes = sppnet.param_shapes(model)["head"]
    hidden = list(shapes)[:-1]
    return {
        "pool": shapes["fc6"]["kernel"].shape[0],
        **{name: shapes[name]["kernel"].shape[1] for name in hidden},
        "logits": model.num_classes,
    }
