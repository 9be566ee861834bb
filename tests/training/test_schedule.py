"""Sizes and learning rates as functions of the step."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spp_jax import config as config_lib
from spp_jax.training import schedule


def _train(**fields):
    return config_lib.TrainConfig(**fields)


@pytest.mark.parametrize(
    ("num_epochs", "sizes", "expected"),
    [
        (5, (224, 180), (224, 180, 224, 180, 224)),
        (4, (224, 180), (180, 224, 180, 224)),  # the last epoch is at the first size
        (3, (224,), (224, 224, 224)),
        (4, (3, 2, 1), (3, 1, 2, 3)),
    ],
)
def test_whole_epochs_alternate(num_epochs, sizes, expected):
    assert schedule.epoch_sizes(_train(num_epochs=num_epochs, sizes=sizes), 0) == expected


def test_random_sizes_are_drawn_from_the_whole_range_by_seed():
    train = _train(num_epochs=2000, sizes=(224, 180), size_schedule="random")
    sizes = schedule.epoch_sizes(train, 0)
    assert set(sizes) == set(range(180, 225))
    assert schedule.epoch_sizes(train, 0) == sizes
    assert schedule.epoch_sizes(train, 1) != sizes
    # A longer run begins as the shorter one, in whichever order the range is given.
    shorter = _train(num_epochs=9, sizes=(180, 224), size_schedule="random")
    assert schedule.epoch_sizes(shorter, 0) == sizes[:9]


def _updates(train, losses, grad=1.0):
    """Returns the parameter's change at each step, of a constant gradient."""
    optimizer: Any = schedule.make_optimizer(train, steps_per_epoch=2)
    params = {"w": jnp.ones(())}
    state = optimizer.init(params)
    changes = []
    for loss in losses:
        updates, state = optimizer.update({"w": jnp.full((), grad)}, state, params, value=loss)
        changes.append(float(updates["w"]))
    return np.asarray(changes), state


def test_momentum_and_weight_decay_by_hand():
    train = _train(learning_rate=0.5, lr_schedule="step", momentum=0.9, weight_decay=0.1)
    changes, _ = _updates(train, [1.0, 1.0])
    # v1 = 1 + 0.1 w, v2 = 0.9 v1 + 1 + 0.1 w, times -0.5; w stays 1 here.
    np.testing.assert_allclose(changes, [-0.55, -0.5 * (0.99 + 1.1)], rtol=1e-6)


def test_step_schedule_drops_at_its_epochs():
    train = _train(
        learning_rate=1.0, lr_schedule="step", drop_epochs=(1, 2), momentum=0.0, weight_decay=0.0
    )
    changes, state = _updates(train, [1.0] * 6)
    np.testing.assert_allclose(changes, [-1, -1, -0.1, -0.1, -0.01, -0.01], rtol=1e-6)
    rates = [schedule.learning_rate(train, 2, step, state) for step in range(6)]
    np.testing.assert_allclose(rates, -changes, rtol=1e-6)


def test_plateau_averages_a_round_of_sizes_and_drops_num_drops_times():
    train = _train(
        learning_rate=1.0, patience=1, num_drops=2, sizes=(64, 48), num_epochs=9,
        momentum=0.0, weight_decay=0.0,
    )  # fmt: skip
    # Two epochs of two steps a round: the loss of one size is always 1, of the other always 3.
    changes, state = _updates(train, [3.0, 3.0, 1.0, 1.0] * 6)
    # Nothing improves after the first round: each of the next two drops the rate, no further one.
    rounds = changes.reshape(6, 4)[:, -1]
    np.testing.assert_allclose(rounds[-1], -0.01, rtol=1e-6)
    assert rounds[0] == -1
    np.testing.assert_allclose(schedule.learning_rate(train, 2, 24, state), 0.01, rtol=1e-6)


def test_plateau_keeps_the_rate_while_the_loss_falls():
    train = _train(learning_rate=1.0, patience=1, momentum=0.0, weight_decay=0.0)
    changes, _ = _updates(train, np.repeat(np.linspace(3, 1, 8), 4))
    np.testing.assert_array_equal(changes, -1)


def test_the_optimizer_is_optax():
    optimizer = schedule.make_optimizer(_train(), 10)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
