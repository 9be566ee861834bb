"""Fine-tunes a network to tell windows apart, in the loop that trains classifiers (section 4.1).

Convolutions are not changed, unless the config says from which on, and are computed anew for each
step: nothing is cached.

Shapes: b images of a step · r windows of an image · K classes, and class 0, the background.
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import optax

from spp_jax import checkpoint, cluster, errors, network, sharding
from spp_jax import config as config_lib
from spp_jax.detection import dataset, detector
from spp_jax.detection.learning import window_stream
from spp_jax.detection.proposals import proposing
from spp_jax.models import sppnet
from spp_jax.runs import progress as progress_lib
from spp_jax.runs import signals
from spp_jax.training import checks, loop, schedule, steps
from spp_jax.training import state as state_lib

BACKGROUND = "background"


def train(
    config: config_lib.DetectionConfig,
    workdir: str,
    data: dataset.Dataset,
    proposer: proposing.Proposer,
    start: str,
    *,
    stop: signals.Stop | None = None,
    progress: progress_lib.Progress = progress_lib.SILENT,
) -> loop.Result:
    """Fine-tunes in WORKDIR/finetune, or goes on there, as `training.loop.run`.

    Args:
        config: of the detector.
        workdir: of the detector.
        data: the training split.
        proposer: its windows.
        start: step directory of the network to start from.
        stop, progress: as in `loop.run`.

    Raises:
        InputError: the network, the data or the number of devices does not fit.
    """
    tune = config.finetune
    names = (BACKGROUND, *data.class_names)
    folder = os.path.join(workdir, detector.FINETUNED)
    own = checkpoint.latest_step_dir(folder)
    before = checkpoint.read_meta(own or start).config
    # A run that goes on needs no start, which may have been moved.
    run_config = make_config(config, before, before.init_from if own else start, len(names))
    model = network.make(run_config.model, len(names))
    check(tune, model)
    is_trained = trained_mask(model, tune.from_layer)
    stream = window_stream.WindowStream(
        config, data, proposer, model.backbone, cluster.index(), cluster.count()
    )
    optimizer = schedule.make_optimizer(run_config.train, 1)
    masked = mask(optimizer, is_trained)
    about = (
        f"{data.source.split}: {len(stream.indices)} images with objects, {tune.num_steps} steps "
        f"of {tune.images_per_batch} images and {tune.batch_size} windows; trained: "
        f"{tune.from_layer + ' to ' if tune.from_layer else ''}fully connected layers"
    )
    job = loop.Job(
        stream=stream,
        class_names=names,
        num_examples=len(stream.indices),
        about=about,
        model=model,
        optimizer=masked,
        step=make_step(model, masked, is_trained, seed=config.seed),
        learning_rate=lambda step, state: schedule.learning_rate(run_config.train, 1, step, state),
        rate_field=f"config.finetune.learning_rate={tune.learning_rate}",
        pace=schedule.Pace(
            tune.log_every_steps, tune.checkpoint_every_steps, run_config.train.keep_checkpoints
        ),
    )
    saved = checks.find_saved(run_config, folder)
    return loop.run(run_config, folder, job, saved, stop=stop, progress=progress)


def check(tune: config_lib.FinetuneConfig, model: sppnet.SPPNet) -> None:
    """Raises InputError unless the network has the layer and the devices share the images."""
    sharding.check_batch_size(tune.images_per_batch, "config.finetune.images_per_batch")
    trained_mask(model, tune.from_layer)


def make_config(
    config: config_lib.DetectionConfig,
    before: config_lib.Config,
    start: str,
    num_outputs: int,
) -> config_lib.Config:
    """Returns the config of the fine-tuned network, as its checkpoint holds it.

    An epoch there is a step: windows have no epochs.

    Args:
        config: of the detector.
        before: of the network to start from.
        start: its step directory.
        num_outputs: K + 1.
    """
    tune = config.finetune
    made = config_lib.Config(seed=config.seed, init_from=start)
    made.model = dataclasses.replace(before.model, num_classes=num_outputs)
    made.data = dataclasses.replace(
        before.data,
        name=config.data.name,
        path=config.data.path,
        split=config.data.split,
        batch_size=tune.images_per_batch,
        num_workers=0,
    )
    made.train = config_lib.TrainConfig(
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
    return made


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


def mask(
    optimizer: optax.GradientTransformation, is_trained: dict
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that has state of the trained parameters alone."""
    return optax.with_extra_args_support(optax.masked(optimizer, is_trained))


def make_step(
    model: sppnet.SPPNet,
    optimizer: optax.GradientTransformationExtraArgs,
    is_trained: dict,
    *,
    seed: int,
) -> steps.TrainStep:
    """Returns step(state, batch) -> (state, metrics), as `steps.make_train_step`.

    The batch is {"images": (b, h, w, 3) uint8, "extents": (b, 2), "windows": (b, r, 4) cells,
    "labels": (b, r), "weights": (b, r)}. No gradient of what is not trained is computed.
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
                batch["images"],
                batch["windows"],
                extents=batch["extents"],
                train=True,
                rngs={"dropout": key},
                method="window_logits",
            )
            flat = logits.reshape(-1, logits.shape[-1])
            sums = steps.score(flat, batch["labels"].reshape(-1), batch["weights"].reshape(-1))
            return sums["loss"] / jnp.maximum(sums["weight"], 1), sums

        return steps.descend(state, optimizer, loss_fn)

    return step
