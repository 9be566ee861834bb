"""What a network costs: its parameters, and the operations of an image."""

import math
from typing import Any

import flax.traverse_util
import jax

from spp_jax.models import sppnet, topology


def count(model: sppnet.SPPNet, size: int) -> tuple[int, int]:
    """Returns (parameters, floating point operations of one image of size x size pixels).

    Counted are convolutions and dense layers, in the network as `model` has it.
    """
    shapes = sppnet.param_shapes(model)
    sides = topology.sides(model.backbone, size)
    last = sides[model.backbone.layers[-1].name]
    operations = 0
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(shapes, sep="/")
    for name, x in flat.items():
        part, layer, leaf = name.split("/", 1)[0], *name.split("/", 1)[1].rsplit("/", 1)
        if leaf == "kernel":
            side = sides[layer] if part == "backbone" else last if model.classifies_cells else 1
            operations += 2 * math.prod(x.shape) * side**2
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)), operations
