"""From a file to a checkpoint, and the command as a user runs it."""

import hashlib
import os
import pathlib

import jax
import numpy as np
import pytest

import spp_jax
from spp_jax import checkpoint, errors
from spp_jax.interop import pretrained
from tests import folders
from tests.interop import encoder
from tests.support import commands

ROOT = pathlib.Path(__file__).parents[2]
NAMES = ("dark", "light")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(weights, classes, layers) of a SqueezeNet of two classes."""
    folder = tmp_path_factory.mktemp("published")
    layers = encoder.squeezenet()
    (folder / "squeezenet.caffemodel").write_bytes(encoder.net(layers))
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return str(folder / "squeezenet.caffemodel"), str(folder / "classes.txt"), layers


def _command(*arguments):
    return commands.run(*arguments)


def _import(files, output, *arguments):
    weights, classes, _ = files
    return _command(
        "-m", "spp_jax.interop", "--backbone=squeezenet1_1", f"--weights={weights}",
        f"--classes={classes}", f"--output={output}", *arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def imported(files, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("imported") / "net")
    result = _import(files, output)
    assert result.returncode == 0, result.stderr
    return output, result.stdout


def test_the_command_says_what_it_did(files, imported):
    output, out = imported
    assert out == (
        f"squeezenet1_1, levels (1,), mean: 26 layers of {files[0]}, 723,522 parameters, "
        f"2 classes\n-> {output}\n"
        f"python eval.py --workdir={output} --protocol=center --config.data.path=FOLDER\n"
    )


def test_the_checkpoint_holds_the_files_weights(files, imported):
    weights, _, layers = files
    model, variables, meta = checkpoint.load_with_meta(imported[0])
    assert (model.levels, model.reduce, model.num_classes) == ((1,), "mean", 2)
    assert (meta.step, meta.num_examples, meta.class_names) == (0, 0, NAMES)
    assert (meta.config.train.sizes, meta.config.data.crop_size) == ((227,), 227)
    with open(weights, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    assert meta.metrics == {"source": {"file": "squeezenet.caffemodel", "sha256": digest}}
    params = variables["params"]
    expected = layers["fire9/expand3x3"][0].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["backbone"]["fire9"]["expand3x3"]["kernel"], expected)
    np.testing.assert_array_equal(params["head"]["fc6"]["bias"], layers["conv10"][1])
    assert sum(x.size for x in jax.tree.leaves(params)) == 723_522


def test_eval_takes_it(imported, tmp_path):
    folder = folders.make_folder(tmp_path, {"": 2})
    result = _command(
        "eval.py", f"--workdir={imported[0]}", "--protocol=center",
        f"--config.data.path={folder}", "--config.data.batch_size=4",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "4 examples, 0 refused" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--backbone=alexnet"], "alexnet"),
        (["--levels=6,x"], "error: --levels=6,x is no list of whole numbers like 6,3,2,1"),
        (["--levels="], "error: --levels= is no list"),
        (["--levels=()"], "error: config.model: squeezenet1_1 has no form without SPP"),
        (["--weights=/nowhere"], "error: weights /nowhere cannot be read: No such file"),
        (["--classes=/nowhere"], "error: classes /nowhere cannot be read: No such file"),
        (["more"], "error: unexpected argument 'more'"),
    ],
)
def test_wrong_flags_are_one_sentence(files, tmp_path, arguments, sentence):
    result = _import(files, tmp_path / "net", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "net").exists()


def test_a_fresh_head_for_another_pyramid(files, tmp_path):
    weights, _, layers = files
    config = pretrained.make_config("squeezenet1_1", 3, levels=(2, 1), reduce="max")
    summary = pretrained.import_weights(
        config, weights, ("a", "b", "c"), str(tmp_path), fresh_head=True
    )
    assert (summary.num_layers, summary.left_out) == (25, ("conv10",))
    model, variables, _ = spp_jax.load(tmp_path)
    params = variables["params"]
    assert (model.levels, model.reduce) == ((2, 1), "max")
    assert params["head"]["fc6"]["kernel"].shape == (5 * 512, 3)
    np.testing.assert_array_equal(params["backbone"]["conv1"]["bias"], layers["conv1"][1])


def test_nothing_is_written_unless_all_fits(files, tmp_path):
    weights, _, layers = files
    output = tmp_path / "net"
    config = pretrained.make_config("squeezenet1_1", 2)
    cut = tmp_path / "cut.caffemodel"
    cut.write_bytes(encoder.net({k: v for k, v in layers.items() if k != "fire5/squeeze1x1"}))
    for path, names, message in [
        (weights, ("a", "b", "c"), r"3 class names, and conv10 of .* has 2 outputs"),
        (str(cut), NAMES, "fire5/squeeze1x1 is missing"),
    ]:
        with pytest.raises(errors.InputError, match=message):
            pretrained.import_weights(config, path, names, str(output))
    assert not output.exists()


def test_outputs_that_cannot_be_taken(files, imported, tmp_path):
    weights, classes, _ = files
    config = pretrained.make_config("squeezenet1_1", 2)
    for output, message in [
        (imported[0], "holds a checkpoint already"),
        (classes, "is no folder"),
        (os.path.join(classes, "net"), "is not a folder"),
        ("", "output '' is no folder"),
        (str(tmp_path / "checkpoints"), "has the name of the folder made in it"),
    ]:
        with pytest.raises(errors.InputError, match=message):
            pretrained.import_weights(config, weights, NAMES, output)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "hold no line"),
        (b"a\n\nb\n", "line 2 of classes .* is blank"),
        (b"a\nb\na \n", "lines 1 and 3 of classes .* are both 'a'"),
        (b"\xff\xfe", "are not UTF-8 text"),
    ],
)
def test_wrong_class_files_are_named(tmp_path, content, sentence):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(errors.InputError, match=sentence):
        pretrained.read_class_names(str(tmp_path / "classes.txt"))


def test_class_names_are_whole_lines(tmp_path):
    (tmp_path / "classes.txt").write_bytes("\ufeffn01 tench\r\nn02 goldfish, é".encode())
    names = pretrained.read_class_names(str(tmp_path / "classes.txt"))
    assert names == ("n01 tench", "n02 goldfish, é")


@pytest.mark.parametrize(
    ("name", "levels", "reduce", "size"),
    [
        ("zf5", (6, 3, 2, 1), "max", 224),
        ("googlenet", (1,), "mean", 224),
        ("squeezenet1_1", (1,), "mean", 227),
    ],
)
def test_the_published_form_is_the_default(name, levels, reduce, size):
    config = pretrained.make_config(name, 1000)
    assert (config.model.levels, config.model.reduce) == (levels, reduce)
    assert (config.train.sizes, config.data.crop_size) == ((size,), size)
    assert pretrained.make_config("zf5", 10, levels=()).model.levels is None
