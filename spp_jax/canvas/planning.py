"""Which images share a compiled program: a few canvases, each for images of several sizes.

Sizes are (height, width) in pixels. All sizes are known beforehand, from the files' headers, so the
canvases are made for them, and the batches are filled; a grid of canvases would do neither.
"""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from spp_jax.canvas import arithmetic

Size = tuple[int, int]

# What is computed in the time it takes to compile a program for another canvas: on two cores 8
# million pixels for GoogLeNet, 3 million for ZF-5. On a GPU it is many more.
COMPILE_PIXELS = 8_000_000

# Distinct sizes beyond this are rounded up to multiples of 2, 4 ... pixels: merging is cubic.
_MAX_SIZES = 256


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images that are computed together.

    Attributes:
        canvas: (height, width) that holds each of them.
        num_rows: of the program, at least the number of images.
        indices: the images.
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
    """Groups images into batches of few shapes with few padded pixels, as `choose` does.

    A function of its arguments alone, so that an interrupted run finds the same batches again.

    Args:
        sizes: {image: (height, width)}.
        num_programs, compile_pixels: as in `choose`; all batches of a canvas have the same rows.
        max_pixels: most pixels of a batch, unless one image a device is more.
        num_devices: the rows of a batch are a multiple of it.

    Returns:
        Batches of every image exactly once, canvas by canvas, the largest first: if memory does not
        suffice, that shows at once.
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
    """Returns the rows of a program for a canvas, as few as its number of batches needs.

    So the last batch is nearly full as well. Arguments are as in `plan`.
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
    """Returns the canvas of each size: few programs to compile, few pixels to compute, and memory.

    Starts from a canvas for each size and merges, again and again, the two whose union adds the
    fewest computed pixels: while that costs less than compiling a program, and on until there are
    `num_programs`. No union has more than `max_pixels`, or twice the pixels of the largest image if
    that is more. So a panorama and a tall image do not share a canvas as wide as the one and as
    tall as the other, and there are more than `num_programs` where only such canvases are left.

    Args:
        counts: {(height, width): number of images}.
        num_programs: the canvases wanted at most, at least 1.
        max_pixels: of a batch.
        num_devices: rows of a batch are a multiple of it, those without an image computed as well.
        compile_pixels: how many pixels are computed in the time it takes to compile a program.
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
        kept, gone = np.unravel_index(np.argmin(added), added.shape)
        cost = added[kept, gone]
        if cost == never or (cost >= compile_pixels and len(sides) <= num_programs):
            break
        sides[kept] = np.maximum(sides[kept], sides[gone])
        amounts[kept] += amounts[gone]
        sides, amounts = np.delete(sides, gone, 0), np.delete(amounts, gone)
        group = {c: int(kept if g == gone else g - (g > gone)) for c, g in group.items()}
    chosen = [(int(height), int(width)) for height, width in sides]
    return {size: chosen[group[canvas]] for size, canvas in canvas_of.items()}


def padded_share(batches: list[Batch], sizes: Mapping[int, tuple[int, int]]) -> float:
    """Returns the share of the pixels computed that belong to no image."""
    computed = sum(b.num_rows * b.canvas[0] * b.canvas[1] for b in batches)
    used = sum(height * width for height, width in sizes.values())
    return 1 - used / computed if computed else 0.0
