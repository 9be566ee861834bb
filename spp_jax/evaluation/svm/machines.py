"""Linear SVMs on features, by their kernel (sections 3.2 and 3.3: one-vs-rest, C = 1).

Shapes: n training examples · m test examples · D features · K classes.

A linear SVM depends on its examples only through their inner products. So it is trained not on D
features, as many as 50 bins of 1024 channels, but on n coordinates with the same inner products,
and is the same SVM. The inner products of concatenated vectors are sums of those of their parts, so
those of each level of a pyramid are computed once for all pyramids that have this level.
"""

import concurrent.futures
import os

import numpy as np
import scipy.linalg
import sklearn.svm

# Columns multiplied at a time in float64. The jitter keeps the factor of a singular kernel finite:
# it is as if each example had a further feature, of 3e-5, that all others lack.
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
    """Returns the kernel (n, n) of the same vectors, each divided by its Euclidean norm.

    A vector of zeros remains so.
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
    """Trains one liblinear SVM per class, one against the rest, and returns its decisions, (m, K).

    Args:
        kernel: inner products of all examples.
        train: (n,) indices of the training examples.
        test: (m,) indices of the test examples.
        targets: (n, K) 1 positive, -1 negative, 0 left out of that class's training.
        c: the penalty C of an error.
        loss: "hinge" or "squared_hinge".
        seed: of the order in which liblinear visits the examples.

    Returns:
        Decision values, positive for members; all -inf for a class without positives, and all 0
        for a class without negatives.
    """
    of_train = kernel[np.ix_(train, train)]
    factor = np.linalg.cholesky(of_train + _JITTER * np.eye(len(train)))
    tests = scipy.linalg.solve_triangular(factor, kernel[np.ix_(train, test)], lower=True).T
    # C-ordered, else liblinear copies them for each class.
    factor, tests = np.ascontiguousarray(factor), np.ascontiguousarray(tests)

    def decide(k: int) -> np.ndarray:
        used = targets[:, k] != 0
        if not np.any(targets[:, k] > 0):
            return np.full(len(test), -np.inf)
        if not np.any(targets[:, k] < 0):
            return np.zeros(len(test))
        machine = sklearn.svm.LinearSVC(C=c, loss=loss, random_state=seed, max_iter=20_000)
        examples = factor if used.all() else factor[used]
        return machine.fit(examples, targets[used, k]).decision_function(tests)

    # liblinear releases Python's lock while it works.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(decide, range(targets.shape[1]))), axis=1)


def mean_class_accuracy(decided: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean, over the classes in `labels`, of the share of correct examples, 0 to 1.

    Args:
        decided: (m, K) decision values; the largest is the answer.
        labels: (m,) class indices.
    """
    is_right = np.argmax(decided, axis=1) == labels
    return float(np.mean([np.mean(is_right[labels == k]) for k in np.unique(labels)]))
