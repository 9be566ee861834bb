"""The training step: one pure function for every size.

Shapes: b images · (s, s) pixels · K classes. A step takes images as uint8 RGB.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from spp_jax.models import sppnet
from spp_jax.training import state as state_lib

# AlexNet's colour noise: the eigenvectors (columns) of the covariance of ImageNet's RGB values, and
# the square roots of the eigenvalues on the scale of 0 to 255, as published with fb.resnet.torch.
PCA_VECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
PCA_DEVIATIONS = (0.2175 * 255, 0.0188 * 255, 0.0045 * 255)

Metrics = dict[str, jax.Array]
TrainStep = Callable[
    [state_lib.TrainState, dict[str, jax.Array]], tuple[state_lib.TrainState, Metrics]
]


def make_train_step(
    model: sppnet.SPPNet,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    seed: int,
    flip: bool,
    color_noise: float,
) -> TrainStep:
    """Returns step(state, batch) -> (state, metrics).

    The batch is {"image": (b, s, s, 3) uint8, "label": (b,) int32, "weight": (b,) float32}; if it
    is sharded, b counts the rows of all devices. Metrics are float32 scalars: loss, top1 and
    weight, which are sums over the batch, and grad_norm, the gradient's length. An example of
    weight 0 counts in none of them. A step whose loss or gradient is not finite changes nothing but
    the count of steps; its metrics are 0, and `bad` is 1.

    Args:
        model: the network.
        optimizer: its `update` gets the loss as `value`.
        seed: seed and step together determine dropout, flips and colours.
        flip: whether to mirror half of the images.
        color_noise: deviation of the colour noise, 0 for none.
    """

    def step(
        state: state_lib.TrainState, batch: dict[str, jax.Array]
    ) -> tuple[state_lib.TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        flip_key, color_key, dropout_key = jax.random.split(key, 3)
        images = batch["image"]
        if flip:
            images = flip_half(flip_key, images)
        if color_noise:
            images = shift_colors(color_key, images, color_noise)

        def loss_fn(params: dict) -> tuple[jax.Array, Metrics]:
            variables = {**state.variables, "params": params}
            logits: Any = model.apply(variables, images, train=True, rngs={"dropout": dropout_key})
            sums = score(logits, batch["label"], batch["weight"])
            return sums["loss"] / jnp.maximum(sums["weight"], 1), sums

        return descend(state, optimizer, loss_fn)

    return step


def descend(
    state: state_lib.TrainState,
    optimizer: optax.GradientTransformationExtraArgs,
    loss_fn: Callable[[dict], tuple[jax.Array, Metrics]],
) -> tuple[state_lib.TrainState, Metrics]:
    """Returns the state after one step of gradient descent, and its metrics.

    Args:
        state: before the step.
        optimizer: its `update` gets the loss as `value`.
        loss_fn: params -> (loss, sums); the metrics are these sums, grad_norm, and bad.
    """
    (loss, sums), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss)
    params: Any = optax.apply_updates(state.params, updates)
    sums["grad_norm"] = optax.tree.norm(grads)
    is_good = jnp.isfinite(loss) & jnp.isfinite(sums["grad_norm"])

    def choose(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, old)

    sums = choose(sums, jax.tree.map(jnp.zeros_like, sums))
    sums["bad"] = 1 - is_good.astype(jnp.float32)
    new = dataclasses.replace(
        state,
        step=state.step + 1,
        params=choose(params, state.params),
        opt_state=choose(opt_state, state.opt_state),
    )
    return new, sums


def score(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> Metrics:
    """Returns sums over rows: loss, the cross entropy; top1, the correct answers; and weight.

    Args:
        logits: (b, K) float32.
        labels: (b,) class indices.
        weights: (b,) 1, or 0 for rows that do not count; multiplies all three.
    """
    # One-hot, because the gradient of indexing the label's logit would be a scatter.
    wanted = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    losses = optax.softmax_cross_entropy(logits, wanted)
    correct = jnp.argmax(logits, axis=1) == labels
    return {
        "loss": jnp.sum(jnp.where(weights > 0, losses * weights, 0)),
        "top1": jnp.sum(jnp.where(correct, weights, 0)),
        "weight": jnp.sum(weights),
    }


def flip_half(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each of (b, H, W, 3) images left to right with probability 1/2."""
    is_flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(is_flipped, images[:, :, ::-1], images)


def shift_colors(key: jax.Array, images: jax.Array, deviation: float) -> jax.Array:
    """Adds to each of (b, H, W, 3) images one colour, drawn along ImageNet's principal components.

    This is AlexNet's colour noise, which section 3.1 uses: component i is scaled by its own
    deviation and by a draw from N(0, deviation).

    Returns:
        (b, H, W, 3) float32; values may lie a little outside 0 to 255.
    """
    amounts = deviation * jax.random.normal(key, (images.shape[0], 3), jnp.float32)
    vectors = jnp.asarray(PCA_VECTORS, jnp.float32) * jnp.asarray([PCA_DEVIATIONS], jnp.float32)
    colors = jnp.einsum("bi,ci->bc", amounts, vectors, precision="highest")
    return images.astype(jnp.float32) + colors[:, None, None, :]
