"""Fine-tunes a network to tell windows apart, in the loop that trains classifiers (section 4.1).

Convolutions are not changed, unless the config says from which on, and are computed anew for each
step: nothing is cached. Windows are sampled image by image, a few images a step, as is usual since;
the paper draws those of a step from many images, which needs the maps of all of them on disk.

Shapes: b images of a step · r windows of an image · K classes, and class 0, the background.
"""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spp_jax import checkpoint, errors, sharding
from spp_jax import config as config_lib
from spp_jax.data import images
from spp_jax.detection import (
    boxes,
    dataset,
    detection_config,
    detector,
    propose,
    regions,
    scales,
)
from spp_jax.evaluation import canvases
from spp_jax.models import sppnet
from spp_jax.training import loop, schedule, steps
from spp_jax.training import state as state_lib

BACKGROUND = "background"

# Streams of random numbers that must not meet: the images of a step, the windows of an image.
_STEP, _WINDOWS = 3, 4


def train(
    config: detection_config.DetectionConfig,
    workdir: str,
    data: dataset.Dataset,
    proposer: propose.Proposer,
) -> loop.Result:
    """Fine-tunes in WORKDIR/finetune, or goes on there, as `training.loop.run`.

    Raises:
        InputError: the network, the data or the number of devices does not fit.
    """
    tune = config.finetune
    sharding.check_batch_size(tune.images_per_batch, "config.finetune.images_per_batch")
    start = checkpoint.latest_step_dir(os.path.expanduser(config.checkpoint)) or ""
    names = (BACKGROUND, *data.class_names)
    run_config = make_config(config, checkpoint.read_meta(start).config, start, len(names))
    model = config_lib.make_model(run_config, len(names))
    is_trained = trained_mask(model, tune.from_layer)
    stream = WindowStream(config, data, proposer, model, jax.process_index(), jax.process_count())
    optimizer = schedule.make_optimizer(run_config.train, stream.steps_per_epoch)
    masked = optax.with_extra_args_support(optax.masked(optimizer, is_trained))
    about = (
        f"{data.source.split}: {len(stream.indices)} images with objects, {tune.num_steps} steps "
        f"of {tune.images_per_batch} images and {tune.batch_size} windows; trained: "
        f"{tune.from_layer + ' to ' if tune.from_layer else ''}fully connected layers"
    )
    step = make_step(model, masked, is_trained, seed=config.seed)
    job = loop.Job(stream, names, len(stream.indices), about, model, masked, step)
    return loop.run(run_config, os.path.join(workdir, detector.FINETUNED), job)


def make_config(
    config: detection_config.DetectionConfig,
    before: config_lib.Config,
    start: str,
    num_outputs: int,
) -> config_lib.Config:
    """Returns the config of the fine-tuned network, as its checkpoint holds it.

    Args:
        config: of the detector.
        before: of the network to start from.
        start: its step directory.
        num_outputs: K + 1.
    """
    tune = config.finetune
    found = config_lib.Config(seed=config.seed, init_from=start)
    found.model = dataclasses.replace(before.model, num_classes=num_outputs)
    found.data = dataclasses.replace(
        before.data,
        name=config.data.name,
        path=config.data.path,
        split=config.data.split,
        batch_size=tune.images_per_batch,
        num_workers=0,
    )
    found.train = config_lib.TrainConfig(
        num_epochs=tune.num_steps,
        steps_per_epoch=1,
        sizes=before.train.sizes,
        learning_rate=tune.learning_rate,
        lr_schedule="step",
        drop_epochs=tune.drop_steps,
        momentum=tune.momentum,
        bias_lr_factor=tune.bias_lr_factor,
        weight_decay=tune.weight_decay,
        flip=tune.flip,
        color_noise=0.0,
        eval_every_epochs=0,
        checkpoint_every_steps=tune.checkpoint_every_steps,
        keep_checkpoints=1,
        log_every_steps=tune.log_every_steps,
    )
    return found


