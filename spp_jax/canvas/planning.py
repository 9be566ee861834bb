"""Which images share a compiled program: a few canvases, each for images of several sizes.

Sizes are (height, width) in pixels. All sizes are known beforehand, from the files' headers. So the
canvases fit them and the batches are full, which those of a fixed grid of canvases would not be.
"""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from spp_jax.canvas import arithmetic

Size = tuple[int, int]

# Pixels that are computed in the time it takes to compile a program for another canvas: on two
# cores 8 million for GoogLeNet and 3 million for ZF-5; on a GPU many more.
COMPILE_PIXELS = 8_000_000

# If there are more distinct sizes, sides are rounded up to multiples of 2, 4 ... pixels until there
# are not: the time to merge grows with the cube of their number.
_MAX_SIZES = 256


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images that are computed together.

    Attributes:
        canvas: a (height, width) that holds each of them.
        num_rows: rows of the program's batch, at least the number of images.
        indices: of the images.
    """

    canvas: tuple[int, int]
    num_rows: int
    indices: tuple[int, ...]


def plan(
    sizes: Mapping[int, Size],
    num_programs: int,
    max_pixels: int,
    num_devices: int = 1,
    *,
    compile_pixels: int = COMPILE_PIXELS,
) -> list[Batch]:
    """Returns batches of few shapes and with few padded pixels; `choose` picks the canvases.

    The batches depend on nothing but the arguments, so that an interrupted run gets them again.

    Args:
        sizes: {index: (height, width)} of the images.
        num_programs: the most canvases wanted, as in `choose`.
        max_pixels: the most pixels of a batch, unless one image per device has more.
        num_devices: the rows of a batch are a multiple of it.
        compile_pixels: as in `choose`.

    Returns:
        Batches that hold every image exactly once, canvas by canvas; all batches of a canvas have
        the same number of rows. The largest canvas comes first, so that a lack of memory shows at
        once.
    """
    of_size = choose(
        collections.Counter(sizes.values()),
        num_programs,
        max_pixels,
        num_devices,
        compile_pixels=compile_pixels,
    )
    members: dict[Size, list[int]] = collections.defaultdict(list)
    for index, size in sizes.items():
        members[of_size[size]].append(index)
    batches = []
    for canvas, indices in sorted(members.items(), key=lambda m: (-m[0][0] * m[0][1], m[0])):
        rows = num_rows(canvas, len(indices), max_pixels, num_devices)
        batches += [
            Batch(canvas, rows, tuple(indices[i : i + rows])) for i in range(0, len(indices), rows)
        ]
    return batches


def num_rows(canvas: Size, num_images: int, max_pixels: int, num_devices: int) -> int:
    """Returns the number of rows of a canvas's batches.

    Batches of as many rows as `max_pixels` allows set the number of batches. The rows are then the
    fewest with which that number suffices, so that the last batch is nearly full as well.

    Args:
        canvas: (height, width).
        num_images: on this canvas.
        max_pixels, num_devices: as in `plan`.
    """
    fitting = max(1, max_pixels // (canvas[0] * canvas[1]) // num_devices) * num_devices
    num_batches = -(-num_images // fitting)
    return -(-num_images // (num_batches * num_devices)) * num_devices


def choose(
    counts: Mapping[Size, int],
    num_programs: int,
    max_pixels: int,
    num_devices: int = 1,
    *,
    compile_pixels: int = COMPILE_PIXELS,
) -> dict[Size, Size]:
    """Returns {size: its canvas}: a compromise of programs to compile, pixels to compute, memory.

    At first each size has its own canvas. Then the two canvases whose union adds the fewest
    computed pixels are merged, again and again: as long as that costs less than to compile a
    program, and further until there are `num_programs`. No union has more than `max_pixels`, or
    twice the pixels of the largest image if that is more: a panorama and a tall image must not
    share a canvas as wide as the one and as tall as the other. So more than `num_programs` canvases
    remain if all their unions are too large.

    Args:
        counts: {(height, width): number of images}.
        num_programs: the most canvases wanted, at least 1.
        max_pixels: of a batch.
        num_devices: the rows of a batch are a multiple of it; rows without an image cost as much.
        compile_pixels: number of pixels computed in the time it takes to compile a program.
    """
    step = 1
    while len({arithmetic.round_up(*size, step) for size in counts}) > _MAX_SIZES:
        step *= 2
    canvas_of = {size: arithmetic.round_up(*size, step) for size in counts}
    weight: collections.Counter[Size] = collections.Counter()
    for size, count in counts.items():
        weight[canvas_of[size]] += count
    sides = np.array(list(weight), np.int64).reshape(-1, 2)
    amounts = np.array(list(weight.values()), np.int64)
    largest = max(max_pixels, 2 * int(sides.prod(axis=1).max(initial=0)))
    group = {canvas: i for i, canvas in enumerate(weight)}
    never = np.iinfo(np.int64).max

    def rows(amounts: np.ndarray) -> np.ndarray:
        return -(-amounts // num_devices) * num_devices

    while len(sides) > 1:
        pixels = rows(amounts) * sides.prod(axis=1)
        areas = np.maximum(sides[:, None], sides[None]).prod(axis=2)
        added = areas * rows(amounts[:, None] + amounts) - pixels[:, None] - pixels
        added[(areas > largest) | np.tri(len(sides), dtype=bool)] = never
        first, second = np.unravel_index(np.argmin(added), added.shape)
        cost = added[first, second]
        if cost == never or (cost >= compile_pixels and len(sides) <= num_programs):
            break
        sides[first] = np.maximum(sides[first], sides[second])
        amounts[first] += amounts[second]
        sides, amounts = np.delete(sides, second, 0), np.delete(amounts, second)
        group = {c: int(first if g == second else g - (g > second)) for c, g in group.items()}
    chosen = [(int(height), int(width)) for height, width in sides]
    return {size: chosen[group[canvas]] for size, canvas in canvas_of.items()}


def padded_share(batches: list[Batch], sizes: Mapping[int, tuple[int, int]]) -> float:
    """Returns the share of the computed pixels that belong to no image, 0 to 1.

    Args:
        batches: of `plan`.
        sizes: {index: (height, width)} of their images.
    """
    computed = sum(b.num_rows * b.canvas[0] * b.canvas[1] for b in batches)
    used = sum(height * width for height, width in sizes.values())
    return 1 - used / computed if computed else 0.0
