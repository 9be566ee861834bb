"""Box regression: per class a ridge regression on pooled features, as the released code has it.

Shapes: n examples · P pooled features · K classes. Deltas are those of `boxes.encode_deltas`.
"""

import dataclasses

import numpy as np
import scipy.linalg

# Keeps the whitening of targets finite; the released code's value.
_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class Regressor:
    """Predicts deltas for K classes: features @ weights + bias.

    Attributes:
        weights: (P, K, 4) float32; zeros for a class without examples, whose windows stay in place.
        bias: (K, 4) float32; zeros likewise.
    """

    weights: np.ndarray
    bias: np.ndarray


def fit(features: np.ndarray, deltas: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights (P, 4) and the bias (4,), float32, of one class.

    Targets are centred and whitened. The constant feature, which makes the bias, is regularised as
    any other. The normal equations have two equivalent forms, with a matrix of (P + 1)^2 or of n^2
    numbers; the smaller one is solved.

    Args:
        features: (n, P), n at least 1.
        deltas: (n, 4).
        strength: lambda, the factor of the squared weights in the loss.
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
