"""One linear SVM per class; hard negatives are mined in one pass over the images (section 4.1).

Shapes: R windows of an image · F features · K classes · G objects of an image.

Memory holds the positives and, for each class, the hard negatives: the windows that the class's SVM
does not yet tell clearly from objects. The features of all other windows are read once and dropped.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import sklearn.svm

from spp_jax import config as config_lib
from spp_jax.detection import boxes, device
from spp_jax.detection.windows import regions


@dataclasses.dataclass(frozen=True)
class Linear:
    """The SVMs of K classes: their scores of features (n, F) are features @ weights + bias.

    Attributes:
        weights: (F, K) float32.
        bias: (K,) float32; -inf for a class without an SVM, whose scores are then all -inf.
    """

    weights: np.ndarray
    bias: np.ndarray


class Miner:
    """Trains the SVMs of all classes: `add` each image, then `finish`.

    Attributes:
        num_trainings: number of SVMs trained so far; a class's SVM counts each time.
    """

    def __init__(
        self,
        config: config_lib.MiningConfig,
        positives: Sequence[np.ndarray],
        *,
        factor: float,
        seed: int,
    ):
        """Starts without negatives.

        Args:
            config: the constants.
            positives: for each class, the features (n, F) of its objects; a class without objects
                gets no SVM.
            factor: features are multiplied by it, so that their mean norm is `config.mean_norm`.
            seed: of the order in which liblinear visits the examples.
        """
        self._config, self._factor, self._seed = config, factor, seed
        num_features = max(x.shape[1] for x in positives)
        self._positives = [(x * factor).astype(np.float32) for x in positives]
        self._negatives = _Negatives(len(positives))
        self._num_new = [0] * len(positives)
        self._weights = np.zeros((num_features, len(positives)), np.float32)
        self._bias = np.full(len(positives), -np.inf, np.float32)
        self.num_trainings = 0

    @property
    def linear(self) -> Linear:
        """The SVMs so far, for features that are not multiplied by `factor`."""
        return Linear(self._weights * self._factor, self._bias)

    def add(
        self,
        features: jax.Array | np.ndarray,
        row: np.ndarray,
        windows: np.ndarray,
        objects: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """Adds an image's hard negatives, and trains each class that has enough new ones.

        Args:
            features: (U, F) on the device; windows may share a row.
            row: (R,) for each window, its row in `features`.
            windows: (R, 4).
            objects: (G, 4) boxes of all objects of the image, difficult ones included.
            labels: (G,) their classes.
        """
        config, num_classes = self._config, len(self._positives)
        overlap = boxes.iou(windows, objects) if len(objects) else np.zeros((len(windows), 0))
        of_class = [overlap[:, labels == k].max(axis=1, initial=0) for k in range(num_classes)]
        is_hard = np.stack(of_class, axis=1) < config.max_negative_iou
        linear, is_trained = self.linear, np.isfinite(self._bias)
        scores = np.asarray(device.apply_linear(linear.weights, linear.bias, features))[row]
        # Before its first training every negative of a class is hard.
        is_hard &= (scores > config.hard) | ~is_trained
        is_hard &= [len(x) > 0 for x in self._positives]
        if config.negative_nms:
            is_hard &= self._is_best(windows, scores, is_hard)
        # Windows on the same cells are one example.
        chosen = {
            int(k): np.unique(row[is_hard[:, k]]) for k in np.flatnonzero(is_hard.any(axis=0))
        }
        if chosen:
            self._negatives.add(np.asarray(features), np.float32(self._factor), chosen)
        for k, rows in chosen.items():
            self._num_new[k] += len(rows)
        # A class is trained at once the first time, and later when enough negatives are new.
        limits = np.where(is_trained, config.retrain_every, 0)
        self._train([k for k, new in enumerate(self._num_new) if new > limits[k]])

    def finish(self) -> Linear:
        """Trains every class that has negatives a last time, and returns the SVMs."""
        self._train([k for k in range(len(self._positives)) if self._negatives.count(k)])
        return self.linear

    @property
    def num_negatives(self) -> int:
        """Number of negatives in memory; one that is hard for several classes counts for each."""
        return sum(self._negatives.count(k) for k in range(len(self._positives)))

    def _is_best(self, windows: np.ndarray, scores: np.ndarray, is_hard: np.ndarray) -> np.ndarray:
        """Returns a mask (R, K) of the hard negatives that NMS at `negative_nms` keeps."""
        # Padded, so that few programs are compiled.
        count = regions.padded_count(len(windows))
        ranked = np.where(is_hard, np.nan_to_num(scores, neginf=0), -np.inf).astype(np.float32)
        selection = boxes.nms(
            regions.pad_rows(windows.astype(np.float32), count),
            regions.pad_rows(ranked, count, -np.inf),
            iou_threshold=self._config.negative_nms,
            score_threshold=-np.inf,
            max_kept=count,
        )
        index, is_kept = np.asarray(selection.row), np.asarray(selection.is_kept)
        best = np.zeros(is_hard.shape, bool)
        for k in range(is_hard.shape[1]):
            best[index[k][is_kept[k]], k] = True
        return best

    def _train(self, classes: Sequence[int]) -> None:
        # One class after the other: liblinear has one stream of random numbers per process, and
        # threads that share it would make every run different.
        for k in classes:
            self._weights[:, k], self._bias[k] = self._train_class(k)
        self.num_trainings += len(classes)
        if classes:
            self._negatives.forget_unused()

    def _train_class(self, k: int) -> tuple[np.ndarray, float]:
        config, positives = self._config, self._positives[k]
        examples = np.concatenate([positives, *self._negatives.of_class(k)])
        targets = np.where(np.arange(len(examples)) < len(positives), 1, -1)
        machine: Any = sklearn.svm.LinearSVC(
            C=config.c,
            loss="hinge",
            class_weight={1: config.positive_weight, -1: 1.0},
            intercept_scaling=config.bias,  # pyright: ignore[reportArgumentType] (stubs say int)
            random_state=self._seed,
            tol=config.tolerance,
            max_iter=20_000,
        )
        machine.fit(examples, targets)
        scores = machine.decision_function(examples[len(positives) :])
        # Negatives that score low by now would hardly change the next training.
        self._negatives.keep(k, scores >= config.evict)
        self._num_new[k] = 0
        return machine.coef_[0], float(machine.intercept_[0])


class _Negatives:
    """The hard negatives of every class; a window that is hard for several is stored once."""

    def __init__(self, num_classes: int):
        # {image: features (n, F) of its hard negatives}; and for each class, in order of images,
        # (image, rows of its features).
        self._blocks: dict[int, np.ndarray] = {}
        self._used: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(num_classes)]
        self._num_added = 0

    def add(self, features: np.ndarray, factor: np.float32, chosen: dict[int, np.ndarray]) -> None:
        """Adds rows of an image's features, multiplied by `factor`, to the classes' negatives.

        Args:
            features: (U, F).
            factor: multiplies the features.
            chosen: {class: its rows of `features`, increasing}.
        """
        rows = np.unique(np.concatenate(list(chosen.values())))
        self._blocks[self._num_added] = features[rows] * factor
        for k, of_class in chosen.items():
            self._used[k].append((self._num_added, np.searchsorted(rows, of_class)))
        self._num_added += 1

    def count(self, k: int) -> int:
        """Returns the number of a class's negatives."""
        return sum(len(rows) for _, rows in self._used[k])

    def of_class(self, k: int) -> list[np.ndarray]:
        """Returns the features of a class's negatives, image by image."""
        return [self._blocks[block][rows] for block, rows in self._used[k]]

    def keep(self, k: int, is_kept: np.ndarray) -> None:
        """Keeps only the negatives of class k in a mask (count,), in the order of `of_class`."""
        parts = np.split(is_kept, np.cumsum([len(rows) for _, rows in self._used[k]])[:-1])
        entries = [(block, rows[part]) for (block, rows), part in zip(self._used[k], parts)]
        self._used[k] = [(block, rows) for block, rows in entries if len(rows)]

    def forget_unused(self) -> None:
        """Frees the memory of rows that no class uses any more."""
        is_used = {block: np.zeros(len(rows), bool) for block, rows in self._blocks.items()}
        for block, rows in (entry for entries in self._used for entry in entries):
            is_used[block][rows] = True
        for block, used in is_used.items():
            if not used.all():
                self._blocks[block] = self._blocks[block][used]
                if not used.any():
                    del self._blocks[block]
        places = {block: np.cumsum(used) - 1 for block, used in is_used.items()}
        self._used = [
            [(block, places[block][rows]) for block, rows in entries] for entries in self._used
        ]
