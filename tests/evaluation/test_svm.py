"""SVMs by their kernel against liblinear on the features themselves."""

import numpy as np
import pytest
import sklearn.svm

from spp_jax.evaluation.svm import machines

HINGE = {"c": 1.0, "loss": "hinge", "seed": 0}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    centres = rng.normal(size=(3, 200))
    features = np.maximum(0, centres[labels] + 2 * rng.normal(size=(90, 200)))
    return features.astype(np.float32), labels


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("num_train", [30, 60])
def test_the_same_svm_as_on_the_features(examples, loss, num_train):
    features, labels = examples
    exact = features.astype(np.float64)
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    kernel = machines.normalize_kernel(machines.inner_products(features))
    np.testing.assert_allclose(kernel, unit @ unit.T, atol=1e-12)
    targets = np.where(labels[:, None] == np.arange(3), 1, -1)
    train, test = np.arange(num_train), np.arange(60, 90)
    decided = machines.decisions(kernel, train, test, targets[train], c=2.0, loss=loss, seed=0)
    for k in range(3):
        machine = sklearn.svm.LinearSVC(C=2.0, loss=loss, tol=1e-8, max_iter=10**6)
        expected = machine.fit(unit[train], targets[train, k]).decision_function(unit[test])
        # Found by liblinear with its own tolerance of 1e-4, and expected with another.
        np.testing.assert_allclose(decided[:, k], expected, atol=2e-3)


def test_more_examples_than_features(examples):
    features, labels = examples[0][:, :5], examples[1]
    targets = np.where(labels[:, None] == np.arange(3), 1, -1)
    every = np.arange(90)
    decided = machines.decisions(machines.inner_products(features), every, every, targets, **HINGE)
    for k in range(3):
        machine = sklearn.svm.LinearSVC(loss="hinge", tol=1e-6, max_iter=10**6)
        expected = machine.fit(features, targets[:, k]).decision_function(features)
        np.testing.assert_allclose(decided[:, k], expected, atol=5e-3)  # liblinear's, as above


def test_examples_left_out_of_a_class(examples):
    features, labels = examples
    kernel = machines.inner_products(features)
    targets = np.where(labels[:, None] == np.arange(2), 1, -1)
    targets[:30:2, 0] = 0
    train, test = np.arange(60), np.arange(60, 90)
    kept = np.flatnonzero(targets[:60, 0])
    whole = machines.decisions(kernel, train, test, targets[train], **HINGE)
    alone = machines.decisions(kernel, kept, test, targets[kept, :1], **HINGE)
    # Where it was left out it still has a coordinate, of no weight.
    np.testing.assert_allclose(whole[:, :1], alone, atol=1e-3)


def test_a_class_that_is_not_there_is_not_decided(examples):
    kernel = machines.inner_products(examples[0][:10])
    targets = np.stack([-np.ones(6), np.ones(6)], axis=1)
    decided = machines.decisions(kernel, np.arange(6), np.arange(6, 10), targets, **HINGE)
    # It can never be decided for; what is always there is neither likely nor unlikely.
    np.testing.assert_array_equal(decided, np.tile([-np.inf, 0], (4, 1)))


def test_vectors_of_zeros_stay_so():
    kernel = machines.normalize_kernel(machines.inner_products(np.array([[3, 4], [0, 0], [8, 6]])))
    np.testing.assert_allclose(kernel, [[1, 0, 0.96], [0, 0, 0], [0.96, 0, 1]], atol=1e-15)


def test_mean_over_classes_not_over_examples():
    decided = np.array([[2, 1], [2, 1], [2, 1], [2, 1], [2, 1]])
    assert machines.mean_class_accuracy(decided, np.array([0, 0, 0, 0, 1])) == 0.5
    assert machines.mean_class_accuracy(decided[:4], np.array([0, 0, 0, 0])) == 1.0
