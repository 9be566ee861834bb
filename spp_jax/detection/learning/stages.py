"""Trains a detector, stage by stage: each leaves a file in the workdir and is not done again.

proposals -> (fine-tuning) -> box regression -> SVMs with hard negatives (section 4.1). Features are
looked at once, image by image; what is kept is the examples of boxes and hard negatives.

Shapes: R windows of an image · P pooled features · F features of the SVMs' layer · K classes.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.data.sources import objects
from spp_jax.detection import bars, boxes, dataset, detector
from spp_jax.detection import workdir as workdirs
from spp_jax.detection.learning import finetune, mining, regression
from spp_jax.detection.proposals import proposing
from spp_jax.detection.windows import regions


def train(config: config_lib.DetectionConfig, workdir: str) -> int | None:
    """Trains a detector, or goes on with the stages that the workdir does not have yet.

    Returns:
        The signal that stopped it while it was fine-tuning, else None.

    Raises:
        InputError: the config, the network, the data and the workdir do not fit.
    """
    config_lib.validate(config)
    workdirs.check(config, workdir)
    start = workdirs.load_start(config, workdir)
    if start.is_own:
        print(
            f"config.checkpoint={config.checkpoint!r} is no checkpoint: the detector goes on with "
            f"its own copy of the network, {start.step_dir}",
            flush=True,
        )
    regions.check_features(start.model, config.features)
    if config.finetune.enabled:
        finetune.check(config.finetune, start.model)
    data, further = _read_splits(config)
    stored = proposing.read_stored(config.proposals)
    if stored is not None:
        stored.check(data)
    _check_test(config, data.class_names, stored)
    digests = [x.digest() for x in (data, further) if x] + [stored.digest if stored else ""]
    workdirs.record(config, workdir, data, "".join(digests), start)

    proposer = proposing.prepare(config.proposals, workdir, data, stored, is_eval=False)
    if config.finetune.enabled:
        stopped_by = finetune.train(config, workdir, data, proposer, start.step_dir).stopped_by
        if stopped_by is not None:
            return stopped_by
    svm_file, regression_file = (
        os.path.join(workdir, name) for name in (detector.SVM_FILE, detector.REGRESSION_FILE)
    )
    has_svm = detector.load_arrays(svm_file) is not None
    has_regression = detector.load_arrays(regression_file) is not None
    if has_svm and (has_regression or not config.regression.enabled):
        print(f"the detector in {workdir} is trained already", flush=True)
        return None
    network = detector.network_dir(workdir)
    model, variables, _ = checkpoint.load(network or "")
    trainer = _Trainer(config, data, proposer, regions.Regions(model, variables, config.features))
    examples = trainer.gather(further)
    if config.regression.enabled and not has_regression:
        found = examples.fit(config.regression)
        detector.save_arrays(regression_file, **dataclasses.asdict(found))
        print(f"box regression -> {regression_file}", flush=True)
    if not has_svm:
        linear = trainer.mine(examples)
        detector.save_arrays(svm_file, **dataclasses.asdict(linear))
        print(f"SVMs -> {svm_file}", flush=True)
    return None


def _read_splits(
    config: config_lib.DetectionConfig,
) -> tuple[dataset.Dataset, dataset.Dataset | None]:
    """Returns the training split, and that of `config.data.positives_split`, and prints counts."""
    name, path = config.data.name, config.data.path
    data = dataset.read(objects.open_objects(name, path, config.data.split), skip_damaged=True)
    print(data.lines(), flush=True)
    if not config.data.positives_split:
        return data, None
    source = objects.open_objects(name, path, config.data.positives_split)
    further = dataset.read(source, data.class_names, skip_damaged=True)
    print(further.lines(), flush=True)
    return data, further


def _check_test(
    config: config_lib.DetectionConfig,
    class_names: tuple[str, ...],
    stored: proposing.Stored | None,
) -> None:
    """Raises InputError for what evaluation would find wrong, before the work."""
    if not config.data.eval_split:
        return
    source = objects.open_objects(config.data.name, config.data.path, config.data.eval_split)
    tested = dataset.read(source, class_names)
    if stored is not None:
        stored.check(tested)


@dataclasses.dataclass(frozen=True)
class Examples:
    """What is kept of the objects.

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

    def fit(self, config: config_lib.RegressionConfig) -> regression.Regressor:
        """Fits the regressors of all classes, for features as they come."""
        count = max(x.shape[1] for x in self.near)
        weights = np.zeros((count, len(self.near), 4), np.float32)
        bias = np.zeros((len(self.near), 4), np.float32)
        for k in bars.track(range(len(self.near)), f"box regression of {len(self.near)} classes"):
            if len(self.near[k]):
                scaled = self.near[k].astype(np.float32) * self.factors[1]
                found, bias[k] = regression.fit(scaled, self.deltas[k], config.strength)
                weights[:, k] = found * self.factors[1]
        return regression.Regressor(weights, bias)


