"""Tests of the digit scenes: pools, guarantees of a scene, and the prepared set."""

import errno
import os
import pathlib
import shutil
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.commands import console
from spp_jax.data.embedded import digits

LUMA = np.array([0.299, 0.587, 0.114])
FEW = {"train": 40, "test": 20}


@pytest.fixture(scope="module")
def source():
    return digits.load_digits()


@pytest.fixture(scope="module")
def scenes(source):
    ink, labels = source
    everything = np.arange(len(labels))
    return [
        digits.make_scene(np.random.default_rng(seed), ink, labels, everything)
        for seed in range(200)
    ]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(digits, "NUM_SCENES", FEW)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "NUM_SCENES", FEW)
        digits.prepare(data_dir)
    return data_dir


def read(data_dir, split) -> list[Any]:
    """Returns the stored examples, their images as encoded bytes."""
    builder: Any = tfds.builder("digit_scenes", data_dir=data_dir)
    return list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))


def files_of(data_dir):
    """Returns {path: (inode, time of last change)} of every file under a directory."""
    files = [path for path in pathlib.Path(data_dir).rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def expected_scenes(split, source):
    """Makes a split's scenes anew, the way the module documents: (SEED, split, index)."""
    ink, labels = source
    pool = digits.split_pools(labels)[split]
    position = {"train": 0, "test": 1}[split]
    return [
        digits.make_scene(
            np.random.default_rng((digits.SEED, position, index)),
            ink,
            labels,
            pool[labels[pool] == index % 10],
        )
        for index in range(FEW[split])
    ]


def test_digits_are_the_uci_test_set(source):
    ink, labels = source
    assert ink.shape == (1797, 8, 8)
    assert (ink.min(), ink.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(labels[:12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    # No two digits are the same drawing, so disjoint indices are disjoint digits.
    assert len(np.unique(ink.reshape(1797, 64), axis=0)) == 1797


def test_pools_are_disjoint_complete_and_stratified(source):
    _, labels = source
    pools = digits.split_pools(labels)
    assert not set(pools["train"]) & set(pools["test"])
    assert set(pools["train"]) | set(pools["test"]) == set(range(1797))
    # A fifth of 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180, rounded.
    counts = np.bincount(labels[pools["test"]])
    np.testing.assert_array_equal(counts, [36, 36, 35, 37, 36, 36, 36, 36, 35, 36])
    np.testing.assert_array_equal(pools["test"], digits.split_pools(labels)["test"])


def test_declared_counts():
    assert digits.NUM_SCENES == {"train": 8000, "test": 2000}


def test_canvases_have_any_shape(scenes):
    sides = np.array([scene.image.shape[:2] for scene in scenes])
    # Both ends are included, and 400 draws out of 113 values reach them.
    assert sides.min() == 48
    assert sides.max() == 160
    # Evenly drawn sides: fewer than 60 of 200 on one side of square would be 5 deviations off.
    assert (sides[:, 0] > sides[:, 1]).sum() > 60
    assert (sides[:, 0] < sides[:, 1]).sum() > 60
    ratios = sides[:, 0] / sides[:, 1]
    assert ratios.min() < 0.5
    assert ratios.max() > 2.0


def test_scene_depends_on_its_rng_alone(source):
    ink, labels = source
    pool = np.arange(1797)
    first, other, again = (
        digits.make_scene(np.random.default_rng(seed), ink, labels, pool) for seed in (3, 4, 3)
    )
    np.testing.assert_array_equal(first.image, again.image)
    assert first[1:] == again[1:]
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


def test_scene_draws_only_candidates(source):
    ink, labels = source
    candidates = np.array([5, 700, 1796])
    drawn = [
        digits.make_scene(np.random.default_rng(seed), ink, labels, candidates)
        for seed in range(20)
    ]
    assert {scene.digit_index for scene in drawn} == {5, 700, 1796}
    assert all(scene.label == labels[scene.digit_index] for scene in drawn)


def test_digits_have_any_scale_and_place_inside(scenes):
    heights, shares, centers = [], [], []
    for scene in scenes:
        height, width, _ = scene.image.shape
        x1, y1, x2, y2 = scene.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        heights.append(y2 - y1)
        shares.append((y2 - y1) / min(height, width))
        centers.append(((x1 + x2) / 2 / width, (y1 + y2) / 2 / height))
    assert min(heights) >= 18
    # Rounding to whole pixels moves 0.35 and 0.9 of 48 pixels by up to 1/48.
    assert 0.32 < min(shares) < 0.4
    assert 0.8 < max(shares) < 0.93
    for axis in np.array(centers).T:
        assert axis.min() < 0.3
        assert axis.max() > 0.7


def test_no_digit_is_too_small_to_read(source):
    ink, _ = source
    heights = []
    for seed in range(300):
        _, (_, y1, _, y2) = digits.place_digit(np.random.default_rng(seed), ink[seed], 48, 48)
        heights.append(y2 - y1)
    # 0.35 of 48 pixels would be 16.8.
    assert 18 <= min(heights) <= 19


def test_box_is_tight(source):
    ink, _ = source
    for seed in range(60):
        rng = np.random.default_rng(seed)
        canvas = np.full((90, 120, 3), 128, np.uint8)
        coverage, (x1, y1, x2, y2) = digits.place_digit(rng, ink[seed], 90, 120)
        painted = digits.paste_ink(rng, canvas, coverage, (x1, y1, x2, y2))
        change = np.abs(painted @ LUMA - 128.0)
        outside = coverage.copy()
        outside[y1:y2, x1:x2] = 0.0
        assert outside.max() < 0.5
        sides = (change[y1, x1:x2], change[y2 - 1, x1:x2], change[y1:y2, x1], change[y1:y2, x2 - 1])
        # Every side touches visible ink: half of the least contrast, less one level of rounding.
        assert min(side.max() for side in sides) >= 29.0


def test_ink_stands_out_from_all_that_surrounds_it(source):
    ink, _ = source
    polarities = set()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        background = digits.make_background(rng, 80, 110)
        coverage, box = digits.place_digit(rng, ink[seed], 80, 110)
        painted = digits.paste_ink(rng, background, coverage, box) @ LUMA
        x1, y1, x2, y2 = box
        reach = (y2 - y1) // 5
        around = background[max(0, y1 - reach) : y2 + reach, max(0, x1 - reach) : x2 + reach] @ LUMA
        full = painted[coverage == 1.0]
        assert full.size > 0
        lighter, darker = full.min() - around.max(), around.min() - full.max()
        # The guarantee includes rounding; 0.01 is for float32 luminance.
        assert max(lighter, darker) >= 60.0 - 0.01
        polarities.add(lighter > darker)
    assert polarities == {True, False}


@pytest.mark.parametrize(("level", "is_light"), [(0, True), (59, True), (196, False), (255, False)])
def test_ink_goes_where_there_is_room(source, level, is_light):
    rng = np.random.default_rng(0)
    coverage, box = digits.place_digit(rng, source[0][0], 60, 60)
    for _ in range(10):
        painted = digits.paste_ink(rng, np.full((60, 60, 3), level, np.uint8), coverage, box)
        full = painted[coverage == 1.0] @ LUMA
        assert (full.min() >= level + 60.0 - 0.01) if is_light else (full.max() <= level - 60.0)


def test_background_is_textured_and_of_limited_span():
    for seed in range(100):
        background = digits.make_background(np.random.default_rng(seed), 48, 160)
        assert background.shape == (48, 160, 3)
        luminance = background @ LUMA
        assert 5.0 < np.ptp(luminance) <= 110.0


@pytest.mark.parametrize("split", ["train", "test"])
def test_stored_examples_are_the_scenes(prepared, source, split):
    stored = {}
    for example in read(prepared, split):
        assert isinstance(example["image"], bytes)
        bgr: Any = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_UNCHANGED)
        stored[bgr[..., ::-1].tobytes()] = (bgr.shape, example)
    scenes = expected_scenes(split, source)
    assert len(stored) == len(scenes) == FEW[split]
    for scene in scenes:
        shape, example = stored[scene.image.tobytes()]
        assert shape == scene.image.shape
        assert (example["label"], example["digit_index"]) == (scene.label, scene.digit_index)
        ymin, xmin, ymax, xmax = example["bbox"]
        height, width, _ = shape
        # Stored as float32 shares of at most 160 pixels: exact to 1e-5 pixels.
        box = np.array([xmin * width, ymin * height, xmax * width, ymax * height])
        np.testing.assert_allclose(box, scene.box, rtol=0, atol=1e-4)


def test_splits_share_no_digit_and_are_balanced(prepared, source):
    _, labels = source
    pools = digits.split_pools(labels)
    for split, other in (("train", "test"), ("test", "train")):
        examples = read(prepared, split)
        assert not {example["digit_index"] for example in examples} & set(pools[other])
        counts = np.bincount([example["label"] for example in examples], minlength=10)
        np.testing.assert_array_equal(counts, FEW[split] // 10)


def test_reads_by_name_and_decodes(prepared):
    source: Any = tfds.data_source("digit_scenes", split="test", data_dir=prepared)
    assert len(source) == 20
    image = source[0]["image"]
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    info: Any = tfds.builder("digit_scenes", data_dir=prepared).info
    assert info.features["label"].names == [str(digit) for digit in range(10)]
    assert {name: split.num_examples for name, split in info.splits.items()} == FEW


@pytest.mark.usefixtures("few")
def test_preparing_elsewhere_gives_the_same_bytes_and_no_noise(prepared, tmp_path, capsys, recwarn):
    digits.prepare(tmp_path, console.Console())
    for split in FEW:
        for here, there in zip(read(prepared, split), read(tmp_path, split), strict=True):
            assert here["image"] == there["image"]
            np.testing.assert_array_equal(here["bbox"], there["bbox"])
    captured = capsys.readouterr()
    # One line: the finished bar.
    assert captured.out.count("\n") == 1
    assert "60/60" in captured.out
    assert captured.err == ""
    assert not recwarn.list


def test_prepared_set_is_left_alone(prepared, monkeypatch, capsys):
    before = files_of(prepared)
    monkeypatch.setattr(digits, "make_scene", None)  # making a scene would raise TypeError
    digits.prepare(prepared, console.Console())
    assert files_of(prepared) == before
    assert len(before) >= 3
    assert capsys.readouterr().out == ""  # no bar: it returned at once


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "disk is full")])
def test_interruption_is_not_taken_for_complete(tmp_path, monkeypatch, error):
    make_scene, calls = digits.make_scene, []

    def make_some(*args):
        calls.append(args)
        if len(calls) == 50:
            raise error
        return make_scene(*args)

    with monkeypatch.context() as patch:
        patch.setattr(digits, "make_scene", make_some)
        with pytest.raises(errors.InputError if isinstance(error, OSError) else error):
            digits.prepare(tmp_path)
    # What a killed process leaves: a directory of TFDS's temporary name.
    (tmp_path / "digit_scenes" / "incomplete.ABCDEF_1.0.0").mkdir()
    assert not (tmp_path / "digit_scenes" / "1.0.0").exists()
    digits.prepare(tmp_path)
    assert len(read(tmp_path, "train")) == 40


@pytest.mark.usefixtures("few")
def test_another_process_may_finish_first(prepared, tmp_path, monkeypatch):
    make_scene = digits.make_scene
    path = os.path.join("digit_scenes", "1.0.0")

    def make_while_other_finishes(*args):
        if not (tmp_path / path).exists():
            shutil.copytree(prepared / path, tmp_path / path)
        return make_scene(*args)

    monkeypatch.setattr(digits, "make_scene", make_while_other_finishes)
    digits.prepare(tmp_path)
    assert sorted(os.listdir(tmp_path / "digit_scenes")) == ["1.0.0", "lock.json"]
    assert len(read(tmp_path, "train")) == 40
