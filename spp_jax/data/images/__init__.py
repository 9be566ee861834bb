"""Images on the host: arrays (H, W, 3), uint8, RGB, 0 to 255."""

from spp_jax.data.images.decoding import (
    LIMITS,
    Limits,
    decode,
    from_pillow,
    is_pillow,
    read_file,
    read_orientation,
    read_size,
)
from spp_jax.data.images.encoding import encode
from spp_jax.data.images.resizing import center_crop, crop, five_crop, resize, resize_shorter

__all__ = [
    "LIMITS",
    "Limits",
    "center_crop",
    "crop",
    "decode",
    "encode",
    "five_crop",
    "from_pillow",
    "is_pillow",
    "read_file",
    "read_orientation",
    "read_size",
    "resize",
    "resize_shorter",
]
