"""Convolutional networks as tables of layers, and the sizes that follow from a table.

A backbone is a tuple of layers with the sides each one makes, so that map sizes, extents, the
smallest image and the receptive fields follow from the same table that builds the network. Every
convolution is followed by a ReLU. Sides of convolutions round down, those of pools round up, as in
Caffe.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeVar

import numpy as np

from spp_jax.pooling import max_pool
from spp_jax.pooling import windows as window_pooling
from spp_jax.pooling.max_pool import Side


@dataclasses.dataclass(frozen=True)
class Conv:
    """A square convolution and its ReLU. `bias` is the initial value of its biases."""

    name: str
    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: float = 0.0

    def side(self, side: Side) -> Side:
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """A max pool of square windows, the last one clipped to the map (Caffe's ceil mode)."""

    name: str
    window: int
    stride: int
    padding: int = 0

    def side(self, side: Side) -> Side:
        return max_pool.pooled_side(side, self.window, self.stride, self.padding, ceil_mode=True)


@dataclasses.dataclass(frozen=True)
class LRN:
    """Local response normalisation x / (k + alpha / n * sum(x^2))^beta over n cells.

    "within" sums over size x size cells of one channel (n = size^2), "across" over `size`
    channels of one cell (n = size). The sum is clipped at the border, n is not.
    """

    name: str
    kind: Literal["within", "across"] = "within"
    size: int = 3
    alpha: float = 5e-5
    beta: float = 0.75
    k: float = 1.0

    @property
    def cells(self) -> int:
        """The n of the formula."""
        return self.size**2 if self.kind == "within" else self.size

    def side(self, side: Side) -> Side:
        return side


@dataclasses.dataclass(frozen=True)
class Block:
    """Layers one after the other, then branches side by side, concatenated along channels.

    Its layers are named "block/layer", its output "block". All branches make maps of one side.
    """

    name: str
    layers: tuple["Layer", ...] = ()
    branches: tuple[tuple["Layer", ...], ...] = ()


Leaf = Conv | MaxPool | LRN
Layer = Leaf | Block
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where the cells of a map lie in the image, and how much of it they see.

    Attributes:
        stride: image pixels from one cell to the next.
        offset0: image pixel, the first being 1 as published, on which the first cell is centred.
        receptive_field: side of the square of pixels a cell depends on.
    """

    stride: int = 1
    offset0: float = 1.0
    receptive_field: int = 1

    def through(self, kernel: int, stride: int, padding: int) -> "Geometry":
        """Returns the geometry after a convolution or pool."""
        return Geometry(
            self.stride * stride,
            self.offset0 + ((kernel - 1) / 2 - padding) * self.stride,
            self.receptive_field + (kernel - 1) * self.stride,
        )


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network up to its head.

    Attributes:
        name: as in `make_model` and `config.model.name`.
        layers: from the image to the map the pyramid pools.
        last_pool: the pool in the pyramid's place in the network without SPP; None where there is
            no such network, as its own pool is a pyramid too, levels=(1,), reduce="mean".
        size: side of the image it was made for, pixels; without SPP it takes no other.
        hidden: widths of the fully connected layers before the classifier: fc6, fc7.
        hidden_bias: initial value of their biases, and of the classifier's.
        kernel_std: deviation of the initial weights; None is He et al.'s sqrt(2 / fan_in).
        mean: (R, G, B) subtracted from the images, 0 to 255.
        scale: factor by which the images are multiplied after the mean is subtracted.
        cell_classifier: name of the map of scores of a network that was published with its
            classifier on each cell of the last map, then a ReLU, then the mean; else "".
        window_offset: pixels by which a window shrinks on each side before it is mapped to cells,
            as in the released code; None is half a stride: the cells centred inside the window.
    """

    name: str
    layers: tuple[Layer, ...]
    last_pool: MaxPool | None = None
    size: int = 224
    hidden: tuple[int, ...] = (4096, 4096)
    hidden_bias: float = 1.0
    kernel_std: float | None = 0.01
    # The constant that the released code subtracts.
    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    scale: float = 1.0
    cell_classifier: str = ""
    window_offset: float | None = None


def sides(backbone: Backbone, side: Side) -> dict[str, Side]:
    """Returns {layer: side of its map} for an image side; whole numbers or arrays of them."""
    return _fold(backbone.layers, side, lambda layer, x: layer.side(x), lambda xs: xs[0])


def channels(backbone: Backbone) -> dict[str, int]:
    """Returns {layer: channels of its map}."""

    def step(layer: Leaf, count: int) -> int:
        return layer.features if isinstance(layer, Conv) else count

    return _fold(backbone.layers, 3, step, sum)


def geometries(backbone: Backbone) -> dict[str, Geometry]:
    """Returns {layer: geometry of its map}; a block's is that of its widest branch.

    As in the paper, normalisation over neighbouring cells is not counted.
    """

    def step(layer: Leaf, g: Geometry) -> Geometry:
        if isinstance(layer, Conv):
            return g.through(layer.kernel, layer.stride, layer.padding)
        if isinstance(layer, MaxPool):
            return g.through(layer.window, layer.stride, layer.padding)
        return g

    def widest(branches: list[Geometry]) -> Geometry:
        return max(branches, key=lambda g: g.receptive_field)

    return _fold(backbone.layers, Geometry(), step, widest)


def map_size(backbone: Backbone, layer: str, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) in cells of a layer's map of an image of that size, pixels."""
    return sides(backbone, size[0])[layer], sides(backbone, size[1])[layer]


def window_cells(
    backbone: Backbone,
    layer: str,
    windows: np.ndarray,
    size: tuple[int, int],
    *,
    tolerant: bool = True,
) -> np.ndarray:
    """Returns the cells (R, 4), int32, of windows on a layer's map of an image.

    Args:
        backbone, layer: the network and the layer whose map it is.
        windows: (R, 4) pixels (x1, y1, x2, y2) of the network's input, right and bottom exclusive.
        size: (height, width) of the input, pixels.
        tolerant: whether windows shrink by the backbone's `window_offset`, if it has one. Else they
            shrink by half a stride, so that only cells centred inside a window count.
    """
    geometry = geometries(backbone)[layer]
    offset = backbone.window_offset if tolerant else None
    return window_pooling.image_to_cells(
        windows,
        map_size(backbone, layer, size),
        stride=geometry.stride,
        offset0=geometry.offset0,
        offset=geometry.stride / 2 if offset is None else offset,
    )


def _fold(
    layers: tuple[Layer, ...],
    start: T,
    step: Callable[[Leaf, T], T],
    join: Callable[[list[T]], T],
    prefix: str = "",
) -> dict[str, T]:
    """Returns {layer: value}, a value being computed layer by layer from `start` at the image.

    Args:
        layers: the layers, one after the other.
        start: the value before the first layer.
        step: returns the value after a layer, given the value before it.
        join: returns the value after a block, given the values at the ends of its branches.
        prefix: the beginning of every name.
    """
    values: dict[str, T] = {}
    for layer in layers:
        name = prefix + layer.name
        if isinstance(layer, Block):
            values |= _fold(layer.layers, start, step, join, name + "/")
            if layer.layers:
                start = values[f"{name}/{layer.layers[-1].name}"]
            for branch in layer.branches:
                values |= _fold(branch, start, step, join, name + "/")
            if layer.branches:
                start = join([values[f"{name}/{b[-1].name}"] for b in layer.branches])
        else:
            start = step(layer, start)
        values[name] = start
    return values


def smallest_side(backbone: Backbone) -> int:
    """Returns the shortest image side, in pixels, for which no layer's map is empty."""
    side = 1
    while min(sides(backbone, side).values()) < 1:
        side += 1
    return side


def with_lrn(backbone: Backbone, kind: str) -> Backbone:
    """Returns the backbone with all its normalisation of one kind.

    "within" are the constants released for ZF-5; "across" are AlexNet's (k 2, n 5, 1e-4, 0.75;
    alpha is 5e-4 here because it is divided by n).
    """
    if kind not in ("within", "across"):
        raise ValueError(f'lrn must be "within" or "across", got {kind!r}')
    across = {"kind": "across", "size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}

    def change(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(
            LRN(layer.name, **(across if kind == "across" else {}))
            if isinstance(layer, LRN)
            else dataclasses.replace(
                layer,
                layers=change(layer.layers),
                branches=tuple(change(branch) for branch in layer.branches),
            )
            if isinstance(layer, Block)
            else layer
            for layer in layers
        )

    return dataclasses.replace(backbone, layers=change(backbone.layers))
