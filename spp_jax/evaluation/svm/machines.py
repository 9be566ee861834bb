"""Linear SVMs on features, by their kernel (sections 3.2 and 3.3: one-vs-rest, C = 1).

Shapes: n examples to train · m to test · K classes.

A linear SVM sees its examples only through their inner products. So it is trained on n coordinates
in place of D features, 50 bins of 1024 channels among them, that have the same inner products, and
is the same SVM. Inner products of concatenated vectors add up, so each level of a pyramid is
multiplied out once for all the pyramids that hold it.
"""

import concurrent.futures
import os

import numpy as np
import scipy.linalg
import sklearn.svm

# Columns multiplied at a time in float64, and what keeps the factor of a singular kernel finite:
# it stands for a feature of 3e-5 that each example has alone.
_COLUMNS = 4096
_JITTER = 1e-9


def inner_products(features: np.ndarray) -> np.ndarray:
    """Returns the inner products of the rows of (n, D) in float64, (n, n)."""
    total = np.zeros((len(features), len(features)))
    for first in range(0, features.shape[1], _COLUMNS):
        block = features[:, first : first + _COLUMNS].astype(np.float64)
        total += block @ block.T
    return total


def normalize_kernel(kernel: np.ndarray) -> np.ndarray:
    """Returns the inner products of the same vectors, each divided by its Euclidean norm.

    A vector of nothing but zeros stays one.
    """
    norms = np.sqrt(np.maximum(np.diagonal(kernel), 1e-24))
    return kernel / norms[:, None] / norms


def decisions(
    kernel: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    targets: np.ndarray,
    *,
    c: float,
    loss: str,
    seed: int,
) -> np.ndarray:
    """Trains a liblinear SVM a class, one against the rest, and returns its decisions, (m, K).

    Args:
        kernel: inner products of all examples.
        train: (n,) which examples to train on.
        test: (m,) which to decide on.
        targets: (n, K) 1 positive, -1 negative, 0 left out of that class's training.
        c: the penalty C of an error.
        loss: "hinge" or "squared_hinge".
        seed: of the order in which liblinear visits the examples.

    Returns:
        Signed distances; -inf for a class without positives, 0 for one without negatives.
    """
    own = kernel[np.ix_(train, train)]
    factor = np.linalg.cholesky(own + _JITTER * np.eye(len(train)))
    shown = scipy.linalg.solve_triangular(factor, kernel[np.ix_(train, test)], lower=True).T
    # C-ordered, else liblinear copies them for each class.
    factor, shown = np.ascontiguousarray(factor), np.ascontiguousarray(shown)

    def decide(k: int) -> np.ndarray:
        used = targets[:, k] != 0
        if not np.any(targets[:, k] > 0):
            return np.full(len(test), -np.inf)
        if not np.any(targets[:, k] < 0):
            return np.zeros(len(test))
        machine = sklearn.svm.LinearSVC(C=c, loss=loss, random_state=seed, max_iter=20_000)
        examples = factor if used.all() else factor[used]
        return machine.fit(examples, targets[used, k]).decision_function(shown)

    # liblinear lets go of the interpreter while it works.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(decide, range(targets.shape[1]))), axis=1)


def mean_class_accuracy(decided: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over the classes tested of the share of their examples decided rightly.

    Args:
        decided: (m, K); the largest decides.
        labels: (m,) class indices.
    """
    is_right = np.argmax(decided, axis=1) == labels
    return float(np.mean([np.mean(is_right[labels == k]) for k in np.unique(labels)]))
