"""Batches are a function of seed and step: not of workers, hosts or the step resumed from."""

import dataclasses
import signal
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.data.loading import reading, streams, views
from spp_jax.data.sources import base
from spp_jax.runs import signals


class Squares(base.Source):
    """23 images of one colour each, of two shapes; number 7 is no image."""

    class_names = ("even", "odd")
    split = "train"
    notes = ()

    def __len__(self):
        return 23

    def __getitem__(self, index):
        shape = (40, 60, 3) if index % 2 else (50, 30, 3)
        data = cv2.imencode(".png", np.full(shape, 10 * index, np.uint8))[1].tobytes()
        return base.Example(b"rubbish" if index == 7 else data, index % 2, self.name(index))

    def name(self, index):
        return f"square {index}"


WARP = views.TrainView(config_lib.DataConfig(view="warp", shorter_side=32, crop_size=24))


def _square(view, rng, data, name, size):
    return view.square(rng, view.read(data, name), size)


STREAM = streams.TrainStream(Squares(), WARP, 3, 4, (16, 24, 16))


def _batches(stream, start=0, num_workers=0):
    batches = streams.TrainBatches(stream, start, num_workers)
    try:
        return [(batch, refused) for batch, refused in batches]
    finally:
        batches.close()


def _assert_same(a, b):
    assert len(a) == len(b)
    for (batch, refused), (other, other_refused) in zip(a, b):
        assert refused == other_refused
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def _ids(batch):
    """The examples are told apart by their colour; the refused one is black like number 0."""
    return (batch["image"][:, 0, 0, 0] // 10).tolist()


def test_whole_epochs_at_their_sizes():
    batches = _batches(STREAM)
    assert STREAM.steps_per_epoch == 5
    sizes = [batch["image"].shape[1:] for batch, _ in batches]
    assert sizes == [(16, 16, 3)] * 5 + [(24, 24, 3)] * 5 + [(16, 16, 3)] * 5
    assert all(batch["image"].dtype == np.uint8 for batch, _ in batches)


def test_an_epoch_is_a_permutation_and_the_next_one_another():
    batches = _batches(STREAM)
    epochs = [[i for batch, _ in batches[e * 5 : e * 5 + 5] for i in _ids(batch)] for e in range(3)]
    for ids in epochs:
        assert len(ids) == 20  # of 23: the rest does not fill a batch
        assert len(set(ids) - {0}) >= 18  # 0 may stand for itself and for the refused 7
    assert epochs[0] != epochs[2]


def test_labels_belong_to_their_images():
    for batch, _ in _batches(STREAM):
        for i, label, weight in zip(_ids(batch), batch["label"], batch["weight"]):
            assert label == (i % 2 if weight else 0)


def test_a_bad_image_keeps_its_row_with_weight_0():
    bad = [
        (batch, row, refused)
        for batch, refused in _batches(STREAM)
        for row in range(4)
        if batch["weight"][row] == 0
    ]
    assert bad
    for batch, row, refused in bad:
        assert batch["image"][row].max() == 0
        assert batch["label"][row] == 0
        assert len(refused) == 1
        assert refused[0].startswith("square 7: ")


def test_the_same_from_any_step():
    whole = _batches(STREAM)
    for start in (1, 5, 7, 14):
        _assert_same(_batches(STREAM, start), whole[start:])
    assert _batches(STREAM, 15) == []


@pytest.mark.parametrize("num_bytes", [10**9, 40 * 60 * 3 * 5])
def test_a_cache_changes_nothing_but_the_number_of_reads(num_bytes):
    class Counted(Squares):
        num_reads = 0

        def __getitem__(self, index):
            Counted.num_reads += 1
            return super().__getitem__(index)

    cached = dataclasses.replace(STREAM, source=Counted(), cache=streams.ReadCache(num_bytes))
    _assert_same(_batches(cached), _batches(STREAM))
    if num_bytes == 10**9:
        # 22 good images once each; the bad one, and what two threads read at once, again.
        assert Counted.num_reads <= 22 + 3 + 8
    else:
        assert 40 < Counted.num_reads <= 60 - 5


def test_hosts_share_the_global_batch():
    whole = _batches(STREAM)
    halves = [
        _batches(dataclasses.replace(STREAM, process_index=i, process_count=2)) for i in range(2)
    ]
    for (batch, _), (upper, _), (lower, _) in zip(whole, *halves):
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([upper[name], lower[name]]), batch[name])


def test_another_seed_is_another_order():
    other = _batches(dataclasses.replace(STREAM, seed=4))
    assert [_ids(b) for b, _ in other] != [_ids(b) for b, _ in _batches(STREAM)]


@pytest.mark.slow
def test_worker_processes_give_the_same_batches():
    _assert_same(_batches(STREAM, 3, num_workers=2), _batches(STREAM, 3))


