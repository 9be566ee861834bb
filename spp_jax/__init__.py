"""SPP-net in JAX and Flax: spatial pyramid pooling for images of any size (arXiv 1406.4729)."""

from spp_jax.models.layers import SpatialPyramidPooling
from spp_jax.models.sppnet import SPPNet, make_model
from spp_jax.pooling.max_pool import max_pool
from spp_jax.pooling.pyramid import spatial_pyramid_pool
from spp_jax.pooling.windows import pool_windows

__all__ = [
    "SPPNet",
    "SpatialPyramidPooling",
    "make_model",
    "max_pool",
    "pool_windows",
    "spatial_pyramid_pool",
]
