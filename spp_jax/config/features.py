"""What features are made of, and at which scale an image is shown for them."""

import contextlib
import dataclasses
import operator
from collections.abc import Sequence
from typing import Literal

from spp_jax import errors
from spp_jax.config import fields

_MOST = 10**9  # bins per side that are counted
MAX_BINS = fields.MAX_LEVEL**2  # of all levels of a pyramid


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


def check_bins(levels: Sequence[int], name: str) -> None:
    """Raises InputError if levels are of more than MAX_BINS bins; `name` is theirs in the error.

    A vector has as many values of each channel, and fc6 as many weights of each of its outputs.
    """
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise errors.InputError(f"{name} must be a sequence of whole numbers, got {levels!r:.100}")
    count = 0
    for n in levels:
        # What is no number of bins is refused where the pyramid is made.
        with contextlib.suppress(TypeError):
            count += min(max(operator.index(n), 0), _MOST) ** 2
    if count > MAX_BINS:
        raise errors.InputError(f"{name} makes {count:,} bins; at most {MAX_BINS:,} are allowed")


def read_scale(text: str) -> str | int:
    """Returns "crop", "warp", or the shorter side that a text gives, in pixels.

    Raises:
        InputError: none of these.
    """
    if text in ("crop", "warp"):
        return text
    if not text.isdecimal() or text.startswith("0"):
        raise errors.InputError(f"scale {text!r} is neither crop, warp nor a number of pixels")
    if len(text) > 9 or int(text) > fields.MAX_SIDE:
        raise errors.InputError(f"scale {text:.20} is more than {fields.MAX_SIDE:,} pixels")
    return int(text)
