"""Converts published layers, in Caffe's layout, to the parameters of a network.

Shapes: O outputs · I inputs · (H, W) kernel · C channels of the pooled map · P pooled features.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from spp_jax import errors
from spp_jax.models import sppnet, topology

Layers = dict[str, list[np.ndarray]]

# Names of a classifier that is the only dense layer, where it is not simply fc6.
_CLASSIFIERS = {"googlenet": "loss3/classifier"}
# GoogLeNet's auxiliary classifiers, which only its training uses.
_IGNORED = {"googlenet": ("loss1/", "loss2/")}


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer with parameters: its place in our tree, its published name and kernel's shape."""

    place: str
    name: str
    kernel: tuple[int, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.kernel, self.kernel[:1]


def head_names(backbone: topology.Backbone) -> dict[str, str]:
    """Returns {fc6 ...: the name it was published under}, the classifier last."""
    if backbone.hidden:
        return {name: name for name in (f"fc{6 + i}" for i in range(len(backbone.hidden) + 1))}
    return {"fc6": backbone.cell_classifier or _CLASSIFIERS.get(backbone.name, "fc6")}


def unused(backbone: topology.Backbone, layers: Iterable[str], fresh_head: bool) -> tuple[str, ...]:
    """Returns the names of the layers of a file that an import leaves out on purpose."""
    ignored = _IGNORED.get(backbone.name, ())
    head = head_names(backbone).values()
    return tuple(n for n in layers if n.startswith(ignored) or (fresh_head and n in head))


def to_params(
    model: sppnet.SPPNet,
    layers: Layers,
    *,
    fresh_head: bool = False,
    unscaled_dropout: bool = False,
) -> dict[str, Any]:
    """Returns the parameters {"backbone": ..., "head": ...} of a network: NumPy, float32.

    Args:
        model: the network.
        layers: {layer: [kernel, bias]}; kernels OIHW or (O, I), the first convolution's inputs
            blue, green, red; fc6's inputs level by level, the coarsest first, and in each by
            channel, row, column, as in the released code.
        fresh_head: take the convolutions only and initialise the head, with seed 0.
        unscaled_dropout: the layers are of the authors' Caffe, which halves what dropout could
            drop at test time, where ours doubles the rest in training. So the kernels of fc7 and
            fc8 are halved.

    Raises:
        InputError: layers are missing, unexpected or of another shape (the message has one line per
            layer), layers hold numbers that are not finite, or `unscaled_dropout` has no layer to
            halve.
    """
    if unscaled_dropout and (fresh_head or not model.backbone.hidden):
        raise errors.InputError(
            f"unscaled_dropout halves fc7 and fc8, and {model.backbone.name} imports none"
        )
    flat: dict[str, Any] = traverse_util.flatten_dict(sppnet.param_shapes(model), sep="/")
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    head = set(head_names(model.backbone).values())
    left_out = unused(model.backbone, layers, fresh_head)
    layers = {name: blobs for name, blobs in layers.items() if name not in left_out}
    expected = [
        layer
        for layer in _expected(model.backbone, shapes)
        if not (fresh_head and layer.name in head)
    ]
    _compare(model, layers, expected, head)

    params: dict[str, np.ndarray] = {}
    for layer in expected:
        kernel, bias = (
            _finite(layer.name, blob).reshape(shape)
            for blob, shape in zip(layers[layer.name], layer.shapes)
        )
        kernel = _reorder(model, layer, kernel)
        if unscaled_dropout and layer.place.startswith("head/") and layer.name != "fc6":
            kernel = kernel / 2
        # Copies, so that the bytes of the file need not stay in memory.
        params[f"{layer.place}/kernel"] = np.array(kernel, order="C")
        params[f"{layer.place}/bias"] = np.array(bias)
    tree = traverse_util.unflatten_dict(params, sep="/")
    if fresh_head:
        tree["head"] = _initial_head(model)
    return tree


def channel_major_order(levels: Sequence[int], channels: int) -> np.ndarray:
    """Returns (P,), the place in the published order of each of our pooled features.

    Our features are ordered by level as given, row, column, channel; published features by level,
    the coarsest first, channel, row, column.
    """
    places: list[np.ndarray] = [np.zeros(0, int)] * len(levels)
    start = 0
    for i in sorted(range(len(levels)), key=lambda i: levels[i]):
        count = channels * levels[i] ** 2
        published = np.arange(start, start + count).reshape(channels, -1)
        places[i] = published.T.reshape(-1)
        start += count
    return np.concatenate(places)


def _reorder(model: sppnet.SPPNet, layer: _Layer, kernel: np.ndarray) -> np.ndarray:
    """Returns a published kernel in our order of axes and inputs."""
    if layer.name == _first_convolution(model.backbone.layers):
        kernel = kernel[:, ::-1]
    if layer.place == "head/fc6":
        count = layer.kernel[1]
        return kernel.reshape(-1, count).T[_pooled_order(model, count)]
    return kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)


