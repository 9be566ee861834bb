"""SPP-net: convolutions on an image of any size, a pyramid, fully connected layers.

Shapes: N images · (H, W) pixels · P = B * C pooled features · K classes. Images are RGB, 0 to 255.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from spp_jax.models import backbones, layers, products, stack, topology
from spp_jax.pooling import max_pool, pyramid
from spp_jax.pooling import windows as pool_windows


class SPPNet(nn.Module):
    """A classifier of images of any size.

    Its parameters, `backbone/conv1 ...` and `head/fc6, fc7, fc8`, are the same tree for every
    input size.

    Attributes:
        backbone: the convolutional network.
        levels: bins per side of each pyramid level, as `pyramid.check_levels` takes them; None is
            the network without SPP, which takes images of one size only (`backbone.size`).
        num_classes: K.
        reduce: "max" as in the paper, or "mean".
        dropout: share of fc6's and fc7's outputs dropped in training.
        dtype: of the computation; parameters and logits are float32.
        fc6_rank: of the two matrices whose product is fc6's kernel (`factor_fc6`); 0: one matrix.

    Beside "params", a collection "constants" may hold `mean`: (3,) or an image (s, s, 3), which is
    warped to each image's size (appendix A). It is then subtracted in place of `backbone.mean`.
    """

    backbone: topology.Backbone
    levels: Sequence[int] | None = (6, 3, 2, 1)
    num_classes: int = 1000
    reduce: pyramid.Reduce = "max"
    dropout: float = 0.5
    dtype: str = "float32"
    fc6_rank: int = 0

    def __post_init__(self):
        # A tuple of Python's integers can be hashed, as a module that is a static argument must be.
        if self.levels is not None:
            self.levels = pyramid.check_levels(self.levels)
        super().__post_init__()

    def setup(self):
        self._convolutions = stack.Convolutions(self.backbone, self.dtype, name="backbone")
        if self.levels is not None:
            self._pyramid = layers.SpatialPyramidPooling(self.levels, self.reduce)
        self._fully_connected = _Head(
            *(self.backbone, self.num_classes, self.dropout, self.dtype, self.fc6_rank), name="head"
        )

    def __call__(
        self, images: jax.Array, *, extents: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Returns logits (N, K), float32.

        Args:
            images: (N, H, W, 3) RGB, 0 to 255, uint8 or floating.
            extents: (N, 2) integers, the valid (height, width) of each image on its canvas, from
                its upper left corner. Each image then gets the result it would get alone.
            train: whether to apply dropout, which needs a "dropout" key.

        Raises:
            ValueError: a shape is wrong, or images are smaller than the backbone takes or, without
                SPP, of another size than `backbone.size`.
        """
        return self.maps(images, extents=extents, train=train)["logits"]

    def maps(
        self, images: jax.Array, *, extents: jax.Array | None = None, train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns {layer: its output} of every named layer.

        Convolutions, conv1 ..., are (N, h, w, C) after their ReLU; a layer of a block is named as
        inception_3a/1x1, the block's output as inception_3a. pool is (N, P); fc6 and fc7 are (N, F)
        after their ReLU; logits are (N, K).

        Under jit unused layers are not computed. Arguments and errors as `__call__`.
        """
        extents = _check_extents(extents, len(images))
        outputs = self._cells(images, extents, train)
        outputs["pool"] = self._pool(outputs, images.shape, extents)
        return outputs | self.head_layers(outputs["pool"], train=train)

    def features(self, images: jax.Array, extents: jax.Array | None = None) -> jax.Array:
        """Returns the pooled vector (N, P), ordered as `spatial_pyramid_pool`."""
        extents = _check_extents(extents, len(images))
        return self._pool(self._cells(images, extents), images.shape, extents)

    def window_logits(
        self,
        images: jax.Array,
        windows: jax.Array,
        *,
        extents: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Returns logits (N, V, K) of V windows per image; the convolutions run once per image.

        `windows` are (N, V, 4) integer cells (x1, y1, x2, y2) of the map `pooled_map`, right and
        bottom exclusive. Other arguments and errors as `__call__`.
        """
        levels = self.levels
        if levels is None:
            raise ValueError("a network without SPP pools no windows")
        extents = _check_extents(extents, len(images))
        fmap = self._cells(images, extents, train)[self.pooled_map]

        # Mapped over images, so that devices that share a batch need not exchange maps.
        def pool(fmap: jax.Array, windows: jax.Array) -> jax.Array:
            return pool_windows.pool_windows(fmap, windows, levels, reduce=self.reduce)

        return self.head(jax.vmap(pool)(fmap, windows), train=train)

    def head(self, pooled: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits (R, K) of pooled vectors (R, P), of whole maps or of windows."""
        return self.head_layers(pooled, train=train)["logits"]

    def head_layers(self, pooled: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Returns fc6, fc7 ... and logits, as `maps`, of pooled vectors (R, P)."""
        if self.classifies_cells:
            return {"logits": pooled.astype(jnp.float32)}
        return self._fully_connected(pooled, train)

    @property
    def pooled_map(self) -> str:
        """Name of the map the pyramid pools."""
        if self.classifies_cells:
            return self.backbone.cell_classifier
        return self.backbone.layers[-1].name

    @property
    def classifies_cells(self) -> bool:
        """Whether the classifier and a ReLU come before the mean (`Backbone.cell_classifier`)."""
        is_published = self.levels is not None and (*self.levels, self.reduce) == (1, "mean")
        return is_published and bool(self.backbone.cell_classifier)

    def _cells(
        self, images: jax.Array, extents: jax.Array | None, train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns {layer: its map} of every layer before the pyramid."""
        maps = self._maps(images, extents)
        if self.classifies_cells:
            last = self.backbone.layers[-1].name
            scores = self._fully_connected(maps[last], train)["logits"].astype(self.dtype)
            if extents is not None:
                extents = topology.sides(self.backbone, extents)[last]
            maps[self.backbone.cell_classifier] = layers.mask_beyond(nn.relu(scores), extents)
        return maps

    def _maps(self, images: jax.Array, extents: jax.Array | None) -> dict[str, jax.Array]:
        check_images(self.backbone, images.shape, any_size=self.levels is not None)
        x = (images.astype(jnp.float32) - self._mean(images.shape, extents)) * self.backbone.scale
        if extents is None:
            inside = {}
        else:
            inside = topology.sides(self.backbone, extents)
            x = layers.mask_beyond(x, extents)
        return self._convolutions(x.astype(self.dtype), inside)

    def _mean(self, shape: tuple[int, ...], extents: jax.Array | None) -> jax.Array:
        """Returns the mean to subtract, (1 or N, 1 or H, 1 or W, 3).

        It is the mean stored with the parameters, else the backbone's.
        """
        if not self.has_variable("constants", "mean"):
            return jnp.asarray(self.backbone.mean, jnp.float32).reshape(1, 1, 1, 3)
        mean = self.get_variable("constants", "mean")
        if mean.ndim == 1:
            return mean.reshape(1, 1, 1, 3)
        return layers.warp_mean(mean, shape, extents)

    def _pool(
        self, maps: dict[str, jax.Array], shape: tuple[int, ...], extents: jax.Array | None
    ) -> jax.Array:
        fmap = maps[self.pooled_map]
        if self.levels is None:
            if extents is not None:
                raise ValueError("a network without SPP takes no extents: its images have one size")
            pool = self.backbone.last_pool
            if pool is None:
                raise ValueError(f"{self.backbone.name} needs levels: it has no form without SPP")
            grid = max_pool.max_pool(fmap, pool.window, pool.stride, ceil_mode=True)
            return grid.reshape(shape[0], -1)
        if extents is not None:
            extents = topology.sides(self.backbone, extents)[self.backbone.layers[-1].name]
        return self._pyramid(fmap, extents=extents)


def make_model(
    name: str | topology.Backbone,
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
        name: "zf5", "convnet_star5", "overfeat5", "overfeat7", "googlenet", "squeezenet1_1",
            "zf5_small" or "digits", or a Backbone of the caller's. GoogLeNet and SqueezeNet were
            published with levels=(1,), reduce="mean".
        levels: bins per side of each pyramid level, as `pyramid.check_levels` takes them; None is
            the network without SPP.
        reduce: "max" as in the paper, or "mean".
        num_classes: outputs of the last layer.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
        dropout: share of fc6's and fc7's outputs dropped in training.
        lrn: None keeps the normalisation of the backbone; "within" replaces it by normalisation
            within each channel, as released for ZF-5, "across" by AlexNet's across channels.

    Raises:
        ValueError: an unknown name, dtype, level or option.
    """
    if isinstance(name, topology.Backbone):
        backbone = name
    elif name in backbones.BACKBONES:
        backbone = backbones.BACKBONES[name]
    else:
        raise ValueError(f"no network {name!r}; there are {', '.join(backbones.BACKBONES)}")
    if lrn is not None:
        backbone = topology.with_lrn(backbone, lrn)
    if levels is not None:
        levels = pyramid.check_levels(levels)
    pyramid.check_reduce(reduce)
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f'dtype must be "float32" or "bfloat16", got {dtype!r}')
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if levels is None and backbone.last_pool is None:
        raise ValueError(
            f'{backbone.name} has no form without SPP; its own pool is levels=(1,), reduce="mean"'
        )
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


def param_shapes(model: SPPNet) -> dict:
    """Returns the parameter tree as shapes and dtypes; it is the same for every image size."""
    size = model.backbone.size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), images)["params"])


