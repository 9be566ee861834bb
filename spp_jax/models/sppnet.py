"""SPP-net: convolutions on an image of any size, a pyramid, fully connected layers.

Shapes: N images · (H, W) pixels · P = B * C pooled features · K classes. Images are RGB, 0 to 255.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spp_jax.models import backbones, layers
from spp_jax.pooling import max_pool, pyramid


class SPPNet(nn.Module):
    """A classifier of images of any size.

    Its parameters, `backbone/conv1 ...` and `head/fc6, fc7, fc8`, are the same tree for every
    input size.

    Attributes:
        backbone: the convolutional network.
        levels: bins per side of each pyramid level; None is the network without SPP, which takes
            one size only (`backbone.size`).
        num_classes: K.
        reduce: "max" as in the paper, or "mean".
        dropout: share of fc6's and fc7's outputs dropped in training.
        dtype: of the computation; parameters and logits are float32.
    """

    backbone: backbones.Backbone
    levels: Sequence[int] | None = (6, 3, 2, 1)
    num_classes: int = 1000
    reduce: pyramid.Reduce = "max"
    dropout: float = 0.5
    dtype: str = "float32"

    def setup(self):
        self._convolutions = _Convolutions(self.backbone, self.dtype, name="backbone")
        if self.levels is not None:
            self._pyramid = layers.SpatialPyramidPooling(self.levels, self.reduce)
        self._fully_connected = _Head(
            self.backbone, self.num_classes, self.dropout, self.dtype, name="head"
        )

    def __call__(
        self, images: jax.Array, *, extents: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Returns logits (N, K), float32.

        Args:
            images: (N, H, W, 3) RGB, 0 to 255, uint8 or floating.
            extents: (N, 2) integers, the valid (height, width) of each image on its canvas, from
                its upper left corner. Each image then gets the result it would get alone.
            train: whether to drop out; needs a "dropout" key.

        Raises:
            ValueError: a wrong shape, images smaller than the backbone takes, or, without SPP,
                of another size than `backbone.size`.
        """
        return self.maps(images, extents=extents, train=train)["logits"]

    def maps(
        self, images: jax.Array, *, extents: jax.Array | None = None, train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns every named layer: conv1 ..., (N, h, w, C) after their ReLU; pool, (N, P);
        fc6, fc7, (N, F) after their ReLU; logits, (N, K).

        Under jit what is not used is not computed. Arguments and errors as `__call__`.
        """
        found = self._maps(images, extents)
        found["pool"] = self._pool(found, images.shape, extents)
        return found | self._fully_connected(found["pool"], train)

    def features(self, images: jax.Array, extents: jax.Array | None = None) -> jax.Array:
        """Returns the pooled vector (N, P), ordered as `spatial_pyramid_pool`."""
        return self._pool(self._maps(images, extents), images.shape, extents)

    def head(self, pooled: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits (R, K) of pooled vectors (R, P), of whole maps or of windows."""
        return self._fully_connected(pooled, train)["logits"]

    def _maps(self, images: jax.Array, extents: jax.Array | None) -> dict[str, jax.Array]:
        check_images(self.backbone, images.shape, has_levels=self.levels is not None)
        if extents is not None and extents.shape != (images.shape[0], 2):
            raise ValueError(
                f"extents must be ({images.shape[0]}, 2), one (height, width) an image; "
                f"got shape {extents.shape}"
            )
        mean = jnp.asarray(self.backbone.mean, jnp.float32)
        x = (images.astype(jnp.float32) - mean) * self.backbone.scale
        return self._convolutions(layers.mask_beyond(x, extents).astype(self.dtype), extents)

    def _pool(
        self, maps: dict[str, jax.Array], shape: tuple[int, ...], extents: jax.Array | None
    ) -> jax.Array:
        last = self.backbone.layers[-1].name
        if self.levels is None:
            if extents is not None:
                raise ValueError("a network without SPP takes no extents: its images have one size")
            pool = self.backbone.last_pool
            grid = max_pool.max_pool(maps[last], pool.window, pool.stride, ceil_mode=True)
            return grid.reshape(shape[0], -1)
        if extents is not None:
            extents = backbones.sides(self.backbone, extents)[last]
        return self._pyramid(maps[last], extents=extents)


def make_model(
    name: str | backbones.Backbone,
    *,
    levels: Sequence[int] | None = (6, 3, 2, 1),
    reduce: pyramid.Reduce = "max",
    num_classes: int = 1000,
    dtype: str = "float32",
    dropout: float = 0.5,
    lrn: str | None = None,
) -> SPPNet:
    """Makes a network from its name, a key of `backbones.BACKBONES`, or from a Backbone.

    Args:
        name: "zf5" or "digits", or a Backbone of the caller's.
        levels: bins per side of each pyramid level; None is the network without SPP.
        reduce: "max" as in the paper, or "mean".
        num_classes: outputs of the last layer.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
        dropout: share of fc6's and fc7's outputs dropped in training.
        lrn: None leaves normalisation as the backbone has it; "within" makes all of it that of
            one channel, as released for ZF-5, "across" that across channels, as AlexNet.

    Raises:
        ValueError: an unknown name, dtype, level or option.
    """
    if isinstance(name, backbones.Backbone):
        backbone = name
    elif name in backbones.BACKBONES:
        backbone = backbones.BACKBONES[name]
    else:
        raise ValueError(f"no network {name!r}; there are {', '.join(backbones.BACKBONES)}")
    if lrn is not None:
        backbone = backbones.with_lrn(backbone, lrn)
    if levels is not None:
        levels = tuple(levels)
        pyramid.check_levels(levels)
    pyramid.check_reduce(reduce)
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}')
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    return SPPNet(
        backbone=backbone,
        levels=levels,
        num_classes=num_classes,
        reduce=reduce,
        dropout=dropout,
        dtype=dtype,
    )


