"""The reader of .caffemodel files, on bytes written by hand and by an independent encoder."""

import itertools

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.interop import caffe
from tests.interop import encoder

RNG = np.random.default_rng(0)
LAYERS = {
    "conv1": [RNG.normal(size=(4, 3, 2, 2)).astype("f4"), RNG.normal(size=4).astype("f4")],
    "block/fc": [RNG.normal(size=(5, 300)).astype("f4"), RNG.normal(size=5).astype("f4")],
}


def _read(tmp_path, data):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    return caffe.read_caffemodel(str(path))


def _floats(values):
    return np.array(values, np.float32)


def _assert_equal(layers, expected, leading_ones=False):
    assert list(layers) == list(expected)
    for name, blobs in expected.items():
        assert len(layers[name]) == len(blobs)
        for a, b in zip(layers[name], blobs):
            b = b.reshape((1,) * (4 - b.ndim) + b.shape) if leading_ones else b
            np.testing.assert_array_equal(a, b)
            assert a.shape == b.shape


def test_bytes_by_hand(tmp_path):
    data = bytes.fromhex(
        "0a 01 6e"  # name (field 1): "n"
        "a2 06 14"  # a LayerParameter (field 100) of 20 bytes:
        "0a 01 61"  # . name (1): "a"
        "3a 0f"  # . a blob (7) of 15 bytes:
        "3a 03 0a 01 02"  # . . shape (7): dim (1), packed: 2
        "2a 08 0000803f 000000c0"  # . . data (5), packed: 1.0, -2.0
    )
    layers = _read(tmp_path, data)
    assert list(layers) == ["a"]
    np.testing.assert_array_equal(layers["a"], [[1.0, -2.0]])
    assert layers["a"][0].dtype == np.float32


@pytest.mark.parametrize("form", encoder.FORMS)
@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("is_legacy", [True, False])
@pytest.mark.parametrize("is_double", [True, False])
def test_every_form_gives_the_same(tmp_path, form, is_packed, is_legacy, is_double):
    data = encoder.net(
        LAYERS, form, is_packed=is_packed, is_legacy=is_legacy, is_double=is_double, has_diff=True
    )
    layers = _read(tmp_path, data)
    _assert_equal(layers, LAYERS, leading_ones=is_legacy)
    assert layers["conv1"][0].dtype == (np.float64 if is_double else np.float32)


@pytest.mark.parametrize("form", encoder.FORMS)
@pytest.mark.parametrize("is_packed", [True, False])
def test_unknown_fields_are_skipped(tmp_path, form, is_packed):
    data = encoder.net(LAYERS, form, is_packed=is_packed, unknown=encoder.UNKNOWN)
    _assert_equal(_read(tmp_path, data), LAYERS)


def test_numbers_in_several_pieces(tmp_path):
    """Protobuf lets a packed field come in pieces, mixed with unpacked numbers."""
    pieces = [
        encoder.floats(5, [1, 2]),
        encoder.floats(5, [3, 4, 5], is_packed=False),
        encoder.number(1000, 1),
        encoder.floats(5, [6], is_packed=False),
    ]
    blob = encoder.number(4, 6) + b"".join(pieces) + b"".join(encoder.number(i, 1) for i in (1, 2))
    data = encoder.layer("v1", "a", [blob + encoder.number(3, 1)])
    np.testing.assert_array_equal(_read(tmp_path, data)["a"][0], [[[[1, 2, 3, 4, 5, 6]]]])


def test_of_both_kinds_of_numbers_doubles_count(tmp_path):
    """As in Caffe's Blob::FromProto."""
    blob = encoder.blob([1.0, 2.0], is_double=True) + encoder.floats(5, [3, 4])
    np.testing.assert_array_equal(_read(tmp_path, _one_blob(blob))["fc8"][0], [1, 2])


