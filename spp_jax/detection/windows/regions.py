"""Features of windows: convolutions once per scale, then every window pooled (section 4.1).

Shapes: B images, one per device · R windows of an image · U distinct cells of these windows, padded
to a few counts · P pooled features · F features of the layer `config.features.layer`. Windows are
(x1, y1, x2, y2) pixels of the original image, right and bottom exclusive.
"""

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors, sharding
from spp_jax.canvas import arithmetic, planning
from spp_jax.data import images
from spp_jax.data.loading import reading
from spp_jax.detection import device
from spp_jax.detection.windows import scales
from spp_jax.models import sppnet, topology

# Images are grouped by their shapes at this shorter side, pixels.
PLANNED = 1024

_NO_ROWS = np.zeros(0, np.int64)


# (encoded image, its name, the decoded image) -> (R, 4) proposals.
Propose = Callable[[bytes, str, np.ndarray], np.ndarray]


class LoadedImage(NamedTuple):
    """An image as `ImageLoader` read it.

    Attributes:
        size: its (height, width), pixels.
        resized: its pixels at each scale, (h, w, 3) uint8 RGB.
        proposals: (R, 4).
    """

    size: tuple[int, int]
    resized: tuple[np.ndarray, ...]
    proposals: np.ndarray


class Pooled(NamedTuple):
    """The features of an image's windows; windows on the same cells share a row of features.

    Attributes:
        image: the image's index in the source.
        loaded: the image as it was read.
        windows: (R, 4).
        row: (R,) for each window, its row in `pool` and in `layer`.
        pool: (U, P) float32 pooled features, on the device; rows that `row` does not name are
            padding. (0, 0) if no image of the batch has windows.
        layer: (U, F) float32 features of the layer, likewise; `pool` again for layer "pool".
    """

    image: int
    loaded: LoadedImage
    windows: np.ndarray
    row: np.ndarray
    pool: jax.Array
    layer: jax.Array


@dataclasses.dataclass(frozen=True)
class ImageLoader:
    """Reads an image for `Regions.stream`; can be pickled for loader processes.

    Attributes:
        scales: shorter sides to which images are resized, pixels.
        propose: gives an image its proposals.
    """

    scales: tuple[int, ...]
    propose: Propose

    def __call__(self, data: bytes, name: str) -> LoadedImage:
        """Returns an encoded image, read; raises ImageError if it cannot be."""
        image = images.decode(data, name)
        resized = tuple(images.resize_shorter(image, scale) for scale in self.scales)
        return LoadedImage(image.shape[:2], resized, self.propose(data, name, image))


