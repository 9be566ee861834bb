"""Windows that may hold an object: selective search and EdgeBoxes, by OpenCV, in processes.

Windows are (R, 4) float32 pixels x1, y1, x2, y2 of the original image, right and bottom exclusive.
Those of an image are a function of its bytes and the settings, so they are kept on disk by both.
"""

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Generator, Sequence
from typing import Any

import cv2
import numpy as np

from spp_jax import errors
from spp_jax.data import images
from spp_jax.runs import archives, files, workers

# Share of a bold edge's gradient below which there is no edge.
_FAINT = 0.2
# Bytes of a row of windows, of whose multiples a .npy consists, and of the checksum behind it.
_ROW, _CHECKSUM = 16, 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the windows of an image depend on; fields as `config.ProposalConfig`."""

    method: str
    max_windows: int
    min_side: int
    max_image_side: int

    def key(self, data: bytes) -> str:
        """Returns the name of the file that keeps the windows of an encoded image."""
        facts = json.dumps([1, dataclasses.asdict(self), cv2.__version__]).encode()
        return hashlib.sha256(facts + hashlib.sha256(data).digest()).hexdigest()[:32] + ".npy"


def find_windows(image: np.ndarray, settings: Settings) -> np.ndarray:
    """Returns the windows of an image (H, W, 3) uint8 RGB, in an order that means nothing."""
    height, width, _ = image.shape
    factor = min(1.0, settings.max_image_side / max(height, width))
    small_height, small_width = (max(1, round(side * factor)) for side in (height, width))
    small = images.resize(image, small_height, small_width)
    if settings.method == "edge_boxes":
        rows = _edge_boxes(small, settings.max_windows or 10_000)
    else:
        rows = _selective_search(small, settings.method)
    # OpenCV's x, y, width, height, in whole pixels of the small image.
    windows = np.asarray(rows, np.float64).reshape(-1, 4)
    windows[:, 2:] += windows[:, :2]
    windows *= [width / small_width, height / small_height] * 2
    sides = windows[:, 2:] - windows[:, :2]
    windows = windows[np.all(sides >= settings.min_side, axis=1)]
    # OpenCV's order is random and differs from call to call; this one is not, nor is it sorted.
    windows = np.unique(windows.round().astype(np.float32), axis=0)
    order = np.random.default_rng(0).permutation(len(windows))
    return windows[order[: settings.max_windows or None]]


def _selective_search(image: np.ndarray, mode: str) -> np.ndarray:
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    if mode == "quality":
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    return np.asarray(search.process())


def _edge_boxes(image: np.ndarray, max_windows: int) -> np.ndarray:
    edges, angle = edge_map(image)
    search: Any = cv2.ximgproc.createEdgeBoxes()
    search.setMaxBoxes(max_windows)
    rows, _ = search.getBoundingBoxes(edges, angle)
    return rows


def edge_map(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns thin edges (H, W), 0 to 1, and their angles, 0 to pi, both float32.

    Stands in for EdgeBoxes' trained edges, which need a model file: the largest gradient of the
    three channels after a light blur, thinned across the edge, the faint ones left out. Squared,
    bold edges outweigh texture as they do in trained ones: more objects are found, in a fifth of
    the time.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32) / 255, (0, 0), 1.0)
    right = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.hypot(right, down)
    channel = strength.argmax(axis=2)[..., None]
    right, down, edges = (
        np.take_along_axis(x, channel, axis=2)[..., 0] for x in (right, down, strength)
    )
    # The neighbours one pixel along the gradient, between cells.
    length = np.maximum(edges, 1e-6)
    rows, columns = np.indices(edges.shape, dtype=np.float32)
    is_ridge = np.ones(edges.shape, bool)
    for sign in (1.0, -1.0):
        x, y = columns + sign * right / length, rows + sign * down / length
        is_ridge &= edges >= cv2.remap(edges, x, y, cv2.INTER_LINEAR)
    # A high percentile, not the maximum, so that one bold edge does not make the others vanish.
    bold = max(float(np.percentile(edges, 99)), 1e-6)
    thin = np.where(is_ridge & (edges > _FAINT * bold), np.minimum(edges / bold, 1) ** 2, 0)
    # Of the edge's normal, as the structured edges give it.
    angle = np.mod(np.arctan2(down, right), np.pi)
    return thin.astype(np.float32), angle.astype(np.float32)


def read_cached(folder: str, settings: Settings, data: bytes) -> np.ndarray | None:
    """Returns the windows kept in a folder, None where there are none or the file is damaged."""
    try:
        with files.open_regular(os.path.join(folder, settings.key(data))) as f:
            size = os.fstat(f.fileno()).st_size
            # Files of versions before have no checksum, and end with the windows.
            has_checksum = size % _ROW == _CHECKSUM
            windows = archives.read_npy(f, size - has_checksum * _CHECKSUM)
            if has_checksum and f.read() != _checksum(settings.key(data), windows):
                return None
    except (OSError, ValueError, EOFError):
        return None
    is_whole = windows.dtype == np.float32 and windows.ndim == 2 and windows.shape[1] == 4
    return windows if is_whole and np.isfinite(windows).all() else None


def _keep(folder: str, settings: Settings, data: bytes, windows: np.ndarray) -> None:
    name = settings.key(data)
    with files.replacing(os.path.join(folder, name)) as f:
        np.save(f, windows)
        f.write(_checksum(name, windows))


def _checksum(name: str, windows: np.ndarray) -> bytes:
    """Returns a CRC-32 of a file's name and its windows, as the bytes that follow them in it."""
    crc = zlib.crc32(np.ascontiguousarray(windows).data, zlib.crc32(name.encode()))
    return crc.to_bytes(_CHECKSUM, "little")