@pytest.mark.parametrize("form", encoder.FORMS)
@pytest.mark.parametrize("is_packed", [True, False])
def test_cut_anywhere_it_is_refused_or_has_fewer_layers(tmp_path, form, is_packed):
    small = {"a": [_floats([[1, 2, 3]]), _floats([4])], "b": [_floats([5, 6])]}
    data = encoder.net(small, form, is_packed=is_packed, unknown=encoder.UNKNOWN)
    accepted = set()
    for stop in range(len(data)):
        try:
            layers = _read(tmp_path, data[:stop])
        except errors.InputError:
            continue
        _assert_equal(layers, {name: small[name] for name in layers})
        accepted.add(len(layers))
    assert accepted == {1, 2}  # cut between two layers, and before the last, without weights


def test_damaged_bytes_raise_nothing_else(tmp_path):
    data = b"".join(
        encoder.net({form: [_floats([[1, 2, 3]])]}, form, is_packed=form == "new")
        for form in encoder.FORMS
    )
    rng = np.random.default_rng(1)
    outcomes = []
    for _ in range(1000):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(0, len(data), 2)] = rng.integers(0, 256, 2)
        try:
            outcomes.append(len(_read(tmp_path, damaged.tobytes())))
        except errors.InputError:
            outcomes.append(0)
    assert min(outcomes.count(0), outcomes.count(3)) > 100


def _one_blob(content):
    return encoder.layer("new", "fc8", [content])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "hold no layer with weights"),
        (encoder.net({}), "hold no layer with weights"),
        (b"<!DOCTYPE html>", "damaged or no .caffemodel: a field of wire type 4 at byte 0"),
        (b'name: "net"\n', "damaged or no .caffemodel: a field of wire type 6 at byte 0"),
        (b"\x00\x00\x00", "no .caffemodel: a field of number 0 at byte 0"),
        (b"\xff" * 20, "a number of more than 10 bytes at byte 0"),
        (_one_blob(encoder.blob([1, 2]) + encoder.floats(5, [3])),
         r"layer fc8: a blob of shape \(2,\) holds 3 values"),
        (_one_blob(encoder.number(1, 2) + encoder.floats(5, [3])),
         r"layer fc8: a blob of shape \(2, 0, 0, 0\) holds 1 values"),
        (_one_blob(encoder.block(7, encoder.number(1, 1) * 70) + encoder.floats(5, [3])),
         "layer fc8: a blob of shape .* holds 1 values"),
        (_one_blob(encoder.block(7, encoder.number(1, 2**63))), "holds 0 values"),
        (_one_blob(encoder.block(5, b"12345")), "layer fc8: 5 bytes of numbers of 4 bytes"),
        (_one_blob(encoder.block(5, b"1234")[:-1]) + encoder.UNKNOWN,
         r"layer fc8: it ends within the field at byte 36"),
        (_one_blob(encoder.blob([1])) * 2, "layer fc8 is there twice"),
        (encoder.block(100, encoder.block(1, b"\xff") + encoder.block(7, b"")), "no text at byte"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path, data, reason):
    with pytest.raises(errors.InputError, match=reason) as caught:
        _read(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(errors.InputError, match="cannot be read"):
            caffe.read_caffemodel(str(path))


def test_many_unpacked_numbers_are_quick(tmp_path):
    """One by one, four million would take many seconds."""
    values = np.arange(4_000_000, dtype="<f4")
    items = np.empty(values.size, np.dtype([("key", "u1"), ("value", "<f4")]))
    items["key"], items["value"] = 5 * 8 + 5, values
    blob = encoder.block(7, encoder.number(1, values.size)) + items.tobytes()
    np.testing.assert_array_equal(_read(tmp_path, _one_blob(blob))["fc8"][0], values)


def test_the_encoder_of_these_tests():
    """Pairs of options must give different bytes, or a test above tests nothing."""
    options = itertools.product(encoder.FORMS, [True, False], [True, False], [True, False])
    files = [
        encoder.net(LAYERS, f, is_packed=p, is_legacy=s, is_double=d) for f, p, s, d in options
    ]
    assert len(set(files)) == len(files)
