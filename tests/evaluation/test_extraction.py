"""Extraction to files: whole, resumed, with refused images, and never over something else."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

import spp_jax
from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data.sources import folders as folders_lib
from spp_jax.evaluation import extraction, features
from tests.evaluation import extractions
from tests.support import networks


def _paths(folder):
    source = folders_lib.scan_images(folder)
    return [source.name(i) for i in range(len(source))]


def test_what_a_file_holds(network: networks.Network, folder, whole):
    with np.load(whole) as archive:
        stored = dict(archive)
    assert stored["paths"].tolist() == _paths(folder)
    assert stored["class_names"].tolist() == ["dark", "light"]
    assert stored["labels"].tolist() == [0] * 6 + [1] * 6 + [0] * 4 + [1] * 4
    metadata = json.loads(str(stored["metadata"]))
    assert metadata["facts"]["layers"][0] == {"layer": "conv5", "levels": [2, 1], "reduce": "max"}
    assert metadata["num_programs"] <= 3
    expected = features.extract(
        *network, _paths(folder), extractions.PARTS, scale=36, num_programs=1
    )
    # Other batches on other canvases, in float32.
    np.testing.assert_allclose(stored["features"], expected, rtol=1e-4, atol=1e-4)
    assert os.listdir(os.path.dirname(whole)) == ["x.npz"]


def test_columns_and_the_names_of_logits(network: networks.Network, folder, tmp_path):
    model, variables = network
    parts = (config_lib.Part("fc6"), config_lib.Part("logits"), config_lib.Part("conv5", (2, 1)))
    names = ("ant", "bee", "cat", "dog", "elk", "fly")
    request = extractions.request("crop", parts=parts)
    source = folders_lib.scan_images(folder)
    for output, given in (("a.npz", names), ("b.npy", names), ("c.npz", ())):
        extraction.extract_to(
            str(tmp_path / output), model, variables, source, request, output_names=given
        )
    with open(tmp_path / "b.npy.json") as f:
        described = json.load(f)
    with np.load(tmp_path / "a.npz") as archive, np.load(tmp_path / "c.npz") as nameless:
        assert archive["output_names"].tolist() == described["output_names"] == list(names)
        assert archive["class_names"].tolist() == ["dark", "light"]
        assert "output_names" not in nameless
        columns = json.loads(str(archive["metadata"]))["columns"]
        assert columns == described["metadata"]["columns"]
        assert columns == [["fc6", 0, 256], ["logits", 256, 262], ["conv5", 262, 742]]
        shown = request.view(_read(archive["paths"][3]), "")[0]
        logits = np.asarray(model.apply(variables, shown[None]))[0]
        np.testing.assert_allclose(archive["features"][3, 256:262], logits, rtol=1e-4, atol=1e-4)
    again = ("a.npz", (*names[:5], "gnu"))
    with pytest.raises(errors.InputError, match=r"\(the network's classes have other names\); rem"):
        extraction.extract_to(
            str(tmp_path / again[0]), model, variables, source, request, output_names=again[1]
        )
    # Of a version before, without names: it is what is asked for.
    extraction.extract_to(
        str(tmp_path / "c.npz"), model, variables, source, request, output_names=names
    )


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def test_names_that_are_no_utf8_or_no_line(network: networks.Network, folder, tmp_path):
    names = ("caf\udce9.png", "new\nline.png")
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        shutil.copy(os.path.join(folder, "val", "dark", f"{i}.png"), tmp_path / "in" / name)
    (tmp_path / "in" / "cut\udcff.png").write_bytes(_read(f"{folder}/val/dark/2.png")[:200])
    (tmp_path / "in" / "bad\udcff.png").write_bytes(b"rubbish")
    paths = [str(tmp_path / "in" / name) for name in names]
    source = folders_lib.scan_images(str(tmp_path / "in"))
    for output in ("x.npz", "x.npy"):
        for _ in range(2):  # the second finds it finished
            extracted = extraction.extract_to(
                str(tmp_path / output), *network, source, extractions.request("crop")
            )
            assert [sentence.split(": ")[0] for sentence in extracted.refused] == [
                rf"{tmp_path}/in/bad\udcff.png",
                rf"{tmp_path}/in/cut\udcff.png",
            ]
    with np.load(tmp_path / "x.npz") as archive, open(tmp_path / "x.npy.json") as f:
        assert archive["paths"].tolist() == json.load(f)["paths"] == paths
        assert all(os.path.exists(path) for path in archive["paths"].tolist())


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_labels_belong_to_the_images(
    network: networks.Network, folder, tmp_path, interrupt, suffix
):
    root = shutil.copytree(folder, tmp_path / "copy")
    copy = root / "val"
    output = str(tmp_path / f"x.{suffix}")

    def extract(where):
        source = folders_lib.scan_images(str(where))
        extracted = extraction.extract_to(output, *network, source, extractions.request())
        if suffix == "npz":
            with np.load(output) as archive:
                return extracted, archive["labels"].tolist(), archive["class_names"].tolist()
        with open(output + ".json") as f:
            described = json.load(f)
        return extracted, described["labels"], described["class_names"]

    for i in range(4):
        os.rename(copy / "light" / f"{i}.png", copy / "light" / f"{i + 5}.png")
    with pytest.raises(KeyboardInterrupt):
        extract(root)
    # The last of one class becomes the first of the other: the same images in the same order.
    os.rename(copy / "dark" / "3.png", copy / "light" / "3.png")
    first, labels, names = extract(root)
    assert (labels, names) == ([0] * 6 + [1] * 6 + [0] * 3 + [1] * 5, ["dark", "light"])
    os.rename(copy / "light" / "3.png", copy / "dark" / "3.png")
    with pytest.raises(
        errors.InputError, match=r"an image was val/light/3.png and is val/dark/3.png"
    ):
        extract(root)
    os.rename(copy / "dark" / "3.png", copy / "light" / "3.png")
    os.rename(copy / "light", copy / "pale")
    with pytest.raises(
        errors.InputError, match=r"an image was val/light/3.png and is val/pale/3.png"
    ):
        extract(root)
    # Where the whole folder is makes no difference.
    os.rename(copy / "pale", copy / "light")
    os.rename(root, tmp_path / "moved")
    again, *_ = extract(tmp_path / "moved")
    np.testing.assert_array_equal(again.features, first.features)


@pytest.mark.parametrize("scale", ["crop", "warp"])
def test_squares_are_one_program(network: networks.Network, folder, tmp_path, scale):
    extracted = extraction.extract_to(
        str(tmp_path / "x.npy"),
        *network,
        folders_lib.scan_images(folder),
        extractions.request(scale),
    )
    assert extracted.metadata["num_programs"] == 1
    view = extraction.make_view(scale, 32)
    shown = []
    for path in _paths(folder):
        with open(path, "rb") as f:
            shown.append(view(f.read(), path)[0])
    assert {image.shape for image in shown} == {(32, 32, 3)}
    expected = features.extract(*network, shown, extractions.PARTS, scale=None)
    np.testing.assert_allclose(extracted.features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_an_interrupted_extraction_goes_on(
    network: networks.Network, folder, whole, tmp_path, suffix, interrupt
):
    output = str(tmp_path / f"x.{suffix}")
    source = folders_lib.scan_images(folder)
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_to(output, *network, source, extractions.request())
    assert os.listdir(tmp_path) == [f"x.{suffix}.part"]
    extracted = extraction.extract_to(output, *network, source, extractions.request())
    with np.load(whole) as archive:
        np.testing.assert_array_equal(extracted.features, archive["features"])
    # What was done is not done again, and of a finished file nothing.
    assert sorted(i for batch in interrupt if batch for i in batch.indices) == list(range(20))
    num_computed = len(interrupt)
    again = extraction.extract_to(output, *network, source, extractions.request(batch_size=2))
    np.testing.assert_array_equal(again.features, extracted.features)
    assert len(interrupt) == num_computed
    assert set(os.listdir(tmp_path)) - {"x.npy.json"} == {f"x.{suffix}"}


def test_it_goes_on_in_other_batches_but_not_with_other_images(
    network: networks.Network, folder, whole, tmp_path, interrupt
):
    copy = shutil.copytree(folder, tmp_path / "copy")
    output, source = str(tmp_path / "x.npz"), folders_lib.scan_images(str(copy))
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_to(output, *network, source, extractions.request())
    first, second = copy / "val" / "dark" / "0.png", copy / "val" / "dark" / "1.png"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(errors.InputError, match=r"x.npz.part holds the beginning of something els"):
        extraction.extract_to(output, *network, source, extractions.request())
    first.write_bytes(kept)
    state = (tmp_path / "x.npz.part" / "state.json").read_text()
    (tmp_path / "x.npz.part" / "state.json").write_text("{")
    with pytest.raises(errors.InputError, match=r"x.npz.part is damaged; remove it"):
        extraction.extract_to(output, *network, source, extractions.request())
    (tmp_path / "x.npz.part" / "state.json").write_text(state)
    other = extractions.request(batch_size=3, num_programs=2)
    extracted = extraction.extract_to(output, *network, source, other)
    with np.load(whole) as archive:
        np.testing.assert_allclose(extracted.features, archive["features"], rtol=1e-4, atol=1e-4)


def test_refused_images_leave_the_others_as_they_are(
    network: networks.Network, folder, whole, tmp_path
):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "train" / "dark" / "a.png").write_bytes(b"rubbish")
    with open(copy / "val" / "light" / "2.png", "r+b") as f:
        f.truncate(200)  # its header can be read
    for suffix in ("npz", "npy"):
        output = str(tmp_path / f"x.{suffix}")
        extracted = extraction.extract_to(
            output, *network, folders_lib.scan_images(str(copy)), extractions.request()
        )
        assert [r.split(": ")[0] for r in extracted.refused] == [
            f"{copy}/train/dark/a.png",
            f"{copy}/val/light/2.png",
        ]
        with np.load(whole) as archive:
            names = [os.path.relpath(p, folder) for p in archive["paths"]]
            expected = np.delete(archive["features"], names.index("val/light/2.png"), axis=0)
        np.testing.assert_allclose(extracted.features, expected, rtol=1e-4, atol=1e-4)
        assert len(extracted.indices) == 19
    with open(tmp_path / "x.npy.json") as f:
        described = json.load(f)
    assert f"{copy}/val/light/2.png" not in described["paths"]
    assert len(described["paths"]) == len(described["labels"]) == 19
    assert described["class_names"] == ["dark", "light"]


def test_something_else_is_not_overwritten(network: networks.Network, folder, whole, tmp_path):
    output = str(tmp_path / "x.npz")
    shutil.copy(whole, output)
    source = folders_lib.scan_images(folder)
    with pytest.raises(errors.InputError, match=r"x.npz is there and holds something else \(sca"):
        extraction.extract_to(output, *network, source, extractions.request("40"))
    other = jax.tree.map(lambda x: x + 1, network[1])
    with pytest.raises(errors.InputError, match=r"something else \(other parameters"):
        extraction.extract_to(output, network[0], other, source, extractions.request())
    for content in (b"mine", b"", (tmp_path / "x.npz").read_bytes()[:2000]):
        (tmp_path / "y.npz").write_bytes(content)
        with pytest.raises(errors.InputError, match=r"y.npz is there and is damaged, or is not of"):
            extraction.extract_to(str(tmp_path / "y.npz"), *network, source, extractions.request())
        assert (tmp_path / "y.npz").read_bytes() == content
    (tmp_path / "z.npz.part").mkdir()
    (tmp_path / "z.npz.part" / "notes.txt").write_text("mine")
    with pytest.raises(errors.InputError, match=r"z.npz.part, where the unfinished file goes, is"):
        extraction.extract_to(str(tmp_path / "z.npz"), *network, source, extractions.request())
    assert (tmp_path / "z.npz.part" / "notes.txt").read_text() == "mine"


def test_half_precision(network: networks.Network, folder, whole, tmp_path):
    source = folders_lib.scan_images(folder)
    extracted = extraction.extract_to(
        str(tmp_path / "x.npz"), *network, source, extractions.request(dtype="float16")
    )
    assert extracted.features.dtype == np.float16
    with np.load(whole) as archive:
        # Ten bits after the point.
        np.testing.assert_allclose(extracted.features, archive["features"], rtol=2**-10, atol=1e-4)
    large = jax.tree.map(lambda x: 100 * x, network[1])
    with pytest.raises(errors.InputError, match=r"features up to \S+ do not fit float16"):
        extraction.extract_to(
            str(tmp_path / "y.npz"), network[0], large, source, extractions.request(dtype="float16")
        )
    assert not (tmp_path / "y.npz").exists()


def test_wrong_requests_are_named(network: networks.Network, folder, tmp_path):
    source = folders_lib.scan_images(folder)
    for output, sentence in (
        (str(tmp_path / "x.txt"), r"x.txt' must end in .npz or .npy"),
        ("/nowhere/x.npz", "folder /nowhere is missing or not writable"),
    ):
        with pytest.raises(errors.InputError, match=sentence):
            extraction.extract_to(output, *network, source, extractions.request())
    with pytest.raises(errors.InputError, match="scale 'half' is neither crop, warp nor a number"):
        extraction.make_view("half", 32)
    with pytest.raises(errors.InputError, match="scale 4: digits takes images of at least"):
        extraction.extract_to(str(tmp_path / "x.npz"), *network, source, extractions.request("4"))
    fixed = spp_jax.make_model("digits", levels=None)
    with pytest.raises(errors.InputError, match="shorter side 64 needs a network that takes any"):
        extraction.extract_to(str(tmp_path / "x.npz"), fixed, {}, source, extractions.request("64"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"rubbish")
    with pytest.raises(errors.InputError, match=r"none of 1 images can be read: .*a.png: not an"):
        extraction.extract_to(
            str(tmp_path / "x.npz"),
            *network,
            folders_lib.scan_images(str(tmp_path / "empty")),
            extractions.request(),
        )
    assert sorted(os.listdir(tmp_path)) == ["empty"]
