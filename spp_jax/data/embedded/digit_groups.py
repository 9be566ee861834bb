"""Digit groups: digit scenes in a detection form, 1 to 5 digits per image, each with its box.

Embedded TFDS builder `digit_groups`: 800 train and 300 test images made from the same digits, by
split, as `digits` makes its scenes. The features are those of TFDS's voc: `image` and `objects` of
bbox, label and is_difficult.
"""

import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from spp_jax.data import images
from spp_jax.data.embedded import digits as digits_lib
from spp_jax.runs import progress as progress_lib

NAME = "digit_groups"
NUM_GROUPS = {"train": 800, "test": 300}
CANVAS_SIDES = (110, 220)  # pixels, both included
PLOT_SIDES = (48, 120)  # of the rectangle a digit is placed in, pixels
MAX_DIGITS = 5

# Attempts to place digits; a group that runs out of them stays smaller.
_NUM_TRIES = 30


class Group(NamedTuple):
    """One image (H, W, 3) uint8 and its 1 to 5 digits: labels and boxes x1, y1, x2, y2."""

    image: np.ndarray
    labels: tuple[int, ...]
    boxes: tuple[tuple[int, int, int, int], ...]


def make_group(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray, candidates: np.ndarray
) -> Group:
    """Makes one image whose digits do not touch.

    Args:
      rng: numpy generator, the only source of chance.
      digits: (D, 8, 8) float32 ink in 0..1.
      labels: (D,) integers in 0..9.
      candidates: (K,) indices into digits, from which each digit is drawn evenly.
    """
    height, width = (int(side) for side in rng.integers(*CANVAS_SIDES, size=2, endpoint=True))
    image = digits_lib.make_background(rng, height, width)
    drawn: list[int] = []
    boxes: list[tuple[int, int, int, int]] = []
    wanted = int(rng.integers(1, MAX_DIGITS, endpoint=True))
    for _ in range(_NUM_TRIES):
        index = int(rng.choice(candidates))
        plot = [
            int(rng.integers(PLOT_SIDES[0], min(PLOT_SIDES[1], side), endpoint=True))
            for side in (height, width)
        ]
        top, left = (int(rng.integers(0, side - p + 1)) for side, p in zip((height, width), plot))
        part, (x1, y1, x2, y2) = digits_lib.place_digit(rng, digits[index], plot[0], plot[1])
        box = (x1 + left, y1 + top, x2 + left, y2 + top)
        if any(_is_near(box, other) for other in boxes):
            continue
        coverage = np.zeros((height, width), np.float32)
        coverage[top : top + plot[0], left : left + plot[1]] = part
        image = digits_lib.paste_ink(rng, image, coverage, box)
        drawn.append(int(labels[index]))
        boxes.append(box)
        if len(boxes) == wanted:
            break
    return Group(image, tuple(drawn), tuple(boxes))


def _is_near(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether the surroundings of `box`, from which its ink must stand out, touch another digit."""
    reach = digits_lib.surroundings(box) + 2  # for soft edges
    x1, y1, x2, y2 = box
    return (
        x1 - reach < other[2]
        and other[0] < x2 + reach
        and y1 - reach < other[3]
        and other[1] < y2 + reach
    )


class DigitGroups(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the groups; every group is a function of (SEED, split, index) alone."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # as in DigitScenes
    on_scene = staticmethod(lambda: None)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        return digits_lib.Info(
            builder=self,
            description="One to five handwritten digits on a cluttered canvas, with boxes.",
            features=features.FeaturesDict(
                {
                    "image": features.Image(
                        shape=(None, None, 3), dtype=np.uint8, encoding_format="png"
                    ),
                    "objects": features.Sequence(
                        {
                            "bbox": features.BBoxFeature(),
                            "label": features.ClassLabel(names=[str(digit) for digit in range(10)]),
                            "is_difficult": np.bool_,
                        }
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        digits, labels = digits_lib.load_digits()
        pools = digits_lib.split_pools(labels)
        return {
            split: self._generate_examples(split, digits, labels, pools[split])
            for split in NUM_GROUPS
        }

    def _generate_examples(
        self, split: str, digits: np.ndarray, labels: np.ndarray, pool: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # MAX_DIGITS makes the seed of a group differ from that of the scene of the same index.
        number = digits_lib.SPLITS.index(split)
        for index in range(NUM_GROUPS[split]):
            rng = np.random.default_rng((digits_lib.SEED, number, index, MAX_DIGITS))
            group = make_group(rng, digits, labels, pool)
            height, width, _ = group.image.shape
            yield (
                index,
                {
                    "image": io.BytesIO(images.encode(group.image, ".png")),
                    "objects": [
                        {
                            "bbox": tfds.features.BBox(
                                y1 / height, x1 / width, y2 / height, x2 / width
                            ),
                            "label": label,
                            "is_difficult": False,
                        }
                        for label, (x1, y1, x2, y2) in zip(group.labels, group.boxes)
                    ],
                },
            )
            self.on_scene()


def num_examples() -> dict[str, int]:
    """As `digits.num_examples`."""
    return dict(NUM_GROUPS)


def prepare(
    data_dir: str | os.PathLike[str] | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> None:
    """As `digits.prepare`."""
    digits_lib.prepare_builder(DigitGroups, data_dir, sum(NUM_GROUPS.values()), progress)
