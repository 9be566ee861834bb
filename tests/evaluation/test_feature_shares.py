"""Features that several processes make: shares are joined, whoever left them and however."""

import json
import os

import numpy as np
import pytest

from spp_jax import errors
from spp_jax.evaluation import feature_files, feature_shares

FACTS = {"dtype": "float32", "layers": ["conv5"]}
IMAGES = feature_files.Description({i: (f"{i:02}.png", i % 2) for i in range(0, 20, 2)}, ("a", "b"))
VALUES = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def _leave_share(output, number, indices, refused=None):
    """Leaves what a process makes that dies after these images."""
    others = feature_shares.Unfinished(output, FACTS, IMAGES, 3, None)
    share = others.open_share(indices)
    with share:
        share.write(indices[:-1], VALUES[indices[:-1]])
        share.note(indices[-1], refused or "")
    for suffix in (".part", ".json"):
        os.rename(f"{output}.part/share-0{suffix}", f"{output}.part/share-{number}{suffix}")


def test_shares_are_joined_and_what_is_missing_is_done(tmp_path):
    output = str(tmp_path / "x.npz")
    with feature_shares.unfinished(output, FACTS, IMAGES, 3) as unfinished:
        assert unfinished.done == set()
        with unfinished.open_share([0, 2]) as own:
            own.write([0, 2], VALUES[[0, 2]])
    _leave_share(output, 1, [4, 6, 8])
    _leave_share(output, 7, [10, 12, 14], refused="14.png: cannot be read")
    with feature_shares.unfinished(output, FACTS, IMAGES, 3) as unfinished:
        assert unfinished.done == {0, 2, 4, 6, 10, 12}
        with unfinished.open_share([8, 16, 18]) as own:
            own.write([8, 16, 18], VALUES[[8, 16, 18]])
        extracted = unfinished.finish(["head"], {})
    assert extracted.indices.tolist() == [0, 2, 4, 6, 8, 10, 12, 16, 18]
    np.testing.assert_array_equal(extracted.features, VALUES[extracted.indices])
    assert extracted.refused == ("head", "14.png: cannot be read")
    assert not (tmp_path / "x.npz.part").exists()


def test_damaged_shares_are_computed_again_or_refused(tmp_path):
    output = str(tmp_path / "x.npz")
    with feature_shares.unfinished(output, FACTS, IMAGES, 3):
        pass
    _leave_share(output, 3, [4, 6, 8])
    features = tmp_path / "x.npz.part" / "share-3.part" / "features.npy"
    features.write_bytes(features.read_bytes()[:-30] + b"x" + features.read_bytes()[-29:])
    with feature_shares.unfinished(output, FACTS, IMAGES, 3) as unfinished:
        assert unfinished.done == {6}  # the first row of three was damaged
    _leave_share(output, 3, [4, 6, 8])
    (tmp_path / "x.npz.part" / "share-3.json").write_text(json.dumps([4, 5]))
    with (
        pytest.raises(errors.InputError, match=r"share-3\.part is damaged; remove it"),
        feature_shares.unfinished(output, FACTS, IMAGES, 3),
    ):
        pass


def test_a_share_that_had_not_begun_is_removed(tmp_path):
    output = str(tmp_path / "x.npz")
    (tmp_path / "x.npz.part").mkdir()
    with feature_shares.unfinished(output, FACTS, IMAGES, 3):
        (tmp_path / "x.npz.part" / "share-1.json").write_text("[4, 6]")
    with feature_shares.unfinished(output, FACTS, IMAGES, 3) as unfinished:
        assert unfinished.done == set()
    assert not list((tmp_path / "x.npz.part").glob("share-*"))