@dataclasses.dataclass(frozen=True)
class _Job:
    """Finds what is missing of the windows of an image of a source."""

    source: Any
    folder: str
    settings: tuple[Settings, ...]

    def missing(self, data: bytes) -> list[Settings]:
        return [s for s in self.settings if read_cached(self.folder, s, data) is None]

    def is_done(self, index: int) -> bool:
        try:
            return not self.missing(self.source[index].data)
        except errors.ImageError:
            return False

    def is_readable(self, index: int) -> bool:
        try:
            return bool(self.source[index].data)
        except errors.ImageError:
            return False

    def __call__(self, index: int) -> str:
        """Returns "" or why the image has no windows."""
        try:
            example = self.source[index]
            if missing := self.missing(example.data):
                image = images.decode(example.data, example.name)
                for s in missing:
                    _keep(self.folder, s, example.data, find_windows(image, s))
            return ""
        except errors.ImageError as e:
            return str(e)


def has_all(
    source: Any, indices: Sequence[int], folder: str, settings: tuple[Settings, ...]
) -> bool:
    """Returns whether `find_all`, of the same arguments, would write nothing in the folder."""
    job = _Job(source, folder, settings)
    return os.path.isdir(folder) and all(job.is_done(i) or not job.is_readable(i) for i in indices)


def find_all(
    source: Any,
    indices: Sequence[int],
    folder: str,
    settings: tuple[Settings, ...],
    num_processes: int = 0,
) -> Generator[tuple[int, str], None, None]:
    """Finds the windows of images in parallel and keeps them in a folder.

    An image whose windows are there already is passed over, so an interrupted call goes on.

    Args:
        source: a `data.objects.ObjectSource`; it is sent to the processes.
        indices: of its images.
        folder: made if missing.
        settings: one per method.
        num_processes: 0 is one for each core.

    Yields:
        Each index with "" or a sentence that says why its image cannot be read; first those whose
        windows are there, then the others.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"{folder} cannot be written: {e.strerror}") from e
    files.remove_leftovers(folder)
    job = _Job(source, folder, settings)
    left = []
    for index in indices:
        if job.is_done(index):
            yield index, ""
        else:
            left.append(index)
    if not left:
        return
    count = min(num_processes or os.cpu_count() or 1, len(left))
    with workers.start(count) as pool:
        yield from zip(left, pool.map(job, left, chunksize=1))