def trained_mask(model: sppnet.SPPNet, from_layer: str) -> dict:
    """Returns a tree like the parameters: whether each is trained.

    Args:
        model: the network.
        from_layer: the first layer or block of the backbone that is; "": only the head.

    Raises:
        InputError: there is no such layer.
    """
    names = [layer.name for layer in model.backbone.layers]
    if from_layer and from_layer not in names:
        raise errors.InputError(
            f"config.finetune.from_layer={from_layer}: {model.backbone.name} has {', '.join(names)}"
        )
    trained = set(names[names.index(from_layer) :]) if from_layer else set()

    def is_trained(path: tuple, _: Any) -> bool:
        room, layer = path[0].key, path[1].key
        return room == "head" or layer in trained

    return jax.tree_util.tree_map_with_path(is_trained, sppnet.param_shapes(model))


def make_step(
    model: sppnet.SPPNet,
    optimizer: optax.GradientTransformationExtraArgs,
    is_trained: dict,
    *,
    seed: int,
) -> steps.TrainStep:
    """Returns step(state, batch) -> (state, metrics), as `steps.make_train_step`.

    The batch is {"image": (b, h, w, 3) uint8, "extent": (b, 2), "windows": (b, r, 4) cells,
    "label": (b, r), "weight": (b, r)}. No gradient of what is not trained is computed.
    """

    def step(
        state: state_lib.TrainState, batch: dict[str, jax.Array]
    ) -> tuple[state_lib.TrainState, steps.Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params: dict) -> tuple[jax.Array, steps.Metrics]:
            params = jax.tree.map(
                lambda x, is_free: x if is_free else jax.lax.stop_gradient(x), params, is_trained
            )
            logits: Any = model.apply(
                {**state.variables, "params": params},
                batch["image"],
                batch["windows"],
                extents=batch["extent"],
                train=True,
                rngs={"dropout": key},
                method="window_logits",
            )
            flat = logits.reshape(-1, logits.shape[-1])
            sums = steps.score(flat, batch["label"].reshape(-1), batch["weight"].reshape(-1))
            return sums["loss"] / jnp.maximum(sums["weight"], 1), sums

        (loss, sums), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss)
        params: Any = optax.apply_updates(state.params, updates)
        sums["grad_norm"] = optax.tree.norm(grads)
        new = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        return new, sums

    return step


