"""Passes over the images of a training split, and the examples that they leave.

Features are looked at once, image by image; only those of objects, of windows near them and of hard
negatives stay in memory.

Shapes: R windows of an image · P pooled features · F features of the SVMs' layer · K classes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.detection import boxes, dataset
from spp_jax.detection.learning import regression
from spp_jax.detection.proposals import proposing
from spp_jax.detection.windows import regions
from spp_jax.runs import progress as progress_lib

# (index of an image, its proposals (R, 4)) -> the windows that are wanted of it.
Choose = Callable[[int, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Examples:
    """The features of objects and of windows near them.

    Attributes:
        factors: by which features of the layer and pooled ones are multiplied to have mean norm
            `config.svm.mean_norm`.
        positives: of each class, (n, F).
        near: of each class, pooled features (n, P), float16, of windows near its objects.
        deltas: (n, 4) that lead from these to the objects.
    """

    factors: tuple[float, float]
    positives: list[np.ndarray]
    near: list[np.ndarray]
    deltas: list[np.ndarray]

    def fit(
        self, config: config_lib.RegressionConfig, progress: progress_lib.Progress
    ) -> regression.Regressor:
        """Fits the regressors of all classes, for features as they come."""
        num_classes = len(self.near)
        weights = np.zeros((max(x.shape[1] for x in self.near), num_classes, 4), np.float32)
        bias = np.zeros((num_classes, 4), np.float32)
        title = f"box regression of {num_classes} classes"
        with progress.bar(title, num_classes) as advance:
            for k in range(num_classes):
                if len(self.near[k]):
                    scaled = self.near[k].astype(np.float32) * self.factors[1]
                    own, bias[k] = regression.fit(scaled, self.deltas[k], config.strength)
                    weights[:, k] = own * self.factors[1]
                advance(1)
        return regression.Regressor(weights, bias)


class Passes:
    """Passes over the images of the training split."""

    def __init__(
        self,
        config: config_lib.DetectionConfig,
        data: dataset.Dataset,
        proposer: proposing.Proposer,
        pools: regions.Regions,
        progress: progress_lib.Progress,
    ):
        self._config, self._data, self._proposer, self._regions = config, data, proposer, pools
        self._progress = progress
        # Images of a shape follow one another in a plan; chance mixes them again.
        batches = pools.plan(data.sizes)
        order = np.random.default_rng(config.seed).permutation(len(batches))
        self._batches = [batches[i] for i in order]
        self._refused: set[str] = set()

    def over_split(self, choose: Choose, title: str) -> Iterator[regions.Pooled]:
        """Yields the images of the split that have windows, with their features."""
        return self._pass(self._data, self._batches, self._proposer, choose, title)

    def _over_objects(self, further: dataset.Dataset) -> Iterator[regions.Pooled]:
        """Yields the images of a further split with the features of their objects alone."""

        def choose(index: int, proposals: np.ndarray) -> np.ndarray:
            del proposals
            return further.objects[index].boxes

        batches = self._regions.plan(further.sizes)
        return self._pass(further, batches, _no_proposals, choose, "objects")

    def _pass(
        self, data: dataset.Dataset, batches: Any, propose: Any, choose: Choose, title: str
    ) -> Iterator[regions.Pooled]:
        def of_image(index: int, image: Any) -> np.ndarray:
            return choose(index, image.proposals)

        stream = self._regions.stream(data.source, batches, propose, of_image, self._refuse)
        bar = self._progress.bar(f"{title} {data.source.split}", len(data.sizes))
        with contextlib.closing(stream), bar as advance:
            for pooled in stream:
                if len(pooled.windows):
                    yield pooled
                advance(1)

    def _refuse(self, index: int, sentence: str) -> None:
        del index
        if sentence not in self._refused:
            self._refused.add(sentence)
            self._progress.say(f"refused: {sentence}")

    def _split(
        self, objects: dataset.Objects, layer: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (class, features (n, F)) of the objects (G, F) of an image to be learnt from."""
        is_positive = objects.is_positive(self._config.data.has_difficult)
        for k in np.unique(objects.labels):
            yield int(k), layer[is_positive & (objects.labels == k)]

    def gather(self, further: dataset.Dataset | None) -> Examples:
        """Takes the features of all objects, of the windows near them, and of some at random.

        The last give the norms: `norm_windows` windows of the first `norm_images` images. `further`
        is a split whose objects are positives as well.
        """
        config = self._config
        num_near: dict[int, int] = {}
        order = [i for batch in self._batches for i in batch.indices]
        measured = set(order[: config.svm.norm_images])

        def choose(index: int, proposals: np.ndarray) -> np.ndarray:
            objects = self._data.objects[index].boxes
            best = boxes.iou(proposals, objects).max(axis=1, initial=0)
            near = proposals[best > config.regression.min_iou]
            num_near[index] = len(objects) + len(near)
            rng = np.random.default_rng([config.seed, index])
            count = config.svm.norm_windows if index in measured else 0
            return np.concatenate([objects, near, rng.permutation(proposals)[:count]])

        gathered = _Gathered(config, len(self._data.class_names))
        for pooled in self.over_split(choose, "objects"):
            objects, count = self._data.objects[pooled.image], num_near[pooled.image]
            layer, pool = (np.asarray(x)[pooled.row] for x in (pooled.layer, pooled.pool))
            gathered.measure(layer[count:], pool[count:])
            for k, own in self._split(objects, layer[: len(objects.boxes)]):
                gathered.positives[k].append(own)
            if count and config.regression.enabled:
                gathered.add_near(objects, pooled.windows[:count], pool)
        if not any(gathered.positives):
            raise errors.InputError("no training image with an object can be read")
        if further is not None:
            for pooled in self._over_objects(further):
                layer = np.asarray(pooled.layer)[pooled.row]
                for k, own in self._split(further.objects[pooled.image], layer):
                    gathered.positives[k].append(own)
        return gathered.examples(self._progress)