class Regions:
    """Computes the features of windows of many images, with few compiled programs.

    Attributes:
        model: the network.
        backbone: its convolutions.
        config: how windows are pooled.
        map: name of the map that is pooled.
    """

    def __init__(
        self,
        model: sppnet.SPPNet,
        variables: Mapping[str, Any],
        config: config_lib.FeatureConfig,
        *,
        fc6_rank: int = 0,
    ):
        self.map, self._pyramid = check_features(model, config, fc6_rank=fc6_rank)
        if fc6_rank:
            model, variables = sppnet.factor_fc6(model, variables, fc6_rank)
        self.model, self.backbone, self.config = model, model.backbone, config
        self._mesh = sharding.make_local_mesh()
        cast = sppnet.cast_params(model, variables)
        self._variables = sharding.put_replicated(cast, self._mesh)
        self._target_side = config.target_side or default_target(self.backbone, config.scale_rule)

    @property
    def num_features(self) -> tuple[int, int]:
        """(P, F): the numbers of pooled features, and of features of the layer."""
        levels, _ = self._pyramid
        pool = topology.channels(self.backbone)[self.map] * sum(n * n for n in levels)
        if self.config.layer == "pool":
            return pool, pool
        return pool, self.backbone.hidden[int(self.config.layer[2:]) - 6]

    def plan(self, sizes: dict[int, tuple[int, int]]) -> list[planning.Batch]:
        """Returns `plan` of images, {index: (height, width) of the original}."""
        return plan(sizes, self.config, self._mesh.size)

    def stream(
        self,
        source: Any,
        batches: Sequence[planning.Batch],
        propose: Propose,
        choose: Callable[[int, LoadedImage], np.ndarray],
        refuse: Callable[[int, str], None],
    ) -> Generator[Pooled, None, None]:
        """Yields the features of each image of the batches that can be read, in order.

        Args:
            source: a `data.sources.objects.ObjectSource`.
            batches: of a plan.
            propose: gives an image its proposals.
            choose: (index, image) -> (R, 4), the windows of the image to compute.
            refuse: is called with the index of each image that cannot be read, and a sentence.
        """
        order = [i for batch in batches for i in batch.indices]
        loader = ImageLoader(self.config.scales, propose)
        examples = reading.eval_examples(source, loader, 0, order)
        try:
            for batch in batches:
                canvases = scale_canvas(batch.canvas, self.config.scales)
                members: list[tuple[int, LoadedImage, np.ndarray]] = []
                for index, example in zip(batch.indices, examples):
                    if example.refused:
                        refuse(index, example.refused)
                    else:
                        windows = choose(index, example.views)
                        members.append((index, example.views, windows))
                if any(len(windows) for *_, windows in members):
                    yield from self._compute(members, canvases)
                else:
                    none = jnp.zeros((0, 0))
                    yield from (Pooled(*member, _NO_ROWS, none, none) for member in members)
        finally:
            examples.close()

    def cells(self, size: tuple[int, int], windows: np.ndarray) -> scales.Cells:
        """Returns the distinct cells of windows (R, 4) of an image of size (height, width)."""
        config = self.config
        chosen = scales.choose_scale(
            windows, size, config.scales, target_side=self._target_side, rule=config.scale_rule
        )
        cells = scales.to_cells(
            windows, size, config.scales, chosen, self.backbone, self.map, rule=config.cell_rule
        )
        return scales.distinct(chosen, cells)

    def _compute(
        self,
        members: list[tuple[int, LoadedImage, np.ndarray]],
        canvases: tuple[tuple[int, int], ...],
    ) -> Generator[Pooled, None, None]:
        """Yields the features of (index, image, windows) of a batch, given a canvas per scale."""
        num_rows = self._mesh.size
        maps = []
        for number, canvas in enumerate(canvases):
            stacked = np.zeros((num_rows, *canvas, 3), np.uint8)
            extents = np.tile(np.asarray(canvas, np.int32), (num_rows, 1))
            for row, (_, loaded, _) in enumerate(members):
                height, width, _ = loaded.resized[number].shape
                stacked[row, :height, :width] = loaded.resized[number]
                extents[row] = height, width
            placed = sharding.put_batch({"images": stacked, "extents": extents}, self._mesh)
            maps.append(device.make_map(self.model, self.map, self._variables, placed))
        all_cells = [self.cells(loaded.size, windows) for _, loaded, windows in members]
        count = padded_count(max(len(entry.cells) for entry in all_cells))
        cells = np.zeros((num_rows, count, 4), np.int32)
        map_index = np.zeros((num_rows, count), np.int32)
        for row, entry in enumerate(all_cells):
            cells[row] = pad_rows(entry.cells, count)
            map_index[row] = pad_rows(entry.map_index, count)
        placed = sharding.put_batch({"cells": cells, "map_index": map_index}, self._mesh)
        pool, layer = device.pool_maps(
            self.model, self._pyramid, self.config.layer, self._variables, tuple(maps), placed
        )
        for row, (index, loaded, windows) in enumerate(members):
            yield Pooled(index, loaded, windows, all_cells[row].inverse, pool[row], layer[row])