@pytest.mark.slow
def test_loader_processes_leave_no_shared_memory_behind():
    # Arrays that are still held when Python ends, of a stream read to its end and of one left.
    script = """
from tests.data import test_pipeline as tests
held = tests._batches(tests.STREAM, 0, num_workers=2)
left = tests.streams.TrainBatches(tests.STREAM, 0, num_workers=2)
also_held = next(left)
left.close()
seen = list(tests.reading.eval_examples(tests.Squares(), tests.WARP.read, num_workers=2))
print(len(held), len(seen), sum(e.views is not None for e in seen))
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stdout == "15 23 22\n"
    assert process.stderr == ""  # else Python tells of "leaked shared_memory objects"


def test_corners_are_crops_of_the_whole_image():
    # Columns 0, 1, 2 ...: a crop tells where it was cut.
    image = np.tile(np.arange(96, dtype=np.uint8)[None, :, None], (48, 1, 3))
    data = cv2.imencode(".png", image)[1].tobytes()
    view = views.TrainView(config_lib.DataConfig(view="corners", shorter_side=48, crop_size=32))
    lefts = set()
    for seed in range(40):
        crop = _square(view, np.random.default_rng(seed), data, "columns", 32)
        assert crop.shape == (32, 32, 3)
        lefts.add(int(crop[0, 0, 0]))
    assert lefts == {0, 32, 64}  # left corners, centre, right corners


def test_jitter_cuts_up_to_its_share_of_each_side_anywhere():
    rows, columns = np.mgrid[0:40, 0:80].astype(np.uint8)
    image = np.stack([rows, columns, columns], axis=2)
    view = views.TrainView(
        config_lib.DataConfig(view="warp", shorter_side=0, crop_size=0, jitter=0.25)
    )
    cuts = [view._cut(np.random.default_rng(seed), image) for seed in range(300)]
    for cut in cuts:
        assert 30 <= cut.shape[0] <= 40
        assert 60 <= cut.shape[1] <= 80
    assert {cut.shape[0] for cut in cuts} == set(range(30, 41))
    assert {int(cut[0, 0, 0]) for cut in cuts} >= {0, 8}
    assert {int(cut[-1, 0, 0]) for cut in cuts} >= {31, 39}
    whole = views.TrainView(config_lib.DataConfig(view="warp", shorter_side=0, crop_size=0))._cut(
        np.random.default_rng(0), image
    )
    np.testing.assert_array_equal(whole, image)


def test_the_small_size_is_the_large_crop_resized():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8), (9, 9), 3)
    data = cv2.imencode(".png", image)[1].tobytes()
    view = views.TrainView(config_lib.DataConfig(view="corners", shorter_side=48, crop_size=32))
    large = _square(view, np.random.default_rng(1), data, "blur", 32)
    small = _square(view, np.random.default_rng(1), data, "blur", 16)
    np.testing.assert_array_equal(cv2.resize(large, (16, 16), interpolation=cv2.INTER_AREA), small)


def test_too_few_examples_for_a_batch():
    with pytest.raises(errors.InputError, match=r"23 training examples are fewer than .* of 24"):
        dataclasses.replace(STREAM, batch_size=24)


def test_evaluation_reads_every_example_once_and_in_order():
    def view(data, name):
        return _square(WARP, np.random.default_rng(0), data, name, 8)

    examples = list(reading.eval_examples(Squares(), view, 0))
    assert [e.label for e in examples] == [0 if i == 7 else i % 2 for i in range(23)]
    assert [bool(e.refused) for e in examples] == [i == 7 for i in range(23)]
    assert examples[7].refused.startswith("square 7: ")
    assert [e.views[0, 0, 0] // 10 for e in examples if not e.refused] == [
        i for i in range(23) if i != 7
    ]


def test_some_examples_may_be_read():
    examples = reading.eval_examples(Squares(), lambda data, name: name, 0, [4, 7, 2])
    assert [e.label for e in examples] == [0, 1, 0]


class CountedStop(signals.Stop):
    """A Stop that counts how many times it is looked at; it asks to stop, or not."""

    def __init__(self, number):
        self.number, self.count = number, 0

    @property
    def signal(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        self.count += 1
        return self.number


@pytest.mark.parametrize(
    "view",
    [WARP, views.TrainView(config_lib.DataConfig(view="corners", shorter_side=32, crop_size=24))],
)
def test_the_mean_image_is_the_mean_of_the_middles(view):
    stop = CountedStop(None)
    indices = [0, 3, 7, 9]  # 7 cannot be read
    total, count = reading.sum_images(Squares(), view, 8, 0, indices, stop=stop)
    middles = []
    for i in (0, 3, 9):
        example = Squares()[i]
        middles.append(view.middle(view.read(example.data, example.name), 8))
    np.testing.assert_array_equal(total, np.sum(middles, axis=0, dtype=np.int64))
    assert (total.shape, total.dtype, count, stop.count) == ((8, 8, 3), np.int64, 3, 4)
    stop = CountedStop(signal.SIGINT)
    first, count = reading.sum_images(Squares(), view, 8, 0, [9, 0, 3], stop=stop)
    np.testing.assert_array_equal(first, middles[2])
    assert count == 1
    assert reading.sum_images(Squares(), view, 8, 0, [7])[1] == 0


def test_an_epoch_may_be_cut_short():
    assert dataclasses.replace(STREAM, max_steps_per_epoch=2).steps_per_epoch == 2
    assert dataclasses.replace(STREAM, max_steps_per_epoch=99).steps_per_epoch == 5


def test_more_steps_than_32_bits_can_count_are_refused():
    source: Any = range(10_000)
    view = views.TrainView(config_lib.DataConfig())
    with pytest.raises(errors.InputError) as info:
        streams.TrainStream(source, view, 0, 1, (64,) * 300_000)
    assert str(info.value) == (
        "300,000 epochs (config.train.num_epochs) of 10,000 steps are more steps than 32 bits can "
        "count"
    )
