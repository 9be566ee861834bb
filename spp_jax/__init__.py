"""SPP-net in JAX and Flax: spatial pyramid pooling for images of any size (arXiv 1406.4729)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spp_jax.checkpoint import class_names, load
    from spp_jax.config.features import Part
    from spp_jax.detection.detector import load as load_detector
    from spp_jax.errors import ImageError, InputError
    from spp_jax.evaluation.features import extract
    from spp_jax.models.backbones import network_names
    from spp_jax.models.layers import SpatialPyramidPooling
    from spp_jax.models.sppnet import SPPNet, make_model
    from spp_jax.models.topology import LRN, Backbone, Block, Conv, MaxPool
    from spp_jax.pooling.max_pool import max_pool
    from spp_jax.pooling.pyramid import spatial_pyramid_pool
    from spp_jax.pooling.windows import pool_windows
    from spp_jax.runs.memory import keep_freed

__version__ = "0.2.0.dev0"

__all__ = [
    "LRN",
    "Backbone",
    "Block",
    "Conv",
    "ImageError",
    "InputError",
    "MaxPool",
    "Part",
    "SPPNet",
    "SpatialPyramidPooling",
    "class_names",
    "extract",
    "keep_freed",
    "load",
    "load_detector",
    "make_model",
    "max_pool",
    "network_names",
    "pool_windows",
    "spatial_pyramid_pool",
]

_HOMES = {
    "LRN": "models.topology",
    "Backbone": "models.topology",
    "Block": "models.topology",
    "Conv": "models.topology",
    "ImageError": "errors",
    "InputError": "errors",
    "MaxPool": "models.topology",
    "Part": "config.features",
    "SPPNet": "models.sppnet",
    "SpatialPyramidPooling": "models.layers",
    "class_names": "checkpoint",
    "extract": "evaluation.features",
    "keep_freed": "runs.memory",
    "load": "checkpoint",
    "load_detector": "detection.detector",
    "make_model": "models.sppnet",
    "max_pool": "pooling.max_pool",
    "network_names": "models.backbones",
    "pool_windows": "pooling.windows",
    "spatial_pyramid_pool": "pooling.pyramid",
}
# Names that are public under another one than at home.
_HOME_NAMES = {"load_detector": "load"}


# Loaded on first use: a loader process that imports spp_jax.data needs neither Flax nor Orbax.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, _HOME_NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
