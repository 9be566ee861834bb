"""The rows of the SVM benchmarks' table: which features, and their inner products."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spp_jax import config as config_lib
from spp_jax.evaluation import features
from spp_jax.evaluation.svm import machines
from spp_jax.models import sppnet, topology


def default_rows(model: sppnet.SPPNet) -> tuple[config_lib.Row, ...]:
    """Returns rows that show what the bins add: 1, 5, 14 and 50 of the last map.

    Then the fully connected layers, and last the 14 bins of the last map together with those of the
    last map of twice its resolution.
    """
    part, backbone = config_lib.Part, model.backbone
    last = backbone.layers[-1].name
    strides = {layer.name: topology.geometries(backbone)[layer.name] for layer in backbone.layers}
    finer = [n for n, geometry in strides.items() if geometry.stride < strides[last].stride]
    pyramids = ((1,), (2, 1), (3, 2, 1), (6, 3, 2, 1))
    rows: list[config_lib.Row] = [(part(last, levels),) for levels in pyramids]
    rows += [(part(f"fc{6 + i}"),) for i in range(len(backbone.hidden))]
    if finer:
        rows.append((part(finer[-1], (3, 2, 1)),))
        rows.append((part(last, (3, 2, 1)), part(finer[-1], (3, 2, 1))))
    return tuple(rows)


def merge_parts(rows: Sequence[config_lib.Row]) -> tuple[config_lib.Part, ...]:
    """Returns one part for each layer and reduction, with every level that a row has of it."""
    merged: dict[tuple[str, Any], set[int]] = {}
    for part in (part for row in rows for part in row):
        merged.setdefault((part.layer, part.reduce), set()).update(part.levels)
    return tuple(
        config_lib.Part(layer, tuple(sorted(levels, reverse=True)), reduce)
        for (layer, reduce), levels in merged.items()
    )


def label(row: config_lib.Row) -> str:
    """Returns what a row is called: "conv5 {3,2,1} 14 bins"."""
    names = []
    for part in row:
        bins = sum(n * n for n in part.levels)
        pyramid = f" {{{','.join(map(str, part.levels))}}} {bins} bin{'s' * (bins > 1)}"
        names.append(part.layer + (pyramid if bins else "") + " mean" * (part.reduce == "mean"))
    return " + ".join(names)


class Kernels:
    """Inner products of the parts of rows, each level multiplied out once."""

    def __init__(self, model: sppnet.SPPNet, parts: Sequence[config_lib.Part], values: np.ndarray):
        self._values = values
        self._columns: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._products: dict[tuple[str, str, int], np.ndarray] = {}
        first = 0
        for part, size in zip(parts, features.part_sizes(model, parts)):
            channels = size // max(1, sum(n * n for n in part.levels))
            for n in part.levels or (1,):
                stop = first + channels * n * n
                self._columns[part.layer, part.reduce, n] = first, stop
                first = stop

    def of_part(self, part: config_lib.Part) -> np.ndarray:
        """Returns the inner products of the part's vectors, each of length 1."""
        total: Any = 0
        for n in part.levels or (1,):
            key = part.layer, part.reduce, n
            if key not in self._products:
                first, stop = self._columns[key]
                self._products[key] = machines.inner_products(self._values[:, first:stop])
            total = total + self._products[key]
        return machines.normalize_kernel(total)