def sample_windows(
    rng: np.random.Generator,
    windows: np.ndarray,
    known: dataset.Objects,
    count: int,
    tune: detection_config.FinetuneConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws windows of an image: (count, 4), and their labels (count,), 0 for background, else k+1.

    A share `positive_share` overlaps an object enough, if any does; the others overlap one less,
    but not by nothing: those are hard. Drawn again and again where there are too few; with none of
    the one kind there are more of the other. With neither, labels are -1.
    """
    candidates = np.concatenate([known.boxes, windows])
    overlap = boxes.iou(candidates, known.boxes)
    best = overlap.max(axis=1, initial=0)
    positives = np.flatnonzero(best >= tune.min_positive_iou)
    is_negative = (best >= tune.min_negative_iou) & (best < tune.min_positive_iou)
    negatives = np.flatnonzero(is_negative)
    num_positives = round(count * tune.positive_share) if len(negatives) else count
    num_positives = num_positives if len(positives) else 0
    num_negatives = count - num_positives if len(negatives) else 0
    drawn = _draw(rng, positives, num_positives), _draw(rng, negatives, num_negatives)
    rows = np.concatenate(drawn)
    if not len(rows):
        return np.zeros((count, 4)), np.full(count, -1)
    is_positive = best[rows] >= tune.min_positive_iou
    return candidates[rows], np.where(
        is_positive, known.labels[overlap[rows].argmax(axis=1)] + 1, 0
    )


def _draw(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` of the rows, each once if there are as many."""
    if not count:
        return np.zeros(0, np.int64)
    return rng.choice(rows, count, replace=len(rows) < count)


@dataclasses.dataclass(frozen=True)
class WindowStream:
    """Every step's images and windows, a function of seed and step, as a `pipeline.Stream`.

    A step is of images of similar shape at one scale, drawn evenly; an image is mirrored or not.
    """

    config: detection_config.DetectionConfig
    data: dataset.Dataset
    proposer: propose.Proposer
    model: sppnet.SPPNet
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        if not self.indices:
            raise errors.InputError("no training image with an object can be read")

    @functools.cached_property
    def indices(self) -> tuple[int, ...]:
        """The images that can be read and have an object."""
        return tuple(i for i in self.data.sizes if len(self.data.objects[i].boxes))

    @functools.cached_property
    def _groups(self) -> list[tuple[tuple[int, int], list[int]]]:
        """Returns the canvas, at `regions.PLANNED`, and the images of each group."""
        sizes = {i: images.shorter_size(*self.data.sizes[i], regions.PLANNED) for i in self.indices}
        found: dict[tuple[int, int], list[int]] = {}
        for batch in canvases.plan(sizes, self.config.features.num_canvases, 1):
            found.setdefault(batch.canvas, []).extend(batch.indices)
        return list(found.items())

    @property
    def num_steps(self) -> int:
        return self.config.finetune.num_steps

    @property
    def steps_per_epoch(self) -> int:
        return 1

    @property
    def batch_size(self) -> int:
        return self.config.finetune.images_per_batch

    @property
    def local_batch_size(self) -> int:
        return self.batch_size // self.process_count

    def _drawn(self, step: int) -> tuple[int, tuple[int, int], list[int]]:
        """Returns the scale, the canvas and the images of a step."""
        rng = np.random.default_rng([self.config.seed, _STEP, step])
        scale = int(rng.choice(self.config.features.scales))
        counts = np.asarray([len(members) for _, members in self._groups], np.float64)
        canvas, members = self._groups[rng.choice(len(counts), p=counts / counts.sum())]
        drawn = rng.choice(members, self.batch_size, replace=len(members) < self.batch_size)
        return scale, regions.scale_canvas(canvas, (scale,))[0], drawn.tolist()

    def size_at(self, step: int) -> tuple[int, int]:
        return self._drawn(step)[1]

    def sizes_from(self, step: int) -> tuple[tuple[int, int], ...]:
        del step  # any size may come at any time
        shorter = self.config.features.scales
        return tuple(c for canvas, _ in self._groups for c in regions.scale_canvas(canvas, shorter))

    def batch_spec(self, size: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        rows, count = self.batch_size, self._num_windows
        return {
            "image": ((rows, *size, 3), np.uint8),
            "extent": ((rows, 2), np.int32),
            "windows": ((rows, count, 4), np.int32),
            "label": ((rows, count), np.int32),
            "weight": ((rows, count), np.float32),
        }

    @property
    def _num_windows(self) -> int:
        """Of an image."""
        return self.config.finetune.batch_size // self.batch_size

    def example(self, place: int) -> dict[str, Any]:
        step, row = divmod(place, self.local_batch_size)
        row += self.process_index * self.local_batch_size
        scale, canvas, drawn = self._drawn(step)
        index, count = drawn[row], self._num_windows
        found = {
            "image": np.zeros((*canvas, 3), np.uint8),
            "extent": np.asarray(canvas, np.int32),
            "windows": np.zeros((count, 4), np.int32),
            "label": np.zeros(count, np.int32),
            "weight": np.zeros(count, np.float32),
            "refused": "",
        }
        try:
            encoded = self.data.source[index]
            image = images.decode(encoded.data, encoded.name)
            size = image.shape[0], image.shape[1]
            proposals = self.proposer(encoded.data, encoded.name, size)
        except images.ImageError as e:
            return found | {"refused": str(e)}
        rng = np.random.default_rng([self.config.seed, _WINDOWS, step, row])
        tune = self.config.finetune
        windows, labels = sample_windows(rng, proposals, self.data.objects[index], count, tune)
        image = images.resize_shorter(image, scale)
        if tune.flip and rng.random() < 0.5:
            image = image[:, ::-1]
            windows = np.stack(
                [size[1] - windows[:, 2], windows[:, 1], size[1] - windows[:, 0], windows[:, 3]],
                axis=1,
            )
        cells = scales.to_cells(
            windows,
            size,
            (scale,),
            np.zeros(count, np.int64),
            self.model.backbone,
            self.model.backbone.layers[-1].name,
        )
        height, width, _ = image.shape
        found["image"][:height, :width] = image
        return found | {
            "extent": np.asarray([height, width], np.int32),
            "windows": cells,
            "label": np.maximum(labels, 0).astype(np.int32),
            "weight": (labels >= 0).astype(np.float32),
        }