def check_images(
    backbone: backbones.Backbone, shape: Sequence[int], *, has_levels: bool = True
) -> None:
    """Raises ValueError unless (N, H, W, 3) images are of a size that the network takes."""
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"images must be (N, H, W, 3), got shape {tuple(shape)}")
    _, height, width, _ = shape
    if not has_levels and (height, width) != (backbone.size, backbone.size):
        raise ValueError(
            f"{backbone.name} without SPP takes {backbone.size}x{backbone.size} images only, "
            f"got {height}x{width}"
        )
    smallest = backbones.smallest_side(backbone)
    if min(height, width) < smallest:
        raise ValueError(
            f"{backbone.name} takes images of at least {smallest}x{smallest} pixels, "
            f"got {height}x{width}"
        )


class _Convolutions(nn.Module):
    """All layers of a backbone; (N, H, W, 3) -> {name: (N, h, w, C)}."""

    backbone: backbones.Backbone
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, extents: jax.Array | None) -> dict[str, jax.Array]:
        maps = {}
        for layer in self.backbone.layers:
            x = self._apply(layer, x)
            if extents is not None:
                extents = layer.side(extents)
            # Beyond its extent a map must hold what padding holds when the image is alone:
            # zeros, which are also safe under a maximum, for after a ReLU nothing is smaller.
            x = maps[layer.name] = layers.mask_beyond(x, extents)
        return maps

    def _apply(self, layer: backbones.Layer, x: jax.Array) -> jax.Array:
        if isinstance(layer, backbones.Conv):
            conv = nn.Conv(
                layer.features,
                (layer.kernel, layer.kernel),
                strides=layer.stride,
                padding=layer.padding,
                dtype=self.dtype,
                kernel_init=_kernel_init(self.backbone),
                bias_init=nn.initializers.constant(layer.bias),
                name=layer.name,
            )
            return nn.relu(conv(x))
        if isinstance(layer, backbones.MaxPool):
            return max_pool.max_pool(
                x, layer.window, layer.stride, padding=layer.padding, ceil_mode=True
            )
        return layers.normalize_responses(x, layer)


class _Head(nn.Module):
    """fc6, fc7, ... with ReLU and dropout, and the classifier; (R, P) -> {name: (R, F)}."""

    backbone: backbones.Backbone
    num_classes: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        found = {}
        widths = (*self.backbone.hidden, self.num_classes)
        for number, width in enumerate(widths, start=6):
            x = nn.Dense(
                width,
                dtype=self.dtype,
                kernel_init=_kernel_init(self.backbone),
                bias_init=nn.initializers.constant(self.backbone.hidden_bias),
                name=f"fc{number}",
            )(x)
            if number < 5 + len(widths):
                x = found[f"fc{number}"] = nn.relu(x)
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        found["logits"] = x.astype(jnp.float32)
        return found


def _kernel_init(backbone: backbones.Backbone):
    if backbone.kernel_std is None:
        return nn.initializers.he_normal()
    return nn.initializers.normal(backbone.kernel_std)
