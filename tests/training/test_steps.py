"""The step: weights of 0, augmentation on the device, one device against four, no scatter."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

import spp_jax
from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.training import programs, schedule, state, steps
from tests import hlo
from tests.models.test_sppnet import TINY

BATCH = 8


def _spec(size):
    return {
        "image": ((BATCH, size, size, 3), np.uint8),
        "label": ((BATCH,), np.int32),
        "weight": ((BATCH,), np.float32),
    }


@pytest.fixture(scope="module")
def setup():
    model = spp_jax.make_model(TINY, levels=(3, 2, 1), num_classes=4, dropout=0.0)
    train = config_lib.TrainConfig(learning_rate=0.05, sizes=(48, 40), num_epochs=2)
    optimizer = schedule.make_optimizer(train, 10)
    step = steps.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0.1)
    return model, optimizer, step


def _batch(size=48, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (BATCH, size, size, 3)).astype(np.uint8),
        "label": rng.integers(0, 4, BATCH).astype(np.int32),
        "weight": np.ones(BATCH, np.float32),
    }


def _mesh(count):
    return Mesh(np.array(jax.devices()[:count]), ("data",), axis_types=(AxisType.Auto,))


def _run(setup, mesh, batches):
    model, optimizer, step = setup
    current = state.init_state(model, optimizer, 0, 48, mesh)
    compiled = programs.compile_programs(step, state.state_spec(current), (48,), _spec, mesh)
    losses = []
    for batch in batches:
        current, sums = compiled[48].run(current, sharding.put_batch(batch, mesh))
        losses.append(float(sums["loss"]) / float(sums["weight"]))
    return losses, jax.device_get(current.params)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs the four devices of the CPU")
def test_four_devices_give_what_one_gives(setup):
    assert jax.device_count() == 4
    batches = [_batch(seed=i) for i in range(3)]
    one, params = _run(setup, _mesh(1), batches)
    four, params_of_four = _run(setup, sharding.make_mesh(), batches)
    # The same sums in another order: float32 rounding through three updates.
    np.testing.assert_allclose(four, one, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(params_of_four)):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs the four devices of the CPU")
def test_gradients_of_bfloat16_are_summed_over_devices_in_float32():
    model = spp_jax.make_model(TINY, levels=(3, 2, 1), num_classes=4, dtype="bfloat16", dropout=0)
    optimizer = schedule.make_optimizer(config_lib.TrainConfig(learning_rate=0.05), 10)
    setup = (
        model,
        optimizer,
        steps.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0),
    )
    mesh = sharding.make_mesh()
    spec = state.state_spec(state.init_state(model, optimizer, 0, 48, mesh))
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.split(mesh))
        for name, (shape, dtype) in _spec(48).items()
    }
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        text = jax.jit(setup[2]).lower(spec, batch).as_text()
    # One of each kernel and bias; what XLA makes sums of itself, it shows later.
    sums = re.findall(r"stablehlo\.all_reduce.*?\}\) : \(tensor<([^>]*)>\)", text, re.S)
    assert len(sums) == len(jax.tree.leaves(spec.params))
    assert all(kind.endswith("f32") for kind in sums)
    one, params = _run(setup, _mesh(1), [_batch()])
    four, params_of_four = _run(setup, mesh, [_batch()])
    # On one device XLA keeps more bits of some maps than bfloat16's eight; on four it rounds them.
    np.testing.assert_allclose(four, one, rtol=2**-6)
    start = jax.device_get(state.init_state(model, optimizer, 0, 48, _mesh(1)).params)
    updates = [jax.tree.map(np.subtract, p, start) for p in (params, params_of_four)]
    difference = jax.tree.map(np.subtract, *updates)
    assert optax.tree.norm(difference) < 0.05 * optax.tree.norm(updates[0])


def test_training_lowers_the_loss(setup):
    # At the rate of the others it diverges first: only where it then lands would be tested.
    model, *_ = setup
    optimizer = schedule.make_optimizer(config_lib.TrainConfig(learning_rate=0.001), 10)
    step = steps.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0.1)
    losses, _ = _run((model, optimizer, step), _mesh(1), [_batch()] * 12)
    assert losses[-1] < 0.5 * losses[0]


def test_a_row_of_weight_0_changes_nothing(setup):
    model, optimizer, step = setup
    mesh = _mesh(1)
    batch, other = _batch(), _batch()
    for b in (batch, other):
        b["weight"][3] = 0
    other["label"][3] = (other["label"][3] + 1) % 4
    other["image"][3] = 255
    results = []
    jitted = jax.jit(step)
    for b in (batch, other):
        current = state.init_state(model, optimizer, 0, 48, mesh)
        current, sums = jitted(current, b)
        results.append(jax.device_get((current.params, sums)))
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert results[0][1]["weight"] == BATCH - 1


def test_a_batch_without_any_weight_is_no_nan(setup):
    model, optimizer, step = setup
    batch = _batch() | {"weight": np.zeros(BATCH, np.float32)}
    current, sums = jax.jit(step)(state.init_state(model, optimizer, 0, 48, _mesh(1)), batch)
    assert float(sums["loss"]) == 0
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(current.params))


def test_the_step_holds_no_scatter(setup):
    """Scatters are where the order of threads can show on GPUs."""
    model, optimizer, step = setup
    current = state.init_state(model, optimizer, 0, 48, _mesh(1))
    operations = hlo.operations(jax.jit(step).lower(current, _batch()))
    assert not operations & {"scatter", "select_and_scatter"}
    assert "convolution" in operations


def test_programs_are_one_a_size_and_say_what_they_cost(setup):
    model, optimizer, step = setup
    mesh = _mesh(1)
    spec = state.state_spec(state.init_state(model, optimizer, 0, 48, mesh))
    compiled = programs.compile_programs(step, spec, (48, 40, 48), _spec, mesh)
    assert list(compiled) == [48, 40]
    flops = [compiled[size].flops or 0 for size in (48, 40)]
    assert flops[0] > flops[1] > 1e6
    assert (compiled[48].bytes or 0) > 0
    with pytest.raises(TypeError):  # no silent recompilation
        compiled[48].run(state.init_state(model, optimizer, 0, 48, mesh), _batch(40))


def test_parameters_do_not_depend_on_the_size(setup):
    model, optimizer, _ = setup
    a, b = (state.init_state(model, optimizer, 5, size, _mesh(1)) for size in (48, 40))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_score_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]))
    sums = steps.score(logits, jnp.array([0, 1, 2]), jnp.array([1.0, 1.0, 0.0]))
    assert float(sums["loss"]) == pytest.approx(-np.log(0.5) - np.log(0.1), rel=1e-5)
    assert float(sums["top1"]) == 1
    assert float(sums["weight"]) == 2


def test_flip_mirrors_about_half_of_the_images_whole():
    images = jnp.tile(jnp.arange(5, dtype=jnp.uint8)[None, None, :, None], (400, 2, 1, 3))
    flipped = np.asarray(steps.flip_half(jax.random.key(0), images))
    is_flipped = (flipped == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
    is_kept = (flipped == np.asarray(images)).all(axis=(1, 2, 3))
    assert (is_flipped ^ is_kept).all()
    assert 160 < is_flipped.sum() < 240  # 200 +- 4 deviations of 10


def test_color_noise_is_one_colour_an_image_with_the_components_deviations():
    images = jnp.full((20000, 1, 2, 3), 100, jnp.uint8)
    shift = np.asarray(steps.shift_colors(jax.random.key(0), images, 0.1)) - 100
    np.testing.assert_array_equal(shift[:, 0, 0], shift[:, 0, 1])
    along = shift[:, 0, 0] @ np.asarray(steps.PCA_VECTORS)
    expected = 0.1 * np.asarray(steps.PCA_DEVIATIONS)
    # 20,000 samples: deviations are known to 0.5 %; the vectors are orthogonal to 4 digits.
    np.testing.assert_allclose(along.std(axis=0), expected, rtol=0.05)
    np.testing.assert_allclose(along.mean(axis=0), 0, atol=0.05 * expected[0])


def test_a_step_that_is_not_finite_changes_nothing(setup):
    model, optimizer, step = setup
    start = state.init_state(model, optimizer, 0, 48, _mesh(1))
    start, _ = jax.jit(step)(start, _batch())  # so that there is momentum to lose
    bad = _batch(seed=1)
    bad["weight"][3] = np.nan
    after, sums = jax.jit(step)(start, bad)
    assert int(after.step) == int(start.step) + 1
    chex.assert_trees_all_equal((after.params, after.opt_state), (start.params, start.opt_state))
    expected = {"loss": 0, "top1": 0, "weight": 0, "grad_norm": 0, "bad": 1}
    assert {name: float(value) for name, value in sums.items()} == expected
    assert float(jax.jit(step)(after, _batch())[1]["bad"]) == 0