def cast_params(model: SPPNet, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables whose parameters have the dtype of the computation.

    The network casts parameters in every call. Where they do not change, as in evaluation, casting
    them once spares each call in bfloat16 from reading them in float32 and writing them again.
    """
    params = jax.tree.map(lambda x: jnp.asarray(x, model.dtype), variables["params"])
    return {**variables, "params": params}


def factor_fc6(
    model: SPPNet, variables: Mapping[str, Any], rank: int
) -> tuple[SPPNet, dict[str, Any]]:
    """Returns a network whose fc6 is two smaller products, by its truncated SVD.

    fc6's kernel (P, F) becomes (P, rank) and (rank, F), the nearest to it of all that have the
    rank. A vector then costs rank * (P + F) multiplications for P * F.

    Raises:
        ValueError: of `check_fc6_rank`.
    """
    check_fc6_rank(model, rank)
    fc6 = variables["params"]["head"]["fc6"]
    kernel = np.asarray(fc6["kernel"], np.float32)
    last = kernel.shape[1] - 1
    # The right singular vectors of the largest values. The kernel times them, times them
    # transposed, is the truncated SVD.
    _, vectors = scipy.linalg.eigh(kernel.T @ kernel, subset_by_index=[last + 1 - rank, last])
    head = {
        **variables["params"]["head"],
        "fc6_first": {"kernel": kernel @ vectors},
        "fc6": {"kernel": vectors.T, "bias": fc6["bias"]},
    }
    params = {**variables["params"], "head": head}
    return model.clone(fc6_rank=rank), {**variables, "params": params}


def check_fc6_rank(model: SPPNet, rank: int) -> None:
    """Raises ValueError unless fc6 of the network can be factored to the rank and so be cheaper.

    It can where it is one matrix (P, F), and the rank is less than P * F / (P + F).
    """
    if not model.backbone.hidden or model.classifies_cells or model.fc6_rank:
        raise ValueError(f"{model.backbone.name} has no fc6 that is one matrix")
    inputs, outputs = param_shapes(model)["head"]["fc6"]["kernel"].shape
    most = math.ceil(inputs * outputs / (inputs + outputs)) - 1
    if not 1 <= rank <= most:
        raise ValueError(
            f"fc6 of {model.backbone.name} is {inputs} x {outputs}: its rank is from 1 to {most}, "
            f"got {rank}"
        )


def check_images(
    backbone: topology.Backbone, shape: Sequence[int], *, any_size: bool = True
) -> None:
    """Raises ValueError unless (N, H, W, 3) images are of a size that the network takes.

    `any_size` is for a network with SPP; without SPP only `backbone.size` is accepted.
    """
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"images must be (N, H, W, 3), got shape {tuple(shape)}")
    _, height, width, _ = shape
    if not any_size and (height, width) != (backbone.size, backbone.size):
        raise ValueError(
            f"{backbone.name} without SPP takes {backbone.size}x{backbone.size} images only, "
            f"got {height}x{width}"
        )
    smallest = topology.smallest_side(backbone)
    if min(height, width) < smallest:
        raise ValueError(
            f"{backbone.name} takes images of at least {smallest}x{smallest} pixels, "
            f"got {height}x{width}"
        )


def _check_extents(extents: jax.Array | None, count: int) -> jax.Array | None:
    """Returns the extents of `count` images as int32, the type of all sides computed from them."""
    if extents is None:
        return None
    extents = pool_windows.as_int32(extents, "extents")
    if extents.shape != (count, 2):
        raise ValueError(
            f"extents must be ({count}, 2), one (height, width) per image; "
            f"got shape {extents.shape}"
        )
    return extents


class _Head(nn.Module):
    """fc6, fc7, ... with ReLU and dropout, and the classifier; (R, P) -> {name: (R, F)}.

    Where the classifier is the only layer, its input drops out, as published for GoogLeNet.
    """

    backbone: topology.Backbone
    num_classes: int
    dropout: float
    dtype: str
    fc6_rank: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        outputs = {}
        widths = (*self.backbone.hidden, self.num_classes)
        init = stack.kernel_init(self.backbone)
        if self.fc6_rank:
            x = products.Dense(self.fc6_rank, self.dtype, init, None, name="fc6_first")(x)
        for number, width in enumerate(widths, start=6):
            if number > 6 or len(widths) == 1:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = products.Dense(
                width,
                self.dtype,
                init,
                nn.initializers.constant(self.backbone.hidden_bias),
                name=f"fc{number}",
            )(x)
            if number < 5 + len(widths):
                x = outputs[f"fc{number}"] = nn.relu(x)
        outputs["logits"] = x.astype(jnp.float32)
        return outputs