class _Gathered:
    """Parts of the examples, image by image.

    Attributes:
        positives: of each class, features (n, F) of some images.
    """

    def __init__(self, config: config_lib.DetectionConfig, num_classes: int):
        self._config = config
        self.positives: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        self._near: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        self._deltas: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        self._counts = [0] * num_classes
        self._norms: list[np.ndarray] = []
        self._num_features = 0, 0

    def measure(self, layer: np.ndarray, pool: np.ndarray) -> None:
        """Takes the norms of some windows' features, (n, F) and (n, P)."""
        self._norms.append(np.stack([np.linalg.norm(x, axis=1) for x in (layer, pool)]))
        self._num_features = layer.shape[1], pool.shape[1]

    def add_near(self, objects: dataset.Objects, windows: np.ndarray, pool: np.ndarray) -> None:
        """Takes the pooled features of windows near the objects of an image, as they have room."""
        config = self._config
        nearest = boxes.iou(windows, objects.boxes).argmax(axis=1)
        is_positive = objects.is_positive(config.data.has_difficult)[nearest]
        for k in np.unique(objects.labels):
            rows = np.flatnonzero((objects.labels[nearest] == k) & is_positive)
            rows = rows[: config.regression.max_examples - self._counts[k]]
            self._counts[k] += len(rows)
            # Half the memory; a tenth of a percent matters less than any window.
            self._near[k].append(pool[rows].astype(np.float16))
            deltas = boxes.encode_deltas(windows[rows], objects.boxes[nearest[rows]])
            self._deltas[k].append(deltas)

    def examples(self, progress: progress_lib.Progress) -> Examples:
        """Returns all parts joined; raises InputError where no window was measured."""
        if not sum(x.shape[1] for x in self._norms):
            raise errors.InputError("no training image has windows to learn from")
        means = np.concatenate(self._norms, axis=1).mean(axis=1)
        progress.say(f"mean norms: {means[0]:.4g} of the layer, {means[1]:.4g} of the pool")
        factors = [self._config.svm.mean_norm / max(float(m), 1e-12) for m in means]

        def join(parts: list[np.ndarray], width: int, dtype: type) -> np.ndarray:
            return np.concatenate([np.zeros((0, width), dtype), *parts])

        return Examples(
            (factors[0], factors[1]),
            [join(x, self._num_features[0], np.float32) for x in self.positives],
            [join(x, self._num_features[1], np.float16) for x in self._near],
            [join(x, 4, np.float64) for x in self._deltas],
        )


def _no_proposals(data: bytes, name: str, image: np.ndarray) -> np.ndarray:
    del data, name, image
    return np.zeros((0, 4), np.float32)
