"""Damage to finished and unfinished files of features is refused by name."""

import contextlib
import json

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.data.sources import folders as folders_lib
from spp_jax.evaluation import extraction
from tests.evaluation import extractions
from tests.support import networks


def _flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x.npy", "its features are not as saved"), ("x.npy.json", "its entries are not as saved")],
)
def test_a_flipped_bit_of_features_is_refused(
    network: networks.Network, folder, tmp_path, name, reason
):
    output, source = str(tmp_path / "x.npy"), folders_lib.scan_images(folder)
    extraction.extract_to(output, *network, source, extractions.request())
    _flip(tmp_path / name, -3 if name == "x.npy" else (tmp_path / name).read_text().index("dark"))
    with pytest.raises(errors.InputError, match=rf"x.npy is there and is damaged, .*{reason}"):
        extraction.extract_to(output, *network, source, extractions.request())


def test_features_of_versions_without_checksums(network: networks.Network, folder, tmp_path):
    output, source = str(tmp_path / "x.npy"), folders_lib.scan_images(folder)
    extracted = extraction.extract_to(output, *network, source, extractions.request())
    beside = json.loads((tmp_path / "x.npy.json").read_text())
    del beside["crc32"], beside["metadata"]["features_crc32"]
    (tmp_path / "x.npy.json").write_text(json.dumps(beside))
    with pytest.warns(errors.InputWarning, match=r"x.npy.json is of a version without checksums"):
        again = extraction.extract_to(output, *network, source, extractions.request())
    np.testing.assert_array_equal(again.features, extracted.features)


@pytest.mark.parametrize("name", ["features.npy", "done.npy"])
def test_rows_that_are_not_as_saved_are_computed_again(
    network: networks.Network, folder, tmp_path, interrupt, name
):
    output, source = str(tmp_path / "x.npy"), folders_lib.scan_images(folder)
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_to(output, *network, source, extractions.request())
    part = tmp_path / "x.npy.part"
    is_done = np.load(part / "done.npy") > 0
    at = 128 + 8 * int(np.argmax(is_done))  # behind the header
    if name == "features.npy":
        at = 128 + 4 * (5 * 96 + 256) * int(np.argmax(is_done))
    _flip(part / name, at)
    again = extraction.extract_to(output, *network, source, extractions.request())
    whole = extraction.extract_to(str(tmp_path / "y.npy"), *network, source, extractions.request())
    np.testing.assert_array_equal(again.features, whole.features)
    assert interrupt


def test_a_damaged_state_of_unfinished_features_is_refused(
    network: networks.Network, folder, tmp_path, interrupt
):
    output, source = str(tmp_path / "x.npy"), folders_lib.scan_images(folder)
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_to(output, *network, source, extractions.request())
    state = tmp_path / "x.npy.part/state.json"
    _flip(state, state.read_text().index("facts"))
    with pytest.raises(errors.InputError, match=r"x.npy.part is damaged; remove it"):
        extraction.extract_to(output, *network, source, extractions.request())
    assert interrupt


@pytest.mark.parametrize("name", ["features.npy", "done.npy"])
def test_links_in_the_place_of_unfinished_features_are_not_followed(
    network: networks.Network, folder, tmp_path, interrupt, name
):
    output, source = str(tmp_path / "x.npy"), folders_lib.scan_images(folder)
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_to(output, *network, source, extractions.request())
    theirs = tmp_path / "theirs.npy"
    (tmp_path / "x.npy.part" / name).rename(theirs)
    (tmp_path / "x.npy.part" / name).symlink_to(theirs)
    before = theirs.read_bytes()
    is_refused = name == "features.npy"  # done.npy is read, and put in its place anew
    refused = pytest.raises(errors.InputError, match=r"x.npy.part is damaged; remove it")
    with refused if is_refused else contextlib.nullcontext():
        extraction.extract_to(output, *network, source, extractions.request())
    assert theirs.read_bytes() == before
    assert interrupt


def test_unfinished_features_of_versions_without_checksums(
    network: networks.Network, folder, whole, tmp_path, interrupt
):
    output, source = str(tmp_path / "x.npy"), folders_lib.scan_images(folder)
    with pytest.raises(KeyboardInterrupt):
        extraction.extract_to(output, *network, source, extractions.request())
    part = tmp_path / "x.npy.part"
    np.save(part / "done.npy", np.load(part / "done.npy") > 0)
    with pytest.warns(errors.InputWarning, match=r"done.npy is of a version without checksums"):
        extracted = extraction.extract_to(output, *network, source, extractions.request())
    with np.load(whole) as archive:
        np.testing.assert_array_equal(extracted.features, archive["features"])
    assert sorted(i for batch in interrupt if batch for i in batch.indices) == list(range(20))
