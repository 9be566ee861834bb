"""Box regression: ridge against the normal equations, both forms the same."""

import numpy as np
import pytest

from spp_jax.detection.learning import regression


@pytest.mark.parametrize("count", [7, 60])
def test_ridge_solves_the_normal_equations(count):
    rng = np.random.default_rng(1)
    features, deltas = rng.normal(size=(count, 20)), rng.normal(size=(count, 4)) * [1, 2, 0.5, 1]
    weights, bias = regression.fit(features, deltas, strength=3.0)
    # Whitening and its undoing, and the constant feature, written out.
    mean = deltas.mean(axis=0)
    covariance = np.cov(deltas.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors @ np.diag(1 / np.sqrt(values + 0.001)) @ vectors.T
    x = np.c_[features, np.ones(count)]
    solved = np.linalg.inv(x.T @ x + 3.0 * np.eye(21)) @ x.T @ ((deltas - mean) @ whiten)
    solved = solved @ np.linalg.inv(whiten)
    np.testing.assert_allclose(weights, solved[:-1], atol=1e-6)  # stored as float32
    np.testing.assert_allclose(bias, solved[-1] + mean, atol=1e-6)


def test_weak_ridge_learns_what_is_linear():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 6))
    deltas = features @ rng.normal(size=(6, 4)) + [0.5, 0, 0, -1]
    weights, bias = regression.fit(features, deltas, strength=1e-6)
    np.testing.assert_allclose(features @ weights + bias, deltas, atol=1e-4)
