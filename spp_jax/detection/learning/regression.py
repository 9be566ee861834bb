"""Box regression: ridge regression, a class at a time, on pooled features (PAPER 6.5).

Shapes: n examples · P pooled features · K classes · R windows. Deltas are (dx, dy, dw, dh): the way
to the object's centre in widths and heights of the window, and logarithms of the ratios of their
sides.
"""

import dataclasses

import numpy as np
import scipy.linalg

# Keeps the whitening of targets finite, as released.
_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class Regressor:
    """Deltas of K classes: features @ weights + bias; weights (P, K, 4), bias (K, 4) float32.

    A class without examples has zeros: its windows stay where they are.
    """

    weights: np.ndarray
    bias: np.ndarray


def encode(windows: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Returns the deltas (n, 4) that lead from windows (n, 4) to objects (n, 4)."""
    sides, wanted = windows[:, 2:] - windows[:, :2], objects[:, 2:] - objects[:, :2]
    shift = (objects[:, :2] + wanted / 2 - windows[:, :2] - sides / 2) / sides
    return np.concatenate([shift, np.log(wanted / sides)], axis=1)


def fit(features: np.ndarray, deltas: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Fits one class: returns weights (P, 4) and bias (4,).

    Targets are centred and whitened. The constant feature is regularised as any other. Of the
    normal equations' two forms, (P + 1)^2 and n^2, the smaller is solved; they are the same.

    Args:
        features: (n, P), n at least 1.
        deltas: (n, 4).
        strength: lambda, times the squared weights.
    """
    mean = deltas.mean(axis=0)
    centered = deltas - mean
    values, vectors = np.linalg.eigh(centered.T @ centered / len(deltas))
    roots = np.sqrt(np.maximum(values, 0) + _FLOOR)
    targets = centered @ (vectors / roots) @ vectors.T
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float64)
    count, width = x.shape
    if count < width:
        gram = x @ x.T
        gram[np.diag_indices(count)] += strength
        weights = x.T @ scipy.linalg.solve(gram, targets, assume_a="pos", overwrite_a=True)
    else:
        gram = x.T @ x
        gram[np.diag_indices(width)] += strength
        weights = scipy.linalg.solve(gram, x.T @ targets, assume_a="pos", overwrite_a=True)
    weights = weights @ (vectors * roots) @ vectors.T
    return weights[:-1].astype(np.float32), (weights[-1] + mean).astype(np.float32)
