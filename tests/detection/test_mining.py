"""Hard negatives: which are kept and trained on, and the SVM of all negatives at once."""

import numpy as np
import pytest
import sklearn.svm

from spp_jax import config as config_lib
from spp_jax.detection.learning import mining

NO_OBJECTS = np.zeros((0, 4)), np.zeros(0, np.int64)


def _windows(count):
    left = 20.0 * np.arange(count)
    return np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1)


def _miner(positives, **changes):
    config = config_lib.MiningConfig(**changes)
    return mining.Miner(config, positives, factor=1.0, seed=0)


def test_with_all_negatives_kept_it_is_the_svm_of_all():
    rng = np.random.default_rng(0)
    positives = rng.normal(1, 1, (30, 8)).astype(np.float32)
    negatives = rng.normal(-1, 1, (4, 50, 8)).astype(np.float32)
    changes = {"hard": -1e9, "evict": -1e9, "c": 0.1}
    miner = _miner([positives, np.zeros((0, 8), np.float32)], **changes)
    for part in negatives:
        miner.add(part, np.arange(50), _windows(50), *NO_OBJECTS)
    linear = miner.finish()
    machine = sklearn.svm.LinearSVC(
        C=0.1, loss="hinge", class_weight={1: 2, -1: 1}, intercept_scaling=10, max_iter=100_000
    )
    examples = np.concatenate([positives, *negatives])
    machine.fit(examples, np.r_[np.ones(30), -np.ones(200)])
    # liblinear stops within 1e-4 of the optimum of the dual, and visits examples by chance.
    np.testing.assert_allclose(linear.weights[:, 0], machine.coef_[0], atol=2e-2)
    np.testing.assert_allclose(linear.bias[0], np.ravel(machine.intercept_)[0], atol=2e-2)
    # A class without objects never detects.
    assert linear.bias[1] == -np.inf
    assert not linear.weights[:, 1].any()
    assert miner.num_trainings == 2  # on the first image, and at the end


def test_windows_near_an_object_of_the_class_are_no_negatives():
    positives = [np.full((3, 2), 5, np.float32), np.full((3, 2), -5, np.float32)]
    miner = _miner(positives, evict=-1e9)
    windows = _windows(3)
    # The first object is window 0; it overlaps nothing else.
    features = np.asarray([[5, 5], [0, 0], [1, 0]], np.float32)
    miner.add(features, np.arange(3), windows, windows[:1], np.asarray([0]))
    assert [miner._negatives.count(k) for k in range(2)] == [2, 3]


def test_easy_negatives_are_dropped_and_never_taken():
    positives = [np.asarray([[9, 0], [10, 0]], np.float32)]
    miner = _miner(positives, c=1.0)
    miner.add(np.asarray([[0, 0], [-90, 0]], np.float32), np.arange(2), _windows(2), *NO_OBJECTS)
    assert miner.num_negatives == 1  # the one far away is evicted after training
    miner.add(np.asarray([[-80, 0], [0, 0.1]], np.float32), np.arange(2), _windows(2), *NO_OBJECTS)
    assert miner.num_negatives == 2  # only the near one is hard
    assert miner.num_trainings == 1


def test_windows_on_the_same_cells_are_one_negative():
    miner = _miner([np.ones((2, 2), np.float32)], evict=-1e9)
    features = np.asarray([[0, 0], [0.5, 0], [7, 7]], np.float32)  # the last row is padding
    miner.add(features, np.asarray([1, 0, 1, 1]), _windows(4), *NO_OBJECTS)
    assert miner.num_negatives == 2


def test_training_waits_for_enough_new_negatives():
    miner = _miner([np.ones((2, 2), np.float32)], retrain_every=3, hard=-1e9, evict=-1e9)
    for _ in range(5):
        features = np.zeros((2, 2), np.float32)
        miner.add(features, np.arange(2), _windows(2), *NO_OBJECTS)
    # On the first image, then when 4 are new, then again after 4.
    assert miner.num_trainings == 3
    assert miner.num_negatives == 10


def test_near_duplicates_may_be_left_out():
    windows = np.asarray([[0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10]], float)
    features = np.asarray([[1, 0], [2, 0], [3, 0]], np.float32)
    for share, expected in ((0.0, 3), (0.7, 2)):
        miner = _miner([np.ones((2, 2), np.float32)], negative_nms=share, evict=-1e9)
        miner.add(features, np.arange(3), windows, *NO_OBJECTS)
        assert miner.num_negatives == expected


def test_a_class_without_negatives_in_the_first_image_is_trained_later():
    positives = [np.ones((2, 2), np.float32), np.full((2, 2), -1, np.float32)]
    miner = _miner(positives)
    windows = _windows(3)
    features = np.asarray([[0, 0], [0.1, 0], [0.2, 0]], np.float32)
    # All windows of the first image overlap objects of class 0.
    miner.add(features, np.arange(3), windows, windows, np.zeros(3, int))
    assert np.isfinite(miner.linear.bias).tolist() == [False, True]
    miner.add(features, np.arange(3), windows, *NO_OBJECTS)
    assert np.isfinite(miner.finish().bias).all()
    assert miner._negatives.count(0) == 3


def test_the_factor_is_in_the_weights():
    rng = np.random.default_rng(4)
    positives, negatives = rng.normal(1, 1, (9, 3)), rng.normal(-1, 1, (20, 3))
    scores = []
    for factor in (1.0, 4.0):
        config = config_lib.MiningConfig(c=0.1)
        scaled = [(positives / factor).astype(np.float32)]
        miner = mining.Miner(config, scaled, factor=factor, seed=0)
        part = (negatives / factor).astype(np.float32)
        miner.add(part, np.arange(20), _windows(20), *NO_OBJECTS)
        linear = miner.finish()
        scores.append(part @ linear.weights + linear.bias)
    # The same examples after scaling; float32 rounds them differently.
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


@pytest.mark.parametrize("field", ["c", "bias", "retrain_every"])
def test_wrong_constants_are_refused(field):
    from spp_jax import errors

    config = config_lib.DetectionConfig()
    setattr(config.svm, field, type(getattr(config.svm, field))(0))
    with pytest.raises(errors.InputError, match=f"config.svm.{field} must be more than 0, got 0"):
        config_lib.validate(config)


def test_a_window_that_is_hard_for_several_classes_is_held_once():
    positives = [np.ones((2, 2), np.float32), np.full((2, 2), 2, np.float32)]
    miner = _miner(positives, hard=-1e9, evict=-1e9, retrain_every=2)
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(3, 4, 2)).astype(np.float32)
    objects = _windows(4)[1:2], np.asarray([0])
    for part in parts:
        miner.add(part, np.arange(4), _windows(4), *objects)
    negatives = miner._negatives
    # Window 1 overlaps an object of class 0: it is a negative of class 1 only.
    rows = [[0, 2, 3], [0, 1, 2, 3]]
    for k in range(2):
        expected = np.concatenate([part[rows[k]] for part in parts])
        np.testing.assert_array_equal(np.concatenate(negatives.of_class(k)), expected)
    assert sum(map(len, negatives._blocks.values())) == 12
    negatives.keep(0, np.zeros(9, bool))
    is_kept = np.arange(12) % 4 == 2
    negatives.keep(1, is_kept)
    negatives.forget_unused()
    assert negatives.count(0) == 0
    np.testing.assert_array_equal(np.concatenate(negatives.of_class(1)), parts[:, 2])
    assert sum(map(len, negatives._blocks.values())) == 3
