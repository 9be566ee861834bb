"""Features: each image as if it were alone, against the plain maps and loops in numpy."""

from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import spp_jax
from spp_jax import errors
from spp_jax.data import images as images_lib
from spp_jax.evaluation import features
from spp_jax.evaluation.features import Part
from spp_jax.models import topology
from tests.pooling import reference
from tests.support import networks

# Of the same convolution on canvases of other sizes, in float32.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def network():
    return networks.small()


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    sizes = [(32, 40), (45, 32), (32, 32), (33, 57), (32, 41)]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def _alone(network: networks.Network, image) -> Any:
    model, variables = network
    return model.apply(variables, image[None], method="maps")


def test_every_image_is_pooled_as_if_it_were_alone(network: networks.Network, photos):
    parts = [Part("conv5", (3, 1)), Part("conv3", (2,), "mean"), Part("fc6")]
    rows = features.extract(*network, photos, parts, scale=None, num_programs=2)
    assert rows.dtype == np.float32
    assert rows.shape == (5, 10 * 96 + 4 * 64 + 256)
    for row, image in zip(rows, photos, strict=True):
        maps = {k: np.asarray(v[0]) for k, v in _alone(network, image).items()}
        expected = [
            reference.pool_rectangle(maps["conv5"], (3, 1)),
            reference.pool_rectangle(maps["conv3"], (2,), np.mean),
            maps["fc6"],
        ]
        np.testing.assert_allclose(row, np.concatenate(expected), **CLOSE)


def test_the_same_in_any_batch_on_any_canvas(network: networks.Network, photos):
    whole = features.extract(*network, photos, "conv5", (2, 1), scale=None, num_programs=1)
    other = features.extract(
        *network, photos, "conv5", (2, 1), scale=None, num_programs=3, batch_size=1
    )
    np.testing.assert_allclose(other, whole, **CLOSE)
    single = features.extract(*network, photos[3:4], "conv5", (2, 1), scale=None)
    np.testing.assert_allclose(single[0], whole[3], **CLOSE)


def test_lengths_are_one_part_by_part(network: networks.Network, photos):
    parts = [Part("conv5", (2, 1)), Part("conv3", (1,))]
    plain, unit = (
        features.extract(
            *network, photos, parts, scale=None, normalize=is_normalized, num_programs=1
        )
        for is_normalized in (False, True)
    )
    for first, stop in ((0, 480), (480, 544)):
        length = np.linalg.norm(plain[:, first:stop], axis=1, keepdims=True)
        np.testing.assert_allclose(unit[:, first:stop], plain[:, first:stop] / length, rtol=1e-5)


def test_nothing_but_zeros_stays_so(network: networks.Network, photos):
    model, variables = network
    dead = jax.tree.map(jnp.zeros_like, variables)
    rows = features.extract(model, dead, photos[:1], "conv5", scale=None, normalize=True)
    np.testing.assert_array_equal(rows, np.zeros((1, 96)))


def test_files_and_arrays_are_resized_alike(network: networks.Network, photos, tmp_path):
    path = tmp_path / "x.png"
    assert cv2.imwrite(str(path), photos[3][:, :, ::-1])
    rows = features.extract(*network, [path, photos[3]], "conv5", (2, 1), scale=40)
    np.testing.assert_array_equal(rows[0], rows[1])
    resized = images_lib.resize_shorter(photos[3], 40, kernel="triangle")
    expected = features.extract(*network, [resized], "conv5", (2, 1), scale=None)
    np.testing.assert_allclose(rows[0], expected[0], **CLOSE)


