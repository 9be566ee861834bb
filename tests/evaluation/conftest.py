"""A network, images and a file of their features, and an extraction that is interrupted."""

import pytest

from spp_jax.data.sources import folders as folders_lib
from spp_jax.evaluation import extraction, features
from tests import folders
from tests.evaluation import extractions
from tests.support import networks


@pytest.fixture(scope="module")
def network():
    return networks.small()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folders.make_folder(tmp_path_factory.mktemp("images"), {"train": 6, "val": 4})


@pytest.fixture(scope="module")
def whole(network: networks.Network, folder, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("whole") / "x.npz")
    extraction.extract_to(output, *network, folders_lib.scan_images(folder), extractions.request())
    return output


@pytest.fixture
def interrupt(monkeypatch):
    """Ctrl-C after two batches, once; collects the batches that are computed."""
    computed = []
    compute = features.compute

    def interrupted(*args, **options):
        for batch, values in compute(*args, **options):
            if len(computed) == 2:
                computed.append(None)
                raise KeyboardInterrupt
            computed.append(batch)
            yield batch, values

    monkeypatch.setattr(features, "compute", interrupted)
    return computed
