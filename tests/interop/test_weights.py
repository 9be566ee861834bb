"""Files of weights: told apart by content, brought into Caffe's order of axes."""

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.interop import weights
from tests.interop import encoder

KERNEL = np.arange(2 * 3 * 4 * 5, dtype="f4").reshape(2, 3, 4, 5)  # H, W, I, O
DENSE = np.arange(6, dtype="f4").reshape(3, 2)  # I, O


def _save(tmp_path, **arrays):
    path = tmp_path / "weights.npz"
    np.savez(path, **{name.replace("__", "/"): value for name, value in arrays.items()})
    return str(path)


def test_npz_in_caffes_order(tmp_path):
    path = _save(
        tmp_path, a__1x1__kernel=KERNEL, a__1x1__bias=np.zeros(5), fc__kernel=DENSE,
        fc__bias=np.ones(2),
    )  # fmt: skip
    layers = weights.read_weights(path)
    assert list(layers) == ["a/1x1", "fc"]
    kernel, bias = layers["a/1x1"]
    assert kernel.shape == (5, 4, 2, 3)
    assert kernel[4, 3, 1, 2] == KERNEL[1, 2, 3, 4]
    assert kernel[1, 2, 0, 1] == KERNEL[0, 1, 2, 1]
    np.testing.assert_array_equal(bias, np.zeros(5))
    np.testing.assert_array_equal(layers["fc"][0], [[0, 2, 4], [1, 3, 5]])


def test_content_tells_the_formats_apart(tmp_path):
    path = _save(tmp_path, fc__kernel=DENSE, fc__bias=np.ones(2))
    (tmp_path / "weights.npz").rename(tmp_path / "a.caffemodel")
    assert list(weights.read_weights(str(tmp_path / "a.caffemodel"))) == ["fc"]
    with open(path, "wb") as f:
        f.write(encoder.net({"conv": [np.ones(3)]}))
    assert list(weights.read_weights(path)) == ["conv"]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"kernel": DENSE}, "hold 'kernel'; arrays are named LAYER/kernel and LAYER/bias"),
        ({"fc__weight": DENSE}, "hold 'fc/weight'; arrays are named"),
        ({"fc__kernel": DENSE}, "fc has only a kernel"),
        ({"fc__bias": DENSE}, "fc has only a bias"),
        ({"fc__kernel": DENSE.astype(int)}, "fc/kernel is int64, not floating"),
        ({"fc__kernel": np.ones(3), "fc__bias": np.ones(3)}, "fc/kernel has 1 axes"),
        ({"fc__kernel": np.array([{}])}, "damaged or no .npz: Object arrays cannot be loaded"),
        ({}, "hold no layer with weights"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, sentence):
    path = _save(tmp_path, **arrays)
    with pytest.raises(errors.InputError, match=sentence) as caught:
        weights.read_weights(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cut_or_damaged_npz(tmp_path):
    path = _save(tmp_path, fc__kernel=DENSE, fc__bias=np.ones(2))
    data = (tmp_path / "weights.npz").read_bytes()
    rng = np.random.default_rng(0)
    files = [data[:stop] for stop in range(0, len(data), 7)]
    for at in rng.integers(2, len(data), 200):
        files.append(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    refused = 0
    for damaged in files:
        with open(path, "wb") as f:
            f.write(damaged)
        try:
            weights.read_weights(path)
        except errors.InputError:
            refused += 1
    assert refused > len(files) / 2


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(errors.InputError, match="none cannot be read: No such file"):
        weights.read_weights(str(tmp_path / "none"))
