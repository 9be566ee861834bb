"""GoogLeNet and SqueezeNet, imported, against torch, map by map.

The peers are written from the published prototxts and read the files themselves: BGR, NCHW, the
mean subtracted, pools in ceil mode.
"""

import pathlib

import jax
import numpy as np
import pytest

from spp_jax import network
from spp_jax.interop import conversion, pretrained, weights

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
WEIGHTS = SHARED / "weights"
MEAN_BGR = (104, 117, 123)

pytestmark = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="../shared/data/weights is not there")


class _Peer:
    """Layers in torch, by name, and the map each one made."""

    def __init__(self, torch, path, images):
        self.torch, self.functional = torch, torch.nn.functional
        with np.load(path) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        x = images[..., ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
        self.maps = {"data": torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))}

    def conv(self, name, bottom, stride=1, padding=0):
        kernel = np.ascontiguousarray(self.arrays[f"{name}/kernel"].transpose(3, 2, 0, 1))
        y = self.functional.conv2d(
            self.maps[bottom],
            self.torch.from_numpy(kernel),
            self.torch.from_numpy(self.arrays[f"{name}/bias"]),
            stride,
            padding,
        )
        self.maps[name] = self.functional.relu(y)
        return name

    def pool(self, name, bottom, window=3, stride=2, padding=0):
        self.maps[name] = self.functional.max_pool2d(
            self.maps[bottom], window, stride, padding, ceil_mode=True
        )
        return name

    def lrn(self, name, bottom):
        self.maps[name] = self.functional.local_response_norm(self.maps[bottom], 5, 1e-4, 0.75, 1.0)
        return name

    def concat(self, name, bottoms):
        self.maps[name] = self.torch.cat([self.maps[bottom] for bottom in bottoms], dim=1)
        return name

    def same(self, name, bottom):
        """A block's output: its last layer's."""
        self.maps[name] = self.maps[bottom]
        return name


def _googlenet(net):
    top = net.same("conv1", net.conv("conv1/7x7_s2", "data", stride=2, padding=3))
    top = net.same("pool1", net.lrn("pool1/norm1", net.pool("pool1/3x3_s2", top)))
    top = net.conv("conv2/3x3", net.conv("conv2/3x3_reduce", top), padding=1)
    top = net.same("conv2", net.lrn("conv2/norm2", top))
    top = net.same("pool2", net.pool("pool2/3x3_s2", top))
    for name in ("3a", "3b", "pool3", "4a", "4b", "4c", "4d", "4e", "pool4", "5a", "5b"):
        if name.startswith("pool"):
            top = net.same(name, net.pool(f"{name}/3x3_s2", top))
            continue
        block = f"inception_{name}"
        branches = [
            net.conv(f"{block}/1x1", top),
            net.conv(f"{block}/3x3", net.conv(f"{block}/3x3_reduce", top), padding=1),
            net.conv(f"{block}/5x5", net.conv(f"{block}/5x5_reduce", top), padding=2),
            net.conv(f"{block}/pool_proj", net.pool(f"{block}/pool", top, 3, 1, padding=1)),
        ]
        top = net.concat(block, branches)
    net.maps["pool"] = net.maps[top].mean((2, 3))
    kernel, bias = (net.arrays[f"loss3/classifier/{kind}"] for kind in ("kernel", "bias"))
    net.maps["logits"] = net.maps["pool"] @ net.torch.from_numpy(kernel)
    net.maps["logits"] += net.torch.from_numpy(bias)


def _squeezenet(net):
    top = net.pool("pool1", net.conv("conv1", "data", stride=2))
    for number in range(2, 10):
        fire = f"fire{number}"
        squeezed = net.conv(f"{fire}/squeeze1x1", top)
        expanded = [
            net.conv(f"{fire}/expand1x1", squeezed),
            net.conv(f"{fire}/expand3x3", squeezed, padding=1),
        ]
        top = net.concat(fire, expanded)
        if number in (3, 5):
            top = net.pool(f"pool{number}", top)
    net.conv("conv10", top)
    net.maps["pool"] = net.maps["logits"] = net.maps["conv10"].mean((2, 3))


def _images(size):
    image_lib = pytest.importorskip("PIL.Image")
    crops = []
    for path in sorted((SHARED / "imagenet_samples").iterdir())[:2]:
        with image_lib.open(path) as image:
            crops.append(np.asarray(image.convert("RGB").resize((size, size))))
    return np.stack(crops)


@pytest.mark.parametrize(
    ("name", "file", "run", "size"),
    [
        pytest.param(
            "googlenet", "bvlc_googlenet_hwio_bgr.npz", _googlenet, 224, marks=pytest.mark.slow
        ),
        ("squeezenet1_1", "squeezenet1_1_hwio_bgr.npz", _squeezenet, 227),
    ],
)
def test_every_map_is_torchs(name, file, run, size):
    torch = pytest.importorskip("torch")
    images = _images(size)
    peer = _Peer(torch, WEIGHTS / file, images)
    run(peer)
    del peer.maps["data"]
    model = network.make(pretrained.make_config(name, 1000).model, 1000)
    params = conversion.to_params(model, weights.read_weights(str(WEIGHTS / file)))
    maps = jax.jit(lambda v, x: model.apply(v, x, method="maps"))({"params": params}, images)
    assert set(maps) == set(peer.maps)
    for layer, expected in peer.maps.items():
        expected = expected.numpy()
        if expected.ndim == 4:
            expected = expected.transpose(0, 2, 3, 1)
        # Sums of float32 in another order, through up to 22 layers.
        np.testing.assert_allclose(
            maps[layer], expected, rtol=0, atol=1e-5 * abs(expected).max(), err_msg=layer
        )