def _initial_head(model: sppnet.SPPNet) -> dict[str, Any]:
    """Returns the parameters of the head as initialised with seed 0."""
    image = jnp.zeros((1, model.backbone.size, model.backbone.size, 3))
    # Under jit the convolutions that initialisation runs are left out.
    start = jax.jit(lambda key: model.init(key, image)["params"]["head"])
    return jax.tree.map(np.asarray, start(jax.random.key(0)))


def _pooled_order(model: sppnet.SPPNet, count: int) -> np.ndarray:
    last = model.backbone.layers[-1].name
    channels = topology.channels(model.backbone)[last]
    # Without SPP the last pool makes one grid.
    levels = (math.isqrt(count // channels),) if model.levels is None else model.levels
    return channel_major_order(levels, channels)


def _expected(backbone: topology.Backbone, shapes: dict[str, tuple[int, ...]]) -> list[_Layer]:
    """Returns the layers that a file should hold, given {place/kernel: shape in our tree}."""
    names = head_names(backbone)
    expected = []
    for path, shape in shapes.items():
        place, kind = path.rsplit("/", 1)
        part, name = place.split("/", 1)
        if kind != "kernel":
            continue
        if part == "backbone":
            height, width, inputs, outputs = shape
            expected.append(_Layer(place, name, (outputs, inputs, height, width)))
        else:
            # A classifier of cells was published as the convolution that it is.
            window = (1, 1) if backbone.cell_classifier else ()
            expected.append(_Layer(place, names[name], (*shape[::-1], *window)))
    return expected


def _first_convolution(layers: Sequence[topology.Layer], prefix: str = "") -> str | None:
    for layer in layers:
        if isinstance(layer, topology.Conv):
            return prefix + layer.name
        if isinstance(layer, topology.Block):
            inner = (*layer.layers, *itertools.chain(*layer.branches))
            if name := _first_convolution(inner, f"{prefix}{layer.name}/"):
                return name
    return None


def _compare(
    model: sppnet.SPPNet, layers: Layers, expected: Sequence[_Layer], head: set[str]
) -> None:
    wanted = {layer.name: layer for layer in expected}
    wrong = []
    for name, layer in wanted.items():
        shapes = _listed(layer.shapes)
        if name not in layers:
            wrong.append((name, f"is missing: {shapes}"))
        elif not _fits(layers[name], layer.shapes):
            actual = _listed([blob.shape for blob in layers[name]])
            wrong.append((name, f"is {actual} and should be {shapes}"))
    wrong += [
        (name, f"is only in the file: {_listed([blob.shape for blob in layers[name]])}")
        for name in layers
        if name not in wanted
    ]
    if not wrong:
        return
    lines = [
        f"the weights do not fit {model.backbone.name} with levels={model.levels} and "
        f"{model.num_classes} classes; kernels are (outputs, inputs, height, width):",
        *(f"  {name} {problem}" for name, problem in wrong),
    ]
    if all(name in head for name, _ in wrong):
        lines.append("  all convolutions fit; fresh_head imports them and starts a new head")
    raise errors.InputError("\n".join(lines))


def _fits(blobs: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether the shapes are equal, except for leading ones, which Caffe wrote before 2015."""
    if len(blobs) != len(shapes):
        return False
    return all(
        (1,) * (blob.ndim - len(shape)) + shape == blob.shape for blob, shape in zip(blobs, shapes)
    )


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return " ".join(str(shape) for shape in shapes)


def _finite(name: str, blob: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = blob.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise errors.InputError(f"layer {name} of the weights holds numbers that are not finite")
    return values