def plan(
    sizes: dict[int, tuple[int, int]],
    config: config_lib.FeatureConfig,
    num_devices: int,
) -> list[planning.Batch]:
    """Returns batches of images of similar shape, one image per device.

    Canvases are those at a shorter side of `PLANNED`; `scale_canvas` returns those at other scales.

    Args:
        sizes: {index: (height, width) of the original image}.
        config: scales, and the number of canvases wanted.
        num_devices: images of a batch.
    """
    shapes = {i: arithmetic.shorter_size(*size, PLANNED) for i, size in sizes.items()}
    # An image is computed at each scale: `pixels` times its pixels at `PLANNED`. A canvas has one
    # program per scale, and one for the windows.
    pixels = sum((scale / PLANNED) ** 2 for scale in config.scales)
    compile_pixels = planning.COMPILE_PIXELS * (len(config.scales) + 1) / pixels
    return planning.plan(
        shapes, config.num_canvases, 1, num_devices, compile_pixels=round(compile_pixels)
    )


def scale_canvas(
    canvas: tuple[int, int], shorter_sides: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Returns for each scale a canvas for the images that `canvas` holds at `PLANNED`.

    Args:
        canvas: (height, width).
        shorter_sides: the scales.
    """
    height, width = canvas
    # Sides of images are rounded both at `PLANNED` and at the scale.
    return tuple(
        (
            math.ceil((height + 0.5) * scale / PLANNED + 0.5),
            math.ceil((width + 0.5) * scale / PLANNED + 0.5),
        )
        for scale in shorter_sides
    )


def padded_count(count: int) -> int:
    """Returns the count rounded up to 64, 96, 128, 192 ...

    So few programs are compiled, and about a sixth more windows are computed.
    """
    power = 64
    while power < count:
        power *= 2
    return power * 3 // 4 if power > 64 and count <= power * 3 // 4 else power


def pad_rows(array: np.ndarray, count: int, value: float = 0) -> np.ndarray:
    """Returns an array (R, ...) with rows of `value` appended, (count, ...)."""
    missing = [(0, count - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, missing, constant_values=value)


def default_target(backbone: topology.Backbone, rule: str) -> int:
    """Returns the side that a window should have on its scale, pixels.

    With rule "area" it is the network's own, 224; else the released code's, 13 * 16 = 208 for ZF-5.
    """
    if rule == "area":
        return backbone.size
    last = backbone.layers[-1].name
    stride = topology.geometries(backbone)[last].stride
    return topology.sides(backbone, backbone.size)[last] * stride


def check_features(
    model: sppnet.SPPNet, config: config_lib.FeatureConfig, *, fc6_rank: int = 0
) -> tuple[str, tuple[tuple[int, ...], Any]]:
    """Returns the name of the map to pool, and (levels, reduction of each bin).

    Args:
        model: the network.
        config: how windows are pooled.
        fc6_rank: of `config.test`.

    Raises:
        InputError: the network has no such map or layer, or does not take images so small.
    """
    if model.levels is None:
        raise errors.InputError("a network without SPP pools no windows; detection needs one")
    last, names = model.backbone.layers[-1].name, list(topology.channels(model.backbone))
    name, levels = config.map or last, tuple(config.levels or model.levels)
    if name not in names:
        outer = ", ".join(n for n in names if "/" not in n)
        raise errors.InputError(
            f"config.features.map={name}: {model.backbone.name} has no such map; it has {outer}"
        )
    if config.layer != "pool":
        hidden = [f"fc{6 + i}" for i in range(len(model.backbone.hidden))]
        if config.layer not in hidden or model.classifies_cells:
            choices = ", ".join(["pool", *hidden])
            raise errors.InputError(
                f"config.features.layer={config.layer}: {model.backbone.name} has {choices}"
            )
        if (levels, config.reduce) != (tuple(model.levels), model.reduce):
            raise errors.InputError(
                f"config.features.levels={levels}, reduce={config.reduce}: {config.layer} of this "
                f"network stands on {tuple(model.levels)}, {model.reduce}"
            )
    if fc6_rank:
        try:
            sppnet.check_fc6_rank(model, fc6_rank)
        except ValueError as e:
            raise errors.InputError(f"config.test.fc6_rank={fc6_rank}: {e}") from e
    smallest = topology.smallest_side(model.backbone)
    if config.scales[0] < smallest:
        raise errors.InputError(
            f"config.features.scales={config.scales}: {model.backbone.name} takes at least "
            f"{smallest} pixels"
        )
    return name, (levels, config.reduce)
