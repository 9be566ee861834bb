"""How many objects of a split its windows cover: a detector hardly finds the others."""

import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from spp_jax.detection import boxes, dataset
from spp_jax.runs import files

# The overlap from which a window covers an object: that of a right detection.
MIN_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Counts of a split's images, windows and objects.

    Attributes:
        num_images: images whose windows were measured.
        num_empty: images without a window.
        num_windows: windows of all images.
        num_objects: objects that are not difficult.
        num_covered: objects that a window overlaps by `MIN_IOU` or more.
    """

    num_images: int
    num_empty: int
    num_windows: int
    num_objects: int
    num_covered: int

    @property
    def recall(self) -> float | None:
        """The share of the objects that windows cover, 0 to 1; None if there are no objects."""
        return self.num_covered / self.num_objects if self.num_objects else None

    def line(self) -> str:
        """Returns the counts as a line for the console."""
        line = f"{self.num_windows / max(self.num_images, 1):.0f} windows an image"
        if self.num_empty:
            line += f", none in {self.num_empty} images"
        if self.recall is not None:
            line += (
                f"; {100 * self.recall:.1f}% of {self.num_objects} objects have a window of "
                f"IoU {MIN_IOU} or more"
            )
        return line

    def write(self, workdir: str, split: str) -> None:
        """Writes WORKDIR/proposals_SPLIT.json: the attributes, `min_iou` and `recall`."""
        path = os.path.join(workdir, file_name(split))
        facts = {**dataclasses.asdict(self), "min_iou": MIN_IOU, "recall": self.recall}
        files.write_json(path, facts, indent=2)


def file_name(split: str) -> str:
    """Returns the name of the file in a workdir that `Coverage.write` writes."""
    return files.escape(f"proposals_{split}") + ".json"


def measure(data: dataset.Dataset, windows_of: Iterable[tuple[int, np.ndarray]]) -> Coverage:
    """Returns how far the windows of images cover their objects.

    Args:
        data: the split.
        windows_of: pairs of an image's index and its windows (R, 4).
    """
    counts = np.zeros(5, np.int64)
    for i, windows in windows_of:
        targets = data.objects[i].boxes[~data.objects[i].is_difficult]
        best = boxes.iou(targets, windows).max(axis=1, initial=0)
        is_covered = best >= MIN_IOU
        counts += [1, not len(windows), len(windows), len(targets), int(is_covered.sum())]
    return Coverage(*counts.tolist())
