"""Which images share a compiled program: a few canvases, each for images of several sizes.

Sizes are (height, width) in pixels. All sizes are known beforehand, from the files' headers, so the
canvases are made for them, and the batches are filled; a grid of canvases would do neither.
"""

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np

from spp_jax.evaluation import views

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
    sizes: Mapping[int, tuple[int, int]],
    num_programs: int,
    max_pixels: int,
    num_devices: int = 1,
) -> list[Batch]:
    """Groups images into batches of at most `num_programs` shapes with few padded pixels.

    A function of its arguments alone, so that an interrupted run finds the same batches again.

    Args:
        sizes: {image: (height, width)}.
        num_programs: most canvases; all batches of a canvas have the same rows.
        max_pixels: most pixels of a batch, unless one image a device is more.
        num_devices: the rows of a batch are a multiple of it.

    Returns:
        Batches of every image exactly once, canvas by canvas, the largest first: if memory does not
        suffice, that shows at once.
    """
    of_size = choose(collections.Counter(sizes.values()), num_programs)
    members: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
    for index, size in sizes.items():
        members[of_size[size]].append(index)
    batches = []
    for canvas, indices in sorted(members.items(), key=lambda m: (-m[0][0] * m[0][1], m[0])):
        fitting = max(1, max_pixels // (canvas[0] * canvas[1]) // num_devices) * num_devices
        num_batches = -(-len(indices) // fitting)
        # As few rows as that many batches need: the last one is nearly full as well.
        per_device = -(-len(indices) // (num_batches * num_devices))
        num_rows = per_device * num_devices
        batches += [
            Batch(canvas, num_rows, tuple(indices[i : i + num_rows]))
            for i in range(0, len(indices), num_rows)
        ]
    return batches


def choose(
    counts: Mapping[tuple[int, int], int], num_programs: int
) -> dict[tuple[int, int], tuple[int, int]]:
    """Returns the canvas of each size: at most `num_programs` different ones.

    Starts from a canvas for each size and merges, as often as needed, the two whose union adds the
    fewest padded pixels over all images.

    Args:
        counts: {(height, width): number of images}.
        num_programs: at least 1.
    """
    step = 1
    while len({views.canvas(*size, step) for size in counts}) > _MAX_SIZES:
        step *= 2
    canvas_of = {size: views.canvas(*size, step) for size in counts}
    weight: collections.Counter[tuple[int, int]] = collections.Counter()
    for size, count in counts.items():
        weight[canvas_of[size]] += count
    sides = np.array(list(weight), np.int64).reshape(-1, 2)
    amounts = np.array(list(weight.values()), np.int64)
    group = {canvas: i for i, canvas in enumerate(weight)}
    while len(sides) > num_programs:
        areas = amounts * sides.prod(axis=1)
        unions = np.maximum(sides[:, None], sides[None])
        added = unions.prod(axis=2) * (amounts[:, None] + amounts) - areas[:, None] - areas
        added[np.tril_indices(len(sides))] = np.iinfo(np.int64).max
        kept, gone = np.unravel_index(np.argmin(added), added.shape)
        sides[kept] = unions[kept, gone]
        amounts[kept] += amounts[gone]
        sides, amounts = np.delete(sides, gone, 0), np.delete(amounts, gone)
        group = {c: int(kept if g == gone else g - (g > gone)) for c, g in group.items()}
    found = [(int(height), int(width)) for height, width in sides]
    return {size: found[group[canvas]] for size, canvas in canvas_of.items()}


def padded_share(batches: list[Batch], sizes: Mapping[int, tuple[int, int]]) -> float:
    """Returns the share of the pixels computed that belong to no image."""
    computed = sum(b.num_rows * b.canvas[0] * b.canvas[1] for b in batches)
    used = sum(height * width for height, width in sizes.values())
    return 1 - used / computed if computed else 0.0
