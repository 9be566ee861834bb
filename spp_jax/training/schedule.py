"""The schedules of a run: the sizes of its images, and the learning rate."""

import dataclasses

import jax
import numpy as np
import optax

from spp_jax import config as config_lib

# Keeps the draw of sizes apart from the other uses of the seed.
_SIZES = 2


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often a run writes a line, saves and is evaluated.

    Attributes:
        log_every_steps, checkpoint_every_steps: one at least.
        keep_checkpoints: the last ones that stay.
        epoch_steps: steps of an epoch; 0 where the batches have no epochs.
        eval_every_epochs: 0 for never.
    """

    log_every_steps: int
    checkpoint_every_steps: int
    keep_checkpoints: int
    epoch_steps: int = 0
    eval_every_epochs: int = 0

    def ends_epoch(self, step: int) -> bool:
        """Returns whether a step is the last of an epoch."""
        return bool(self.epoch_steps) and step % self.epoch_steps == 0

    def evaluates_after(self, step: int, num_steps: int) -> bool:
        """Returns whether the network is evaluated after a step; after the last one it is."""
        if not self.eval_every_epochs or not self.ends_epoch(step):
            return False
        return step == num_steps or step // self.epoch_steps % self.eval_every_epochs == 0


def epoch_sizes(train: config_lib.TrainConfig, seed: int) -> tuple[int, ...]:
    """Returns the size, in pixels, of every epoch: section 2.3's multi-size training.

    The schedule "epoch" alternates `train.sizes` so that the last epoch has the first of them: the
    paper does not say which size comes first, and a network is mostly used at its main size. The
    schedule "random" draws each epoch's size, by the seed, from the whole numbers between the
    smallest and the largest.
    """
    if train.size_schedule == "random":
        low, high = min(train.sizes), max(train.sizes)
        rng = np.random.default_rng([seed, _SIZES])
        drawn = rng.integers(low, high, size=train.num_epochs, endpoint=True)
        return tuple(int(size) for size in drawn)
    last = train.num_epochs - 1
    return tuple(train.sizes[(last - i) % len(train.sizes)] for i in range(train.num_epochs))


def shares_sizes(old: config_lib.TrainConfig, new: config_lib.TrainConfig, seed: int) -> bool:
    """Returns whether two configs give each epoch that both have the same size.

    Then a run of `old` that is resumed with `new`, which has another `num_epochs`, is the unbroken
    run of `new`.
    """
    return all(a == b for a, b in zip(epoch_sizes(old, seed), epoch_sizes(new, seed)))


def make_optimizer(
    train: config_lib.TrainConfig, steps_per_epoch: int
) -> optax.GradientTransformationExtraArgs:
    """Returns SGD with momentum, weight decay and section 3.1's learning-rate schedule.

    Weights of all layers and biases decay, as in the released code. Its `update` takes the loss as
    `value`, since the rate drops at plateaus of the training loss. The loss is averaged over as
    many epochs as there are sizes, because that of one size says nothing about that of another.

    Args:
        train: the constants.
        steps_per_epoch: of the run.
    """
    rate = train.learning_rate
    if train.lr_schedule == "step":
        drops = {epoch * steps_per_epoch: train.lr_factor for epoch in train.drop_epochs}
        rate = optax.piecewise_constant_schedule(train.learning_rate, drops)
    sgd = optax.chain(
        optax.add_decayed_weights(train.weight_decay), optax.sgd(rate, momentum=train.momentum)
    )
    if train.bias_lr_factor != 1:
        sgd = optax.chain(sgd, optax.masked(optax.scale(train.bias_lr_factor), _biases))
    if train.lr_schedule == "step":
        return optax.with_extra_args_support(sgd)
    num_sizes = len(train.sizes) if train.size_schedule == "epoch" else 1
    plateau = optax.contrib.reduce_on_plateau(
        factor=train.lr_factor,
        patience=train.patience,
        accumulation_size=steps_per_epoch * num_sizes,
        min_scale=train.lr_factor**train.num_drops,
    )
    return optax.chain(sgd, plateau)


def _biases(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "bias", params)


def learning_rate(
    train: config_lib.TrainConfig, steps_per_epoch: int, step: int, opt_state: optax.OptState
) -> float:
    """Returns the learning rate of a step, for reports.

    Args:
        train, steps_per_epoch: as for `make_optimizer`.
        step: counted from 0.
        opt_state: of the optimizer; it has the scale that plateaus have led to.
    """
    if train.lr_schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in train.drop_epochs)
        return train.learning_rate * train.lr_factor**passed
    return train.learning_rate * float(optax.tree_utils.tree_get(opt_state, "scale"))
