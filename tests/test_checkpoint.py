"""Checkpoints: exact, strict, and clear about what is wrong with them."""

import json
import os
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

import spp_jax
from spp_jax import checkpoint, errors, network, sharding
from spp_jax import config as config_lib
from spp_jax.training import checks
from spp_jax.training import state as state_lib
from tests.support import checkpoints


def _config():
    config = config_lib.Config()
    config.model.name, config.model.levels = "digits", (2, 1)
    config.train.sizes = (64,)
    return config


OPTIMIZER = optax.chain(optax.sgd(0.1, momentum=0.9), optax.contrib.reduce_on_plateau())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with steps 3 and 7 of a network of 4 classes."""
    workdir = str(tmp_path_factory.mktemp("run"))
    model = network.make(_config().model, 4)
    state = state_lib.init_state(model, OPTIMIZER, 0, 64, sharding.make_mesh())
    writer = checkpoint.Writer(workdir, keep=2)
    for step in (1, 3, 7):
        params = jax.tree.map(lambda x, step=step: x + step, state.params)
        names = ("a", "b", "c", "d")
        meta = checkpoint.Meta(step, _config(), names, 5, {"top1": step / 10})
        writer.save(meta, {"params": params, "optimizer": state.opt_state, "constants": {}})
    writer.close()
    return workdir, params, state.opt_state


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "copy")


def _spec(tree):
    whole = sharding.replicated(sharding.make_mesh())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)


def test_the_last_steps_are_kept(saved):
    steps = sorted(int(d) for d in os.listdir(os.path.join(saved[0], "checkpoints")) if d.isdigit())
    assert steps == [3, 7]


@pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/7"])
def test_load_from_the_directory_alone(saved, part):
    workdir, params, _ = saved
    model, variables, config = spp_jax.load(os.path.join(workdir, part))
    jax.tree.map(np.testing.assert_array_equal, variables["params"], params)
    assert config == _config()
    assert model == network.make(_config().model, 4)
    logits: Any = model.apply(variables, jnp.zeros((2, 50, 70, 3), jnp.uint8))
    assert logits.shape == (2, 4)


def test_an_older_step_by_its_own_directory(saved):
    _, variables, _ = spp_jax.load(os.path.join(saved[0], "checkpoints", "3"))
    bias = variables["params"]["head"]["fc7"]["bias"]
    np.testing.assert_array_equal(bias, 3)


def test_meta_says_what_it_was_made_with(saved):
    meta = checkpoint.read_meta(checkpoints.newest(saved[0]))
    assert (meta.step, meta.class_names, meta.metrics) == (7, ("a", "b", "c", "d"), {"top1": 0.7})
    assert meta.config == _config()
    assert meta.versions["jax"] == jax.__version__


@pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/3"])
def test_class_names_of_a_checkpoint(saved, part, tmp_path):
    assert spp_jax.class_names(os.path.join(saved[0], part)) == ("a", "b", "c", "d")
    with pytest.raises(errors.InputError, match="no checkpoint in"):
        spp_jax.class_names(tmp_path)
    with pytest.raises(errors.InputError, match="there is no folder /nowhere"):
        spp_jax.class_names("/nowhere")


def test_the_optimizer_comes_back_as_it_was(saved):
    workdir, params, opt_state = saved
    step_dir = checkpoints.newest(workdir)
    restored = checkpoint.restore(step_dir, params=_spec(params), optimizer=_spec(opt_state))
    assert jax.tree.structure(restored["optimizer"]) == jax.tree.structure(opt_state)
    jax.tree.map(np.testing.assert_array_equal, restored["optimizer"], opt_state)


def test_restores_on_another_number_of_devices(saved):
    workdir, params, _ = saved
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    spec = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh)), params
    )
    restored = checkpoint.restore(checkpoints.newest(workdir), params=spec)["params"]
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    assert jax.tree.leaves(restored)[0].devices() == {jax.devices()[0]}


def test_each_parameter_that_does_not_fit_is_named(saved):
    workdir, params, _ = saved
    spec = _spec(params)
    spec["head"]["fc9"] = spec["head"].pop("fc7")
    spec["backbone"]["conv1"]["bias"] = jax.ShapeDtypeStruct((25,), jnp.float32)
    with pytest.raises(errors.InputError) as info:
        checkpoint.restore(checkpoints.newest(workdir), params=spec)
    for part in (
        "head/fc7/kernel is only in the checkpoint",
        "head/fc9/bias is missing in the checkpoint",
        "backbone/conv1/bias is float32(",
        "in the checkpoint and float32(25,) here",
    ):
        assert part in str(info.value)


def test_no_checkpoint_is_named(tmp_path):
    with pytest.raises(errors.InputError, match=f"no checkpoint in {tmp_path}"):
        spp_jax.load(tmp_path)
    with pytest.raises(errors.InputError, match="there is no folder /nowhere"):
        spp_jax.load("/nowhere")


def _data_files(step_dir):
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(step_dir, "params"))
        for name in names
        if os.path.basename(folder) == "d"
    ]


# Orbax leaves the errors of the other parameters behind, which asyncio tells of on stderr.
@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")
def test_a_truncated_file_is_damage(copy):
    files = _data_files(copy / "checkpoints" / "7")
    assert files
    for name in files:
        os.truncate(name, os.path.getsize(name) // 2)
    with pytest.raises(errors.InputError, match=r"checkpoint .*/7 is damaged: "):
        spp_jax.load(copy)


@pytest.mark.parametrize("name", ["params", "params/_METADATA", "_CHECKPOINT_METADATA"])
def test_a_missing_part_is_damage(copy, name):
    path = copy / "checkpoints" / "7" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(errors.InputError, match=r"checkpoint .*/7 is damaged"):
        spp_jax.load(copy / "checkpoints" / "7")


def test_metadata_that_is_no_json_is_damage(copy):
    path = copy / "checkpoints" / "7" / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()))[:-20])
    with pytest.raises(errors.InputError, match=r"checkpoint .*/7 is damaged"):
        spp_jax.load(copy)


def test_a_step_that_was_being_written_is_passed_over(copy):
    step_dir = copy / "checkpoints" / "7"
    step_dir.rename(copy / "checkpoints" / "7.orbax-checkpoint-tmp")
    assert checkpoints.newest(copy).endswith("/3")


def _arrays(step_dir):
    """Returns the files that hold numbers of the parameters, the longest last."""
    files = [p for p in (step_dir / "params").rglob("*") if p.is_file() and p.parent.name == "d"]
    return sorted(files, key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("name", ["²", "007", "٩", "9"])
def test_only_folders_named_by_a_number_are_steps(copy, name):
    path = copy / "checkpoints" / name
    if name == "9":
        path.write_text("")
    else:
        path.mkdir()
    newest = checkpoints.newest(copy)
    assert newest == str(copy / "checkpoints" / "7")
    assert checkpoint.read_meta(newest).step == 7


def test_the_newest_step_is_that_of_the_largest_number(tmp_path):
    for name in ("0", "9", "10"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert checkpoint.latest_step_dir(str(tmp_path)) == str(tmp_path / "checkpoints" / "10")


def test_a_flipped_bit_is_refused_and_the_parameter_named(copy):
    path = _arrays(copy / "checkpoints" / "7")[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.InputError, match=r"checkpoint .*/7 is damaged: params/\S+ is not"):
        spp_jax.load(copy)
    spp_jax.load(copy, verify=False)


def _change_metadata(copy, change):
    path = copy / "checkpoints" / "7" / "_CHECKPOINT_METADATA"
    values = json.loads(path.read_text())
    change(values["custom_metadata"])
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(step=6),
        lambda meta: meta["config"]["model"].update(levels=[1]),
        lambda meta: meta["config"]["model"].update(reduce="mean"),
        lambda meta: meta.update(class_names=[]),
        lambda meta: meta["checksums"].clear(),
        lambda meta: meta["checksums"].pop(sorted(meta["checksums"])[0]),
    ],
)
def test_changed_metadata_are_damage(copy, change):
    _change_metadata(copy, change)
    with pytest.raises(errors.InputError, match=r"checkpoint .*/7 is damaged: its metadata were"):
        spp_jax.load(copy)


@pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")
def test_a_value_above_a_ceiling_of_later_versions_is_read(copy):
    def change(stored):
        stored["config"]["data"]["num_workers"] = 5000
        del stored["metadata_crc32"]

    _change_metadata(copy, change)
    _, _, config = spp_jax.load(copy)
    assert config.data.num_workers == 5000
    stored = checks.stored_config(str(copy))
    config_lib.validate(config, stored=stored)  # as training does that goes on
    config.data.num_workers = 5001
    with pytest.raises(errors.InputError, match=r"^config.data.num_workers must be at most 1,024"):
        config_lib.validate(config, stored=stored)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("class_names", [], "is damaged: its metadata"),
        ("class_names", [1], "damaged: its metadata"),
        ("config", "text", "damaged or was not written by spp_jax"),
        ("config", {"model": {"name": "none"}}, "has a config that is wrong: .*none"),
        ("config", {"model": "zf5"}, "has a config that is wrong: "),
        ("config", {"seed": "a"}, "has a config that is wrong: config.seed must be int, got 'a'"),
        ("config", {"seed": -1}, "has a config that is wrong: config.seed must be from 0 "),
        ("step", "7", "damaged or was not written by spp_jax"),
        ("step", True, "damaged or was not written by spp_jax"),
        ("step", -1, "damaged or was not written by spp_jax"),
    ],
)
@pytest.mark.filterwarnings("ignore::spp_jax.errors.InputWarning")
def test_wrong_metadata_without_checksums(copy, name, value, sentence):
    _change_metadata(copy, lambda meta: (meta.pop("metadata_crc32"), meta.update({name: value})))
    with pytest.raises(errors.InputError, match=rf"checkpoint .*/7 .*{sentence}"):
        spp_jax.load(copy)


def test_a_checkpoint_without_checksums_loads_and_says_so(copy):
    _change_metadata(copy, lambda meta: (meta.pop("metadata_crc32"), meta.pop("checksums")))
    with pytest.warns(errors.InputWarning, match=r"7 is of a version without checksums: damage ca"):
        spp_jax.load(copy)


def test_what_the_disk_refuses_is_a_sentence(tmp_path, copy):
    variables, meta = checkpoint.load_with_meta(copy)[1:]
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(errors.InputError, match=r"checkpoints cannot be written: "):
        checkpoint.save_network(str(tmp_path), variables, meta)
