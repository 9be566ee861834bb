"""Features of windows: convolutions once a scale, then every window pooled (section 4.1).

Shapes: B images, one a device · R windows of an image · U distinct ones, padded to a few counts ·
P pooled features · F features of the layer that is asked for. Windows are (x1, y1, x2, y2) pixels
of the original image, right and bottom exclusive.
"""

import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
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

# Shorter side for which images are grouped by shape, pixels.
PLANNED = 1024

_NO_ROWS, _NONE = np.zeros(0, np.int64), jnp.zeros((0, 0))


Propose = Callable[[bytes, str, np.ndarray], np.ndarray]


class Shown(NamedTuple):
    """An image as it was read: its (height, width), itself at each scale, and its proposals."""

    size: tuple[int, int]
    resized: tuple[np.ndarray, ...]
    proposals: np.ndarray


class Pooled(NamedTuple):
    """The features of an image's windows.

    Attributes:
        image: its index in the source.
        shown: the image.
        windows: (R, 4).
        row: (R,) which of the rows below each window has; none where no image of a batch has any
            windows, and below is (0, 0).
        pool: (U', P) float32 on the device; rows beyond the last in `row` are padding.
        layer: (U', F), the same as `pool` for layer "pool".
    """

    image: int
    shown: Shown
    windows: np.ndarray
    row: np.ndarray
    pool: jax.Array
    layer: jax.Array


@dataclasses.dataclass(frozen=True)
class Show:
    """Reads an image for `Regions.stream`; can be sent to loader processes.

    Attributes:
        scales: shorter sides to resize it to.
        propose: (data, name, decoded image) -> (R, 4) proposals.
    """

    scales: tuple[int, ...]
    propose: Propose

    def __call__(self, data: bytes, name: str) -> Shown:
        image = images.decode(data, name)
        resized = tuple(images.resize_shorter(image, scale) for scale in self.scales)
        return Shown(image.shape[:2], resized, self.propose(data, name, image))


class Regions:
    """Pools windows of the images of a source, in few programs.

    Attributes:
        model: the network.
        backbone: its convolutions.
        map: name of the map that is pooled.
    """

    def __init__(self, model: sppnet.SPPNet, variables: dict, config: config_lib.FeatureConfig):
        self.model, self.backbone, self.config = model, model.backbone, config
        self.map, self._pyramid = check_features(model, config)
        self._mesh = sharding.make_mesh()
        self._variables = sharding.put_replicated(variables, self._mesh)
        self._target_side = config.target_side or default_target(self.backbone, config.scale_rule)

    @property
    def num_features(self) -> tuple[int, int]:
        """P and F: features of the pool, and of the layer."""
        levels, _ = self._pyramid
        pool = topology.channels(self.backbone)[self.map] * sum(n * n for n in levels)
        if self.config.layer == "pool":
            return pool, pool
        return pool, self.backbone.hidden[int(self.config.layer[2:]) - 6]

    def plan(self, sizes: dict[int, tuple[int, int]]) -> list[planning.Batch]:
        """Groups images, {index: (height, width) of the original}, by shape, as `plan`."""
        return plan(sizes, self.config, self._mesh.size)

    def stream(
        self,
        source: Any,
        batches: Sequence[planning.Batch],
        propose: Propose,
        choose: Callable[[int, Shown], np.ndarray],
        refuse: Callable[[int, str], None],
    ) -> Generator[Pooled, None, None]:
        """Yields the features of each image of the batches that can be read, in order.

        Args:
            source: a `data.objects.ObjectSource`.
            batches: of a plan.
            propose: as `Show.propose`.
            choose: (index, image) -> (R, 4) the windows that are wanted of it.
            refuse: is told of each image that cannot be read, with a sentence.
        """
        order = [i for batch in batches for i in batch.indices]
        look = Show(self.config.scales, propose)
        shown = reading.eval_examples(source, look, 0, order)
        try:
            for batch in batches:
                group = scale_canvas(batch.canvas, self.config.scales)
                found: list[tuple[int, Shown, np.ndarray]] = []
                for index, example in zip(batch.indices, shown):
                    if example.refused:
                        refuse(index, example.refused)
                    else:
                        windows = choose(index, example.views)
                        found.append((index, example.views, windows))
                if any(len(windows) for *_, windows in found):
                    yield from self._compute(found, group)
                else:
                    yield from (Pooled(*entry, _NO_ROWS, _NONE, _NONE) for entry in found)
        finally:
            shown.close()

    def cells(self, shown_size: tuple[int, int], windows: np.ndarray) -> scales.Cells:
        """Returns the distinct cells of windows of an image of a (height, width)."""
        config = self.config
        chosen = scales.choose_scale(
            windows, shown_size, config.scales, self._target_side, config.scale_rule
        )
        cells = scales.to_cells(
            windows, shown_size, config.scales, chosen, self.backbone, self.map, config.cell_rule
        )
        return scales.distinct(chosen, cells)

    def _compute(
        self,
        found: list[tuple[int, Shown, np.ndarray]],
        group: tuple[tuple[int, int], ...],
    ) -> Generator[Pooled, None, None]:
        num_rows = self._mesh.size
        maps = []
        for number, canvas in enumerate(group):
            stacked = np.zeros((num_rows, *canvas, 3), np.uint8)
            extents = np.tile(np.asarray(canvas, np.int32), (num_rows, 1))
            for row, (_, shown, _) in enumerate(found):
                height, width, _ = shown.resized[number].shape
                stacked[row, :height, :width] = shown.resized[number]
                extents[row] = height, width
            placed = sharding.put_batch({"images": stacked, "extents": extents}, self._mesh)
            maps.append(device.make_map(self.model, self.map, self._variables, placed))
        all_cells = [self.cells(shown.size, windows) for _, shown, windows in found]
        count = padded_count(max(len(cells.cells) for cells in all_cells))
        cells = np.zeros((num_rows, count, 4), np.int32)
        map_index = np.zeros((num_rows, count), np.int32)
        for row, own in enumerate(all_cells):
            cells[row] = pad_rows(own.cells, count)
            map_index[row] = pad_rows(own.map_index, count)
        placed = sharding.put_batch({"cells": cells, "map_index": map_index}, self._mesh)
        pool, layer = device.pool_maps(
            self.model, self._pyramid, self.config.layer, self._variables, tuple(maps), placed
        )
        for row, (index, shown, windows) in enumerate(found):
            yield Pooled(index, shown, windows, all_cells[row].inverse, pool[row], layer[row])


