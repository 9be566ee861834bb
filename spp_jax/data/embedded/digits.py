"""Digit scenes: real handwritten digits of any scale and place, on canvases of any shape.

Embedded TFDS builder `digit_scenes`: 8,000 train and 2,000 test scenes made from the 1,797 digits
that scikit-learn ships (UCI "Optical Recognition of Handwritten Digits", 8x8 pixels), so it needs
neither a download nor TensorFlow. Test scenes use digits that no train scene uses; the writers are
not separated, because scikit-learn does not say who wrote what.

Shapes: D digits · H, W canvas sides · images (H, W, 3) uint8 RGB · digits (D, 8, 8) float32 ink in
0..1. Boxes are (x1, y1, x2, y2) in pixels, right and bottom exclusive; the stored `bbox` is TFDS's
relative (ymin, xmin, ymax, xmax). Luminance is Rec. 601, 0..255.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data import images, leftovers
from spp_jax.runs import places
from spp_jax.runs import progress as progress_lib

SEED = 20140618  # any fixed number; this one is the date of the paper's first version
SPLITS = ("train", "test")  # a split's position seeds its scenes: do not reorder
NUM_SCENES = {"train": 8000, "test": 2000}  # both divisible by ten: equally many of each class
TEST_SHARE = 0.2  # of each class's digits
CANVAS_SIDES = (48, 160)  # pixels, both included
DIGIT_HEIGHTS = (0.35, 0.9)  # of the shorter canvas side
MIN_DIGIT_HEIGHT = 18  # pixels: two per source cell, below which strokes merge
MIN_CONTRAST = 60  # luminance between the ink and every surrounding pixel
# Wherever surroundings span less than 255 - 2 * MIN_CONTRAST, lighter or darker ink has room.
BACKGROUND_SPAN = 110

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CELL = 12  # pixels a source cell is enlarged to before it is turned, sheared and scaled
_SURROUNDINGS = 0.2  # how far around the box contrast is measured, in box heights
# Cell sizes in pixels of the noise octaves, each with its largest amplitude in luminance.
_OCTAVES = ((70, 45.0), (24, 22.0), (8, 12.0), (3, 6.0))


class Scene(NamedTuple):
    """One image (H, W, 3) uint8 and the one digit in it; `digit_index` counts all D digits."""

    image: np.ndarray
    label: int
    box: tuple[int, int, int, int]
    digit_index: int


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Loads the digits: ink (1797, 8, 8) float32 in 0..1 and labels (1797,) int64."""
    # Imported here: it takes longer than TFDS itself, and reading a prepared set does not need it.
    from sklearn import datasets

    digits, labels = datasets.load_digits(return_X_y=True)
    return (digits.reshape(-1, 8, 8) / 16.0).astype(np.float32), labels.astype(np.int64)


