"""The test views of sections 3.1 and 4: how an image is shown to a trained network.

Images are (H, W, 3) uint8 RGB. V views of one image are windows of its feature map.
"""

import dataclasses
import io

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors, network
from spp_jax.canvas import arithmetic
from spp_jax.data import images
from spp_jax.data.loading import views
from spp_jax.models import topology


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Makes the images of a protocol from an encoded one.

    "center": the shorter side resized to `scale`, the central size x size pixels.
    "full": the shorter side resized to `scale`, the whole image.
    "warp": the whole image resized to size x size.
    "ten_view": as center, and the four corners of the whole image; each and its mirror image.
    "multi_view" (section 3.1.5): the whole image and its mirror image at each of `scales`. Its
        views are windows of size x size pixels there, pooled from the maps: the middle, corners and
        mid-sides (`num_positions` 9; 5 is without mid-sides), three where the shorter side is
        `size`. With `has_full_views` the whole image at `scale` is a view as well.
    """

    name: str
    scale: int
    size: int
    scales: tuple[int, ...] = ()
    num_positions: int = 9
    has_full_views: bool = False
    limits: images.Limits = images.LIMITS  # of the images that are read

    @property
    def is_mirrored(self) -> bool:
        """Whether the mirror image of each is scored as well."""
        return self.name in ("ten_view", "multi_view")

    @property
    def takes_whole_images(self) -> bool:
        """Whether images of one batch differ in size."""
        return self.name in ("full", "multi_view")

    @property
    def shown_scales(self) -> tuple[int, ...]:
        """The shorter sides an image is resized to, in order."""
        if self.name != "multi_view":
            return (self.scale,)
        return tuple(sorted({*self.scales} | ({self.scale} if self.has_full_views else set())))

    @property
    def num_images(self) -> int:
        """How many images `__call__` makes of one."""
        return arithmetic.NUM_POSITIONS if self.name == "ten_view" else len(self.shown_scales)

    def __call__(self, data: bytes, name: str) -> tuple[np.ndarray, ...]:
        """Decodes an image and returns what the network sees; raises `errors.ImageError`.

        Resampled as published accuracies mostly are: by a triangle kernel, from a JPEG decoded at
        no less than twice the side wanted, where its scaled decoding leaves no trace.
        """
        if self.name == "warp":
            image = images.decode(data, name, shorter_side=2 * self.size, limits=self.limits)
            return (images.resize(image, self.size, self.size, kernel="triangle"),)
        height, width = images.read_size(io.BytesIO(data), name, self.limits)
        side = 2 * max(self.shown_scales)
        image = images.decode(data, name, shorter_side=side, limits=self.limits)
        # Sides rounded from the file's own: those of a scaled decode are rounded already.
        resized = tuple(
            images.resize(image, *arithmetic.shorter_size(height, width, s), kernel="triangle")
            for s in self.shown_scales
        )
        if self.takes_whole_images:
            return resized
        return tuple(
            images.five_crop(resized[0], self.size, position)
            for position in range(self.num_images if self.name == "ten_view" else 1)
        )

    def shown_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) at which "full", "center" and "warp" show an image."""
        return self.shown_sizes(height, width)[0]

    def shown_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Returns the (height, width) of each image that `__call__` makes of one."""
        if self.takes_whole_images:
            return [arithmetic.shorter_size(height, width, s) for s in self.shown_scales]
        return [(self.size, self.size)] * self.num_images

    def cells(self, height: int, width: int, backbone: topology.Backbone) -> np.ndarray:
        """Returns the views of multi_view on the last map of an image: (V, 4) int32 cells.

        `height` and `width` are the resized image's.
        """
        last = backbone.layers[-1].name
        extent = topology.map_size(backbone, last, (height, width))
        cells = np.zeros((0, 4), np.int32)
        if min(height, width) in self.scales:
            shown = view_windows(height, width, self.size, self.num_positions)
            cells = topology.window_cells(backbone, last, shown, (height, width))
        if self.has_full_views and min(height, width) == self.scale:
            cells = np.concatenate([cells, [(0, 0, extent[1], extent[0])]])
        return cells.astype(np.int32)


# Section 3.1.5, for views of 224 pixels.
_PAPER_SCALES = (224, 256, 300, 360, 448, 560)


def make_protocol(config: config_lib.Config, name: str) -> Protocol:
    """Returns the protocol of that name as a config has it."""
    size, eval = config.train.sizes[0], config.eval
    has_own_scale = name in ("full", "multi_view") and eval.scale
    return Protocol(
        name,
        eval.scale if has_own_scale else config.data.shorter_side,
        size,
        eval.scales or tuple(round(s * size / 224) for s in _PAPER_SCALES),
        eval.num_positions,
        name == "multi_view" and eval.has_full_views,
        views.limits_of(config.data),
    )


def check_protocol(config: config_lib.Config, name: str) -> None:
    """Raises InputError if the network or the sizes of the config cannot be scored that way."""
    if name not in config_lib.PROTOCOLS:
        known = ", ".join(config_lib.PROTOCOLS)
        raise errors.InputError(f"protocol must be one of {known}, got {name}")
    if name in ("full", "multi_view") and config.model.levels is None:
        raise errors.InputError(
            f"protocol {name} needs a network that takes any size, and this one has no SPP "
            "(config.model.levels=None); use protocol center, warp or ten_view"
        )
    protocol = make_protocol(config, name)
    size, scale = protocol.size, protocol.scale
    if name in ("center", "ten_view") and scale < size:
        raise errors.InputError(
            f"protocol {name} crops {size} pixels (the first of config.train.sizes), more than "
            f"config.data.shorter_side={scale}"
        )
    if name == "multi_view" and min(protocol.scales) < size:
        raise errors.InputError(
            f"protocol multi_view at shorter side {min(protocol.scales)} (config.eval.scales): its "
            f"views are {size} pixels (the first of config.train.sizes)"
        )
    if name == "full" or protocol.has_full_views:
        smallest = topology.smallest_side(network.make(config.model, 1).backbone)
        if scale < smallest:
            raise errors.InputError(
                f"protocol {name} at shorter side {scale} (config.eval.scale or "
                f"config.data.shorter_side): {config.model.name} takes at least {smallest} pixels"
            )


def view_windows(height: int, width: int, size: int, num_positions: int) -> np.ndarray:
    """Returns the size x size windows of an image, (V, 4) pixels x1, y1, x2, y2, exclusive.

    All of the middle, four corners and four mid-sides, or without the mid-sides (`num_positions` 9
    or 5). Where the shorter side is `size` there are three: the middle and both ends, which
    coincide in a square.
    """
    down, right = height - size, width - size
    tops = (down // 2, 0, down) if down > 0 or right == 0 else (0,)
    lefts = (right // 2, 0, right) if right > 0 else (0,)
    corners = [(left, top) for top in tops for left in lefts]
    if num_positions == 5 and len(corners) == 9:
        corners = [corners[i] for i in (0, 4, 5, 7, 8)]
    return np.asarray([(x, y, x + size, y + size) for x, y in corners], np.float64)
