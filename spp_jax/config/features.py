"""What features are made of, and at which scale an image is shown for them."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from spp_jax import errors


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer and how its map becomes a vector.

    Attributes:
        layer: a name of `SPPNet.maps`: a map, or one of the vectors pool, fc6 ..., logits.
        levels: bins per side of each level, as `pyramid.check_levels` takes them; vectors take
            none.
        reduce: "max" or "mean".
    """

    layer: str
    levels: Sequence[int] = ()
    reduce: Literal["max", "mean"] = "max"


def read_scale(text: str) -> str | int:
    """Returns "crop", "warp", or the shorter side that a text gives, in pixels.

    Raises:
        InputError: none of these.
    """
    if text in ("crop", "warp"):
        return text
    if not text.isdecimal() or text.startswith("0"):
        raise errors.InputError(f"scale {text!r} is neither crop, warp nor a number of pixels")
    return int(text)