def test_a_classifier_on_cells_is_a_map(photos):
    # As SqueezeNet, and smaller.
    backbone = topology.Backbone(
        "cells", (topology.Conv("conv1", 8, 3, stride=2),), hidden=(), cell_classifier="conv10"
    )
    model = spp_jax.make_model(backbone, levels=(1,), reduce="mean", num_classes=6)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    parts = [Part("conv10", (1,), "mean"), Part("pool"), Part("logits")]
    rows = features.extract(model, variables, photos, parts, scale=None, num_programs=1)
    assert rows.shape == (5, 18)
    np.testing.assert_allclose(rows[:, :6], rows[:, 6:12], rtol=1e-5)
    np.testing.assert_array_equal(rows[:, 6:12], rows[:, 12:])


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ("conv9", r"digits has no layer 'conv9'; it has conv1, norm1, .*, pool, fc6, logits$"),
        ([Part("conv5")], r"layer conv5: levels must be whole numbers of at least 1, got \(\)"),
        ([Part("conv5", (0,))], r"layer conv5: levels must be .* got \(0,\)"),
        ([Part("conv5", (1,), "sum")], "layer conv5: reduce must be"),  # pyright: ignore
        ([], "no layer is given"),
    ],
)
def test_wrong_parts_are_named(network: networks.Network, photos, parts, sentence):
    with pytest.raises(errors.InputError, match=sentence):
        features.extract(*network, photos, parts)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": "crop"}, "scale must be None or a whole number of pixels, got 'crop'"),
        ({"num_programs": 0}, "num_programs must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        ({"levels": 2}, r"levels must be a sequence as \(3, 2, 1\), got 2"),
        ({"layer": ["conv5"]}, "several layers are given as Parts, got 'conv5'"),
        ({"images": "x.jpg"}, "images must be a sequence of images or paths, got 'x.jpg'; give a"),
        ({"images": b"x.jpg"}, "images must be a sequence of images or paths, got b'x.jpg'; give"),
        ({"images": Image.new("L", (9, 9))}, r"images must be .* mode=L .*; give a list, as \[im"),
        ({"images": np.zeros((9, 9, 3), np.uint8)}, r"got one array of \(9, 9, 3\); give a list"),
        ({"images": 3}, "images must be a sequence of images or paths, got 3; give a list"),
        ({"images": [None]}, r"images\[0\] must be an array \(h, w, 3\) uint8, .* got None"),
        ({"scale": 2.5}, "scale must be None or a whole number of pixels, got 2.5"),
        ({"refused": "skip"}, 'refused must be "nan" or "raise", got \'skip\''),
    ],
)
def test_wrong_arguments_are_named(network: networks.Network, photos, options, sentence):
    with pytest.raises(errors.InputError, match=sentence):
        features.extract(*network, **({"images": photos, "layer": "conv5"} | options))


def _png(image):
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def test_images_come_in_whatever_holds_them(network: networks.Network, photos, tmp_path):
    two = [photos[0], photos[0][::-1].copy()]
    for i, image in enumerate(two):
        (tmp_path / f"{i}.png").write_bytes(_png(image))
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    options = {"scale": None, "num_programs": 1}
    expected = features.extract(*network, two, "conv5", **options)
    assert np.all(np.isfinite(expected))
    given = {
        "paths": paths,
        "an array of paths": np.array(paths),
        "a generator": (p for p in paths),
        "a glob": sorted(tmp_path.glob("*.png")),
        "a map": map(str, paths),
        "files in memory": [_png(image) for image in two],
        "PIL images": [Image.fromarray(image) for image in two],
        "PIL images of files": [Image.open(path) for path in paths],
        "an array of images": np.stack(two),
        "JAX arrays": [jnp.asarray(image) for image in two],
        "an array of JAX": jnp.stack(two),
    }
    for what, images in given.items():
        rows = features.extract(*network, images, "conv5", **options)
        np.testing.assert_array_equal(rows, expected, err_msg=what)
    none = features.extract(
        *network,
        iter([]),
        "conv5",
        scale=np.int64(40),  # pyright: ignore[reportArgumentType]
    )
    assert none.shape == (0, 96)