class _Trainer:
    """Passes over the images of the training split."""

    def __init__(
        self,
        config: config_lib.DetectionConfig,
        data: dataset.Dataset,
        proposer: proposing.Proposer,
        pools: regions.Regions,
    ):
        self._config, self._data, self._proposer, self._regions = config, data, proposer, pools
        # Images of a shape follow one another in a plan; chance mixes them again.
        batches = pools.plan(data.sizes)
        order = np.random.default_rng(config.seed).permutation(len(batches))
        self._batches = [batches[i] for i in order]
        self._refused: set[str] = set()

    def _pass(
        self,
        choose: Callable[[int, regions.LoadedImage], np.ndarray],
        title: str,
        further: dataset.Dataset | None = None,
    ) -> Iterator[regions.Pooled]:
        """Yields the images of the split, or of one without proposals, that have windows."""
        data, batches, proposer = self._data, self._batches, self._proposer
        if further is not None:
            data, batches, proposer = further, self._regions.plan(further.sizes), _no_proposals
        stream = self._regions.stream(data.source, batches, proposer, choose, self._refuse)
        for found in bars.track(stream, f"{title} {data.source.split}", len(data.sizes)):
            if len(found.windows):
                yield found

    def _split(self, known: dataset.Objects, layer: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (class, features (n, F)) of the objects (G, F) of an image to be learnt from."""
        is_positive = known.is_positive(self._config.data.has_difficult)
        for k in np.unique(known.labels):
            yield int(k), layer[is_positive & (known.labels == k)]

    def _refuse(self, index: int, sentence: str) -> None:
        del index
        if sentence not in self._refused:
            self._refused.add(sentence)
            print(f"refused: {sentence}", flush=True)

    def gather(self, further: dataset.Dataset | None) -> Examples:
        """Takes the features of all objects, of the windows near them, and of some at random.

        The last give the norms: `norm_windows` windows of the first `norm_images` images. `further`
        is a split whose objects are positives as well.
        """
        config, num_classes = self._config, len(self._data.class_names)
        positives: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        near: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        deltas: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        counts = [0] * num_classes
        order = [i for batch in self._batches for i in batch.indices]
        measured = set(order[: config.svm.norm_images])
        norms: list[np.ndarray] = []
        num_near: dict[int, int] = {}

        def choose(index: int, shown: regions.LoadedImage) -> np.ndarray:
            known = self._data.objects[index].boxes
            best = boxes.iou(shown.proposals, known).max(axis=1, initial=0)
            near_them = shown.proposals[best > config.regression.min_iou]
            num_near[index] = len(known) + len(near_them)
            rng = np.random.default_rng([config.seed, index])
            count = config.svm.norm_windows if index in measured else 0
            return np.concatenate([known, near_them, rng.permutation(shown.proposals)[:count]])

        num_features = 0, 0
        for found in self._pass(choose, "objects"):
            known, count = self._data.objects[found.image], num_near[found.image]
            layer, pool = (np.asarray(x)[found.row] for x in (found.layer, found.pool))
            norms.append(np.stack([np.linalg.norm(x[count:], axis=1) for x in (layer, pool)]))
            num_features = layer.shape[1], pool.shape[1]
            if not count:
                continue
            for k, own in self._split(known, layer[: len(known.boxes)]):
                positives[k].append(own)
            if not config.regression.enabled:
                continue
            windows = found.windows[:count]
            nearest = boxes.iou(windows, known.boxes).argmax(axis=1)
            is_positive = known.is_positive(config.data.has_difficult)[nearest]
            for k in np.unique(known.labels):
                rows = np.flatnonzero((known.labels[nearest] == k) & is_positive)
                rows = rows[: config.regression.max_examples - counts[k]]
                counts[k] += len(rows)
                # Half the memory; a tenth of a percent matters less than any window.
                near[k].append(pool[rows].astype(np.float16))
                deltas[k].append(boxes.encode_deltas(windows[rows], known.boxes[nearest[rows]]))
        if not any(positives):
            raise errors.InputError("no training image with an object can be read")
        if further is not None:
            for found in self._pass(lambda i, _: further.objects[i].boxes, "objects", further):
                layer = np.asarray(found.layer)[found.row]
                for k, own in self._split(further.objects[found.image], layer):
                    positives[k].append(own)
        if not sum(x.shape[1] for x in norms):
            raise errors.InputError("no training image has windows to learn from")
        means = np.concatenate(norms, axis=1).mean(axis=1)
        print(f"mean norms: {means[0]:.4g} of the layer, {means[1]:.4g} of the pool", flush=True)
        factors = [config.svm.mean_norm / max(float(m), 1e-12) for m in means]

        def join(parts: list[np.ndarray], width: int, dtype: type) -> np.ndarray:
            return np.concatenate([np.zeros((0, width), dtype), *parts])

        return Examples(
            (factors[0], factors[1]),
            [join(x, num_features[0], np.float32) for x in positives],
            [join(x, num_features[1], np.float16) for x in near],
            [join(x, 4, np.float64) for x in deltas],
        )

    def mine(self, examples: Examples) -> mining.Linear:
        """Trains the SVMs in one pass over all windows."""
        config = self._config.svm
        miner = mining.Miner(
            config, examples.positives, factor=examples.factors[0], seed=self._config.seed
        )

        def choose(index: int, shown: regions.LoadedImage) -> np.ndarray:
            # Objects of one class are negatives of the others.
            return np.concatenate([self._data.objects[index].boxes, shown.proposals])

        for found in self._pass(choose, "hard negatives"):
            known = self._data.objects[found.image]
            miner.add(found.layer, found.row, found.windows, known.boxes, known.labels)
        linear = miner.finish()
        if not np.isfinite(linear.bias).any():
            raise errors.InputError("no class has both objects and windows to tell them from")
        empty = [n for n, b in zip(self._data.class_names, linear.bias) if not np.isfinite(b)]
        if empty:
            print(f"no examples to tell apart, so no SVM, of {', '.join(empty)}", flush=True)
        print(
            f"{sum(len(x) for x in examples.positives)} objects, {miner.num_negatives} hard "
            f"negatives kept, {miner.num_trainings} trainings",
            flush=True,
        )
        return linear


def _no_proposals(data: bytes, name: str, image: np.ndarray) -> np.ndarray:
    del data, name, image
    return np.zeros((0, 4), np.float32)
