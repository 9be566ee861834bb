"""The convolutional networks as data: what stands between an image and the pyramid.

A backbone is a tuple of layers with the sides each one makes, so that map sizes, extents and the
smallest image follow from the same table that builds the network. Every convolution is followed
by a ReLU. Sides of convolutions round down, those of pools round up, as in Caffe.
"""

import dataclasses
from typing import Literal

from spp_jax.pooling import max_pool
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

    def side(self, side: Side) -> Side:
        return side


Layer = Conv | MaxPool | LRN


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network up to its head.

    Attributes:
        name: as in `make_model` and `config.model.name`.
        layers: from the image to the map the pyramid pools.
        last_pool: what stands in the pyramid's place in the network without SPP.
        size: side of that network's only input, pixels.
        hidden: widths of the fully connected layers before the classifier: fc6, fc7.
        hidden_bias: initial value of their biases, and of the classifier's.
        kernel_std: deviation of the initial weights; None is He et al.'s sqrt(2 / fan_in).
        mean: (R, G, B) subtracted from the images, 0 to 255.
        scale: by which the difference is multiplied.
    """

    name: str
    layers: tuple[Layer, ...]
    last_pool: MaxPool
    size: int = 224
    hidden: tuple[int, ...] = (4096, 4096)
    hidden_bias: float = 1.0
    kernel_std: float | None = 0.01
    # The constant the authors' released code subtracts (PAPER: appendix A's 128).
    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    scale: float = 1.0


def sides(backbone: Backbone, side: Side) -> dict[str, Side]:
    """Returns {layer: side of its map} for an image side; whole numbers or arrays of them."""
    found = {}
    for layer in backbone.layers:
        side = found[layer.name] = layer.side(side)
    return found


def smallest_side(backbone: Backbone) -> int:
    """Returns the shortest image side, in pixels, of which every layer has at least one cell."""
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
    layers = tuple(
        LRN(layer.name, **(across if kind == "across" else {})) if isinstance(layer, LRN) else layer
        for layer in backbone.layers
    )
    return dataclasses.replace(backbone, layers=layers)


# Table 1 with the pads, strides and initial biases of the released model definition.
ZF5 = Backbone(
    name="zf5",
    layers=(
        Conv("conv1", 96, 7, stride=2, padding=1),
        LRN("norm1"),
        MaxPool("pool1", 3, 2),
        Conv("conv2", 256, 5, stride=2, bias=1.0),
        LRN("norm2"),
        MaxPool("pool2", 3, 2),
        Conv("conv3", 384, 3, padding=1),
        Conv("conv4", 384, 3, padding=1, bias=1.0),
        Conv("conv5", 256, 3, padding=1, bias=1.0),
    ),
    last_pool=MaxPool("pool5", 3, 2),
)

# Not of the paper: for digit_scenes on two cores. One large first kernel with a stride of 4 trains
# several times faster than a small one and a pool.
DIGITS = Backbone(
    name="digits",
    layers=(
        Conv("conv1", 32, 7, stride=4, padding=3),
        # Strong enough to make faint digits as loud as bold ones.
        LRN("norm1", "within", size=5, alpha=1.0),
        Conv("conv2", 64, 3, padding=1),
        Conv("conv3", 64, 3, padding=1),
        MaxPool("pool3", 3, 2),
        Conv("conv4", 96, 3, padding=1),
        Conv("conv5", 96, 3, padding=1),
    ),
    last_pool=MaxPool("pool5", 2, 2),
    size=64,
    hidden=(256,),
    hidden_bias=0.0,
    kernel_std=None,
    scale=1 / 64,
)

BACKBONES = {backbone.name: backbone for backbone in (ZF5, DIGITS)}