def plan(
    sizes: dict[int, tuple[int, int]],
    config: config_lib.FeatureConfig,
    num_devices: int,
) -> list[planning.Batch]:
    """Groups images, {index: (height, width) of the original}, by shape, one a device.

    Canvases are those of a shorter side of `PLANNED`; `scale_canvas` makes those of other scales.
    """
    shapes = {i: arithmetic.shorter_size(*size, PLANNED) for i, size in sizes.items()}
    # A canvas has a program for each scale and one for the windows, and an image is computed at
    # each scale: at `PLANNED` that is so many pixels.
    pixels = sum((scale / PLANNED) ** 2 for scale in config.scales)
    compile_pixels = planning.COMPILE_PIXELS * (len(config.scales) + 1) / pixels
    return planning.plan(
        shapes, config.num_canvases, 1, num_devices, compile_pixels=round(compile_pixels)
    )


def scale_canvas(
    canvas: tuple[int, int], shorter_sides: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Returns for each scale the canvas that holds what `canvas` holds at `PLANNED`."""
    height, width = canvas
    # Sides of images are rounded at either scale.
    return tuple(
        (
            math.ceil((height + 0.5) * scale / PLANNED + 0.5),
            math.ceil((width + 0.5) * scale / PLANNED + 0.5),
        )
        for scale in shorter_sides
    )


def padded_count(count: int) -> int:
    """Returns the count rounded up to 64, 96, 128, 192 ...: few programs, a sixth more windows."""
    power = 64
    while power < count:
        power *= 2
    return power * 3 // 4 if power > 64 and count <= power * 3 // 4 else power


def pad_rows(array: np.ndarray, count: int, value: float = 0) -> np.ndarray:
    """Returns (R, ...) with rows of `value` added, (count, ...)."""
    missing = [(0, count - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, missing, constant_values=value)


def default_target(backbone: topology.Backbone, rule: str) -> int:
    """Returns the side a window is to have on its scale: 224, or 13 * 16 = 208 as released."""
    if rule == "area":
        return backbone.size
    last = backbone.layers[-1].name
    stride = topology.geometries(backbone)[last].stride
    return topology.sides(backbone, backbone.size)[last] * stride


def check_features(
    model: sppnet.SPPNet, config: config_lib.FeatureConfig
) -> tuple[str, tuple[tuple[int, ...], Any]]:
    """Returns the name of the map, and the levels and what a bin holds.

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
            known = ", ".join(["pool", *hidden])
            raise errors.InputError(
                f"config.features.layer={config.layer}: {model.backbone.name} has {known}"
            )
        if (levels, config.reduce) != (tuple(model.levels), model.reduce):
            raise errors.InputError(
                f"config.features.levels={levels}, reduce={config.reduce}: {config.layer} of this "
                f"network stands on {tuple(model.levels)}, {model.reduce}"
            )
    smallest = topology.smallest_side(model.backbone)
    if config.scales[0] < smallest:
        raise errors.InputError(
            f"config.features.scales={config.scales}: {model.backbone.name} takes at least "
            f"{smallest} pixels"
        )
    return name, (levels, config.reduce)