def split_pools(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Splits the digits: {split: sorted indices}, disjoint, by class, the same every time."""
    rng = np.random.default_rng(SEED)
    test = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.append(members[: round(TEST_SHARE * len(members))])
    test = np.sort(np.concatenate(test))
    return {"train": np.setdiff1d(np.arange(len(labels)), test), "test": test}


def make_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws textured clutter: noise octaves, often stripes, and shapes fainter than any digit.

    Returns:
      (height, width, 3) uint8, whose luminance spans at most BACKGROUND_SPAN.
    """
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = rng.uniform(30.0, 225.0) + rng.uniform(-1.0, 1.0, 3) * rng.uniform(5.0, 90.0)
    for cell, amplitude in _OCTAVES:
        size = (height // cell + 2, width // cell + 2)
        grid = rng.normal(size=(*size, 1)) + rng.uniform(0.0, 0.8) * rng.normal(size=(*size, 3))
        grid *= rng.uniform(0.0, amplitude)
        canvas += cv2.resize(
            grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    if rng.random() < 0.4:
        canvas += _make_stripes(rng, height, width)
    canvas = np.clip(canvas, 0.0, 255.0).astype(np.uint8)
    for _ in range(rng.integers(3, 18)):
        _draw_shape(rng, canvas)
    luminance = canvas @ _LUMA
    span = luminance.max() - luminance.min()
    mean = np.array(cv2.mean(canvas)[:3], np.float32)
    # One less than allowed: rounding moves the luminance of a pixel by up to a half either way.
    canvas = mean + (canvas - mean) * min(1.0, (BACKGROUND_SPAN - 1) / max(span, 1.0))
    return np.rint(canvas).astype(np.uint8)


def place_digit(
    rng: np.random.Generator, digit: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Draws one digit's coverage at a random scale, slant and place, fully inside the canvas.

    Args:
      rng: numpy generator.
      digit: (8, 8) float32 ink in 0..1.
      height: canvas height in pixels, at least CANVAS_SIDES[0].
      width: canvas width, likewise.

    Returns:
      coverage (height, width) float32 in 0..1, and the tight box of coverage >= 0.5.
    """
    # Two empty cells around the digit keep its edge and the cubic's reach inside the source.
    glyph = cv2.resize(np.pad(digit, 2), None, fx=_CELL, fy=_CELL, interpolation=cv2.INTER_CUBIC)
    glyph = cv2.GaussianBlur(glyph, (0, 0), 0.2 * _CELL)
    threshold = rng.uniform(0.4, 0.5)  # the thickness of the pen

    angle = np.deg2rad(rng.uniform(-10.0, 10.0))
    aspect = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[aspect, rng.uniform(-0.15, 0.15)], [0.0, 1.0]])
    linear = turn @ slant

    ys, xs = np.nonzero(glyph >= threshold)
    corners = linear @ np.stack([xs, ys])
    low = corners.min(1)
    ink_width, ink_height = corners.max(1) - low + 1.0
    shorter = min(height, width)
    # One more than the least: sampling can lose the outermost row.
    smallest = max(MIN_DIGIT_HEIGHT + 1, DIGIT_HEIGHTS[0] * shorter)
    target = np.exp(rng.uniform(np.log(smallest), np.log(DIGIT_HEIGHTS[1] * shorter)))
    scale = min(target / ink_height, DIGIT_HEIGHTS[1] * width / ink_width)
    room = np.array([width - scale * ink_width, height - scale * ink_height])
    # One pixel at each side stays free for the soft edge.
    offset = rng.uniform(1.0, room - 1.0) - scale * low
    warp = np.column_stack([scale * linear, offset])
    coverage = cv2.warpAffine(glyph, warp, (width, height), flags=cv2.INTER_LINEAR)
    # Ink falls by about 0.7 per source cell at an edge, which makes edges 1.5 pixels wide. Large
    # digits get softer ones: half-inked cells must stay pale, or the holes of an 8 close.
    steepness = min(_CELL * scale, 3.0)
    coverage = np.clip(0.5 + (coverage - threshold) * steepness, 0.0, 1.0)
    ys, xs = np.nonzero(coverage >= 0.5)
    return coverage, (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def paste_ink(
    rng: np.random.Generator,
    canvas: np.ndarray,
    coverage: np.ndarray,
    box: tuple[int, int, int, int],
) -> np.ndarray:
    """Paints a digit in a random colour, lighter or darker than all that surrounds it.

    Args:
      rng: numpy generator.
      canvas: (H, W, 3) uint8; around the box its luminance spans at most BACKGROUND_SPAN.
      coverage: (H, W) float32 in 0..1.
      box: box of the visible ink.

    Returns:
      (H, W, 3) uint8; full ink differs by MIN_CONTRAST or more from every pixel around the box.
    """
    x1, y1, x2, y2 = box
    reach = surroundings(box)
    around = canvas[max(0, y1 - reach) : y2 + reach, max(0, x1 - reach) : x2 + reach] @ _LUMA
    # Half a level on each side for rounding the painted colour.
    darkest, lightest = around.min() - MIN_CONTRAST - 0.5, around.max() + MIN_CONTRAST + 0.5
    is_light = rng.random() < 0.5 if darkest >= 0 and lightest <= 255 else darkest < 0
    limits = (lightest, 255.0) if is_light else (0.0, darkest)
    ends = [_color_of(rng, rng.uniform(*limits)) for _ in range(2)]
    ramp = np.linspace(0.0, 1.0, canvas.shape[1], dtype=np.float32)[None, :, None]
    ink = ends[0] + (ends[1] - ends[0]) * ramp
    painted = canvas + (ink - canvas) * coverage[..., None]
    return np.rint(painted).astype(np.uint8)


def surroundings(box: tuple[int, int, int, int]) -> int:
    """Returns how far around a digit's box, in pixels, its ink must stand out from the image."""
    return int(np.ceil(_SURROUNDINGS * (box[3] - box[1])))


def make_scene(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray, candidates: np.ndarray
) -> Scene:
    """Makes one scene: one digit out of `candidates`, at any scale and place, over clutter.

    Args:
      rng: numpy generator, the only source of chance.
      digits: (D, 8, 8) float32 ink in 0..1.
      labels: (D,) integers in 0..9.
      candidates: (K,) indices into digits, from which one is drawn evenly.
    """
    height, width = (int(side) for side in rng.integers(*CANVAS_SIDES, size=2, endpoint=True))
    digit_index = int(rng.choice(candidates))
    background = make_background(rng, height, width)
    coverage, box = place_digit(rng, digits[digit_index], height, width)
    image = paste_ink(rng, background, coverage, box)
    return Scene(image, int(labels[digit_index]), box, digit_index)


class Info(tfds.core.DatasetInfo):
    """Of an embedded set, about which there is nothing to ask in TFDS's bucket.

    TFDS would ask each time that it opens a set that is not there yet, and make a temporary folder
    for the answer, which it leaves.
    """

    def initialize_from_bucket(self) -> None:
        pass


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the scenes; every scene is a function of (SEED, split, index) alone."""

    VERSION = tfds.core.Version("1.0.0")
    # There are no downloads to check. TFDS would look for checksums by importlib_resources, a
    # dependency that it does not declare (4.9.10).
    url_infos = None

    on_scene: Callable[[], object] = staticmethod(lambda: None)  # called after each scene made

    def _info(self) -> tfds.core.DatasetInfo:
        return Info(
            builder=self,
            description="One handwritten digit of any scale and place on a cluttered canvas.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(None, None, 3), dtype=np.uint8, encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "bbox": tfds.features.BBoxFeature(),
                    "digit_index": tfds.features.Scalar(np.int64),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        digits, labels = load_digits()
        pools = split_pools(labels)
        return {
            split: self._generate_examples(split, digits, labels, pools[split]) for split in SPLITS
        }

    def _generate_examples(
        self, split: str, digits: np.ndarray, labels: np.ndarray, pool: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        by_class = [pool[labels[pool] == label] for label in range(10)]
        for index in range(NUM_SCENES[split]):
            rng = np.random.default_rng((SEED, SPLITS.index(split), index))
            scene = make_scene(rng, digits, labels, by_class[index % 10])
            height, width, _ = scene.image.shape
            x1, y1, x2, y2 = scene.box
            yield (
                index,
                {
                    "image": io.BytesIO(images.encode(scene.image, ".png")),
                    "label": scene.label,
                    "bbox": tfds.features.BBox(y1 / height, x1 / width, y2 / height, x2 / width),
                    "digit_index": scene.digit_index,
                },
            )
            self.on_scene()


def num_examples() -> dict[str, int]:
    """Returns how many examples each split has, also before the set is made."""
    return dict(NUM_SCENES)


def prepare(
    data_dir: str | os.PathLike[str] | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> None:
    """Writes the set under `data_dir` (None: TFDS's default directory) unless it is there already.

    TFDS renames the finished directory into place, so that an interrupted call leaves nothing that
    a later one would take for complete; what a killed one leaves is removed by the next. Processes
    may call it at the same time: one makes the set, and the others wait for it.

    Raises:
        InputError: the set cannot be written under `data_dir`.
    """
    prepare_builder(DigitScenes, data_dir, sum(NUM_SCENES.values()), progress)


def prepare_builder(
    make_builder: Any,
    data_dir: str | os.PathLike[str] | None,
    num_scenes: int,
    progress: progress_lib.Progress,
) -> None:
    """Prepares an embedded set as `prepare` says; its builder calls `on_scene` after each scene."""
    builder = make_builder(data_dir=data_dir, file_format="array_record")
    if builder.data_path.is_dir():
        return
    places.check(os.fspath(builder.data_path))
    with leftovers.alone(builder.data_path, marked=False, on_wait=progress.say):
        if not builder.data_path.exists():  # else the process that was waited for has made it
            _make(builder, num_scenes, progress)


def _make(builder: Any, num_scenes: int, progress: progress_lib.Progress) -> None:
    # TFDS announces a download and draws bars of its own. Whether its bars were on cannot be asked,
    # so they are on, TFDS's default, afterwards.
    tfds.disable_progress_bar()
    try:
        bar = progress.bar(builder.name, num_scenes)
        with bar as advance, contextlib.redirect_stdout(io.StringIO()):
            builder.on_scene = lambda: advance(1)
            builder.download_and_prepare()
    except (OSError, RuntimeError) as e:  # the latter is ArrayRecord's
        # Where there are no locks, another process may have been first: use what that has made.
        if not builder.data_path.exists():
            raise errors.InputError(
                f"{builder.data_path} cannot be written: {errors.disk_reason(e)}"
            ) from e
    finally:
        tfds.enable_progress_bar()


def _make_stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Makes soft or hard oriented stripes, (height, width, 3) float32 around 0."""
    angle, phase = rng.uniform(0.0, 2.0 * np.pi, 2)
    frequency = 2.0 * np.pi / np.exp(rng.uniform(np.log(5.0), np.log(50.0)))
    x = np.arange(width, dtype=np.float32) * (np.cos(angle) * frequency)
    y = np.arange(height, dtype=np.float32) * (np.sin(angle) * frequency)
    wave = np.clip(np.sin(x + y[:, None] + phase) * rng.uniform(1.0, 6.0), -1.0, 1.0)
    return (wave[..., None] * rng.normal(0.0, 14.0, 3)).astype(np.float32)


def _draw_shape(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Draws into `canvas` a polygon, ellipse, line or arc, a little off the local colour."""
    height, width, _ = canvas.shape
    center = rng.integers(0, (width, height))
    local = canvas[center[1], center[0]].astype(np.float64)
    shift = rng.normal(0.0, 25.0) + rng.normal(0.0, 12.0, 3)
    color = np.clip(local + shift, 0.0, 255.0).tolist()
    radius = np.exp(rng.uniform(np.log(3.0), np.log(0.4 * max(height, width))))
    thickness = int(rng.integers(1, 5))
    kind = rng.integers(4)
    if kind == 0:
        angles = np.sort(rng.uniform(0.0, 2.0 * np.pi, rng.integers(3, 7)))
        ring = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.5, 1.0) * radius
        cv2.fillPoly(canvas, [np.rint(center + ring).astype(np.int32)], color, cv2.LINE_AA)
    elif kind == 1:
        end = np.rint(center + rng.normal(0.0, radius, 2)).astype(int)
        cv2.line(canvas, center.tolist(), end.tolist(), color, thickness, cv2.LINE_AA)
    else:
        axes = np.rint(radius * rng.uniform(0.3, 1.0, 2)).astype(int).tolist()
        start, tilt = rng.uniform(0.0, 360.0, 2)
        # Open arcs end short of a closed ring, which would read as a zero.
        sweep, pen = (360.0, cv2.FILLED) if kind == 2 else (rng.uniform(40.0, 200.0), thickness)
        cv2.ellipse(
            canvas, center.tolist(), axes, tilt, start, start + sweep, color, pen, cv2.LINE_AA
        )


def _color_of(rng: np.random.Generator, luminance: float) -> np.ndarray:
    """Draws a colour (3,) float32 in 0..255 that has the given luminance."""
    colors = rng.uniform(0.0, 255.0, (8, 3)).astype(np.float32)
    # The colour nearest in luminance needs the least mixing with white or black, which pales it.
    color = colors[np.abs(colors @ _LUMA - luminance).argmin()]
    current = float(color @ _LUMA)
    if luminance > current:
        return color + (255.0 - color) * ((luminance - current) / (255.0 - current))
    return color * (luminance / current)
