"""Average precision as PASCAL VOC's devkits compute it, from a ranking."""

import numpy as np

# As the Python evaluations of VOC have them, and the published values that tests compare with: as
# float64 three of them, .3, .6 and .7, lie above i / 10, so that a recall of just that is less.
TENTHS = np.arange(11) * 0.1


def of_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns (11-point, area) average precision of a class in image classification.

    Args:
        scores: (n,), higher is more certain; equal ones stand in their order.
        labels: (n,) 1 present, -1 absent, 0 not scored (only difficult objects).
    """
    scored = labels != 0
    order = np.argsort(-scores[scored], kind="stable")
    is_right = labels[scored][order] > 0
    curve = precision_recall(is_right, int(is_right.sum()))
    return eleven_point(*curve), area(*curve)


def precision_recall(is_right: np.ndarray, num_positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall after each answer of a ranking, best first.

    Args:
        is_right: (n,) whether each answer is a true positive.
        num_positives: of all there are to find; with none recall is 0.
    """
    found = np.cumsum(is_right)
    precision = found / np.arange(1, len(found) + 1)
    return precision, found / max(num_positives, 1)


def eleven_point(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns the mean, over recalls 0, 0.1 ... 1, of the best precision at no less recall.

    VOC 2007's rule, and the paper's.
    """
    best = [np.max(precision[recall >= t], initial=0.0) for t in TENTHS]
    return float(np.mean(best))


def area(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns the area under the best precision at no less recall: the rule since VOC 2010."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))