def test_grey_and_turned_images_are_as_their_files(network: networks.Network, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    turned = Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    files = [tmp_path / "grey.png"] * 3 + [tmp_path / "turned.png"]
    pictures = [grey, grey[:, :, None], Image.fromarray(grey), Image.open(tmp_path / "turned.png")]
    options = {"scale": None, "num_programs": 1}
    rows, expected = (features.extract(*network, x, "conv5", **options) for x in (pictures, files))
    np.testing.assert_array_equal(rows, expected)


def test_a_bad_file_does_not_cost_the_others(network: networks.Network, photos, tmp_path):
    rng = np.random.default_rng(1)
    good = _png(rng.integers(0, 256, (32, 32, 3), np.uint8))
    (tmp_path / "good.png").write_bytes(good)
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])  # its header can be read
    (tmp_path / "empty.png").write_bytes(b"")
    names = ("empty.png", "good.png", "cut.png", "gone.png", "good.png")
    paths = [str(tmp_path / name) for name in names]
    # Whole numbers of any library.
    options = {"scale": None, "num_programs": np.int64(1), "batch_size": jnp.int32(32)}
    with pytest.warns(
        UserWarning, match=r"^3 of 5 images cannot be read and have .* NaN: "
    ) as told:
        rows = features.extract(*network, paths, "conv5", **options)
    sentences = str(told[0].message).split("NaN: ")[1].split("; ")
    assert [s.split(": ")[0] for s in sentences] == [paths[0], paths[2], paths[3]]
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="^50 of 51 images cannot be read") as told:
        features.extract(*network, [paths[3]] * 50 + [paths[1]], "conv5", **options)
    assert str(told[0].message).count("gone.png: No such file") == 3
    assert str(told[0].message).endswith("; and 47 more")
    expected = features.extract(*network, paths[1:2], "conv5", **options)
    np.testing.assert_allclose(rows[[1, 4]], expected.repeat(2, axis=0), **CLOSE)
    assert np.all(np.isnan(rows[[0, 2, 3]]))
    with pytest.raises(errors.ImageError, match=r"empty.png: the file is empty; .*gone.png: No s"):
        features.extract(*network, paths, "conv5", refused="raise", **options)
    with pytest.raises(errors.ImageError, match=r"cut.png: cannot be decoded as PNG"):
        features.extract(*network, paths[1:3], "conv5", refused="raise", **options)
    with pytest.raises(errors.ImageError, match=r"none of 2 images can be read: .*cut.png: can"):
        features.extract(*network, paths[2:4], "conv5", **options)


def test_wrong_images_are_named(network: networks.Network, tmp_path):
    for image, advice in (
        (np.zeros((40, 40)), r"\(255 \* image\).round\(\).astype\('uint8'\)"),
        (np.zeros((40, 40, 3), np.float32), r"float32; if 1.0 is white in it, give \(255"),
        (jnp.zeros((40, 40, 3), jnp.int32), r"int32; if 255 is white in it, give image.astype"),
        (np.zeros((0, 40, 3), np.uint8), ""),
        (np.zeros((40, 40, 4), np.uint8), r"give image\[..., :3\] to leave out its alpha"),
        (np.zeros((3, 40, 40), np.uint8), r"give image.transpose\(1, 2, 0\), channels last"),
    ):
        sentence = rf"images\[1\]: an image must be \(h, w, 3\) uint8, got .*{advice}"
        with pytest.raises(errors.InputError, match=sentence):
            features.extract(*network, [tmp_path / "not looked for.jpg", image], "conv5")
    with pytest.raises(errors.InputError, match=r"images\[0\]: digits takes images of at least"):
        features.extract(*network, [np.zeros((4, 4, 3), np.uint8)], "conv5", scale=None)
    (tmp_path / "small.png").write_bytes(_png(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(errors.InputError, match=r"small\.png: digits takes images of at least"):
        features.extract(*network, [tmp_path / "small.png"], "conv5", scale=None)
    with pytest.raises(errors.ImageError, match=r"x.jpg: No such file"):
        features.extract(*network, [tmp_path / "x.jpg"], "conv5")
    fixed = spp_jax.make_model("digits", levels=None)
    with pytest.raises(errors.InputError, match="takes 64x64 images only, got 32x40"):
        features.extract(fixed, {}, [np.zeros((32, 40, 3), np.uint8)], "conv5", scale=None)
