"""torch beside us, where it is installed, on the same kind of device, with its own threads."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spp_jax.models import topology

torch: Any
try:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TensorFloat-32, as JAX
        torch.backends.cudnn.benchmark = True
except ImportError:
    torch = None
    print("torch is not installed: no peers of it (pip install torch==2.13.0)")

try:
    from torchvision.ops import roi_pool  # pyright: ignore[reportMissingImports]
except (ImportError, RuntimeError):  # the latter beside a torch it was not built for
    roi_pool: Any = None


def has_torch() -> bool:
    """Returns whether torch is here, and reaches the GPU where JAX has one."""
    return torch is not None and (jax.default_backend() == "cpu" or torch.cuda.is_available())


def device() -> str:
    """Returns torch's name of the kind of device JAX uses."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def tensor(array: Any, dtype: str = "float32") -> Any:
    """Returns an array as a tensor on the device; (N, H, W, C) as channels_last (N, C, H, W)."""
    placed = torch.from_numpy(np.array(array, np.float32)).to(device(), getattr(torch, dtype))
    return placed.permute(0, 3, 1, 2) if placed.ndim == 4 else placed


def waited(call: Callable[[], Any]) -> Callable[[], None]:
    """Returns what calls and waits for the device."""

    def run() -> None:
        call()
        if device() == "cuda":
            torch.cuda.synchronize()

    return run


def forward_backward(function: Callable[[Any], Any], x: Any) -> Any:
    """Returns a call of a function of a tensor and its gradient, all of ones."""
    x = x.detach().requires_grad_()
    ones = torch.ones_like(function(x))

    def run() -> None:
        function(x).backward(ones)
        x.grad = None

    return waited(run)


def pyramid(x: Any, levels: tuple[int, ...] = (6, 3, 2, 1)) -> Any:
    """Pools (N, C, H, W) to (N, B * C), in torch's order of channels."""
    pool = torch.nn.functional.adaptive_max_pool2d
    return torch.cat([pool(x, n).flatten(1) for n in levels], 1)


def network(backbone: topology.Backbone, num_classes: int) -> Any:
    """Returns a backbone of plain layers with the pyramid and its head, as a torch module."""
    nn = torch.nn

    class Pyramid(nn.Module):
        def forward(self, x: Any) -> Any:
            return pyramid(x)

    class Normalize(nn.Module):
        def __init__(self, layer: topology.LRN):
            super().__init__()
            self.layer = layer

        def forward(self, x: Any) -> Any:
            layer = self.layer
            squares = nn.functional.avg_pool2d(x * x, layer.size, 1, layer.size // 2)
            return x * (layer.k + layer.alpha * squares).pow(-layer.beta)

    layers, channels = [], 3
    for layer in backbone.layers:
        if isinstance(layer, topology.Conv):
            conv = nn.Conv2d(channels, layer.features, layer.kernel, layer.stride, layer.padding)
            layers += [conv, nn.ReLU(inplace=True)]
            channels = layer.features
        elif isinstance(layer, topology.MaxPool):
            layers.append(nn.MaxPool2d(layer.window, layer.stride, layer.padding, ceil_mode=True))
        elif isinstance(layer, topology.LRN) and layer.kind == "within":
            layers.append(Normalize(layer))
        else:
            raise ValueError(f"no torch peer of {layer}")
    layers.append(Pyramid())
    width = 50 * channels
    for hidden in backbone.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout()]
        width = hidden
    layers.append(nn.Linear(width, num_classes))
    peer = nn.Sequential(*layers).to(device())
    for parameter in peer.parameters():
        nn.init.normal_(parameter, 0, 0.01)
    return peer
