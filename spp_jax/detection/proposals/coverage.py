"""How many objects of a split its windows can find: a detector finds hardly any other."""

import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from spp_jax.detection import boxes, dataset
from spp_jax.runs import files

# From this overlap on an object is covered by a window, as it is by a right detection.
MIN_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Of a split.

    Attributes:
        num_images: whose windows are known.
        num_empty: of them, those without a window.
        num_windows: of all images.
        num_objects: that are not difficult.
        num_covered: of them, those that a window overlaps by `MIN_IOU` or more.
    """

    num_images: int
    num_empty: int
    num_windows: int
    num_objects: int
    num_covered: int

    @property
    def recall(self) -> float | None:
        """The share of the objects that is covered, 0 to 1; None where there are none."""
        return self.num_covered / self.num_objects if self.num_objects else None

    def line(self) -> str:
        """Returns it in words."""
        said = f"{self.num_windows / max(self.num_images, 1):.0f} windows an image"
        if self.num_empty:
            said += f", none in {self.num_empty} images"
        if self.recall is not None:
            said += (
                f"; {100 * self.recall:.1f}% of {self.num_objects} objects have a window of "
                f"IoU {MIN_IOU} or more"
            )
        return said

    def write(self, workdir: str, split: str) -> None:
        """Writes WORKDIR/proposals_SPLIT.json: the attributes, `min_iou` and `recall`."""
        path = os.path.join(workdir, files.escape(f"proposals_{split}") + ".json")
        facts = {**dataclasses.asdict(self), "min_iou": MIN_IOU, "recall": self.recall}
        files.write_json(path, facts, indent=2)


def measure(data: dataset.Dataset, windows_of: Iterable[tuple[int, np.ndarray]]) -> Coverage:
    """Compares the windows (R, 4) of images of a split, by index, with their objects."""
    counts = np.zeros(5, np.int64)
    for i, windows in windows_of:
        to_find = data.objects[i].boxes[~data.objects[i].is_difficult]
        best = boxes.iou(to_find, windows).max(axis=1, initial=0)
        is_covered = best >= MIN_IOU
        counts += [1, not len(windows), len(windows), len(to_find), int(is_covered.sum())]
    return Coverage(*counts.tolist())
