"""Pooling as plain numpy loops: the slow second implementation the fast one is compared with."""

import numpy as np


def pool_rectangle(cells: np.ndarray, levels, reduce=np.max) -> np.ndarray:
    """Pools (h, w, C) to a vector ordered level, row, column, channel."""
    height, width, _ = cells.shape
    out = []
    for n in levels:
        for i in range(n):
            top, bottom = int(np.floor(i * height / n)), int(np.ceil((i + 1) * height / n))
            for j in range(n):
                left, right = int(np.floor(j * width / n)), int(np.ceil((j + 1) * width / n))
                out.append(reduce(cells[top:bottom, left:right], axis=(0, 1)))
    return np.concatenate(out)


def pool_window(fmap: np.ndarray, window, levels, reduce=np.max) -> np.ndarray:
    """Pools the part of (H, W, C) in a window; zeros where they do not meet."""
    height, width, channels = fmap.shape
    x1, y1, x2, y2 = (int(v) for v in window)
    x1, x2 = max(x1, 0), min(x2, width)
    y1, y2 = max(y1, 0), min(y2, height)
    if x2 <= x1 or y2 <= y1:
        return np.zeros(channels * sum(n * n for n in levels), fmap.dtype)
    return pool_rectangle(fmap[y1:y2, x1:x2], levels, reduce)


def gradient(fmap: np.ndarray, boxes, levels, changes: np.ndarray) -> np.ndarray:
    """Returns (H, W, C): the change of each output, (R, B * C), added to the cell it came from."""
    height, width, channels = fmap.shape
    total = np.zeros(fmap.shape)
    # A window of numbered cells shows which cells a bin has.
    numbered = np.arange(height * width).reshape(height, width, 1)
    for window, row in zip(boxes, np.reshape(changes, (len(boxes), -1, channels))):
        bins = []

        def keep(cells, axis, bins=bins):
            bins.append(cells.ravel())
            return [0]

        pool_window(numbered, window, levels, keep)
        for cells, change in zip(bins, row):
            numbers = fmap.reshape(-1, channels)[cells]
            winners = cells[numbers.argmax(axis=0)]
            total.reshape(-1, channels)[winners, np.arange(channels)] += change
    return total
