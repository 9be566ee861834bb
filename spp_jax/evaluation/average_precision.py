"""Average precision as PASCAL VOC's devkits compute it, from a ranking."""

import numpy as np

# In float64 three of them, .3, .6 and .7, lie above i / 10, so that a recall of exactly i / 10 is
# less. So it is in the Python evaluations of VOC, and in published values.
TENTHS = np.arange(11) * 0.1


def of_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns (11-point, area) average precision of a class in image classification.

    Args:
        scores: (n,), higher is more certain; examples of equal scores keep their order.
        labels: (n,) 1 present, -1 absent, 0 not scored (the image has only difficult objects).
    """
    scored = labels != 0
    order = np.argsort(-scores[scored], kind="stable")
    is_right = labels[scored][order] > 0
    curve = precision_recall(is_right, int(is_right.sum()))
    return eleven_point(*curve), area(*curve)


def precision_recall(is_right: np.ndarray, num_positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision (n,) and recall (n,) after each answer of a ranking.

    Args:
        is_right: (n,) whether each answer is a true positive, best answer first.
        num_positives: number of all positives, ranked or not; with 0 recall is 0.
    """
    num_right = np.cumsum(is_right)
    precision = num_right / np.arange(1, len(num_right) + 1)
    return precision, num_right / max(num_positives, 1)


def eleven_point(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns 11-point average precision, 0 to 1: VOC 2007's rule, and the paper's.

    It is the mean, over the recalls 0, 0.1 ... 1, of the best precision at that recall or more.
    """
    best = [np.max(precision[recall >= t], initial=0.0) for t in TENTHS]
    return float(np.mean(best))


def area(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns average precision as an area, 0 to 1: the rule since VOC 2010.

    The area is that under the curve of the best precision at each recall or more.
    """
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))
