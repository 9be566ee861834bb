"""SPP-net in JAX and Flax: spatial pyramid pooling for images of any size (arXiv 1406.4729)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spp_jax.checkpoint import class_names, load
    from spp_jax.evaluation.features import extract
    from spp_jax.models.layers import SpatialPyramidPooling
    from spp_jax.models.sppnet import SPPNet, make_model
    from spp_jax.pooling.max_pool import max_pool
    from spp_jax.pooling.pyramid import spatial_pyramid_pool
    from spp_jax.pooling.windows import pool_windows

__version__ = "0.2.0.dev0"

__all__ = [
    "SPPNet",
    "SpatialPyramidPooling",
    "class_names",
    "extract",
    "load",
    "make_model",
    "max_pool",
    "pool_windows",
    "spatial_pyramid_pool",
]

_HOMES = {
    "SPPNet": "models.sppnet",
    "SpatialPyramidPooling": "models.layers",
    "class_names": "checkpoint",
    "extract": "evaluation.features",
    "load": "checkpoint",
    "make_model": "models.sppnet",
    "max_pool": "pooling.max_pool",
    "pool_windows": "pooling.windows",
    "spatial_pyramid_pool": "pooling.pyramid",
}


# Loaded on first use: a loader process that imports spp_jax.data needs neither Flax nor Orbax.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
