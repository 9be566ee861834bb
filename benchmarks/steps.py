"""Training steps to time: the project's, and torch's of the same network."""

from typing import Any

import numpy as np

import spp_jax
from benchmarks import peers
from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.models import topology
from spp_jax.training import programs, schedule
from spp_jax.training import state as state_lib
from spp_jax.training import steps as steps_lib

NUM_CLASSES = 1000

# For dry runs: one layer of each kind, so that it is compiled quickly.
TINY = topology.Backbone(
    name="tiny",
    layers=(
        topology.Conv("conv1", 8, 5, stride=4),
        topology.LRN("norm1"),
        topology.MaxPool("pool1", 2, 2),
        topology.Conv("conv2", 8, 3, padding=1),
    ),
    size=48,
    hidden=(16,),
    hidden_bias=0.0,
    kernel_std=None,
    scale=1 / 64,
)


def make_model(name: str, **options: Any) -> spp_jax.SPPNet:
    """Returns a network as `spp_jax.make_model`, whose name may also be "tiny"."""
    return spp_jax.make_model(TINY if name == TINY.name else name, **options)


class Ours:
    """The project's step; each call trains on."""

    def __init__(self, name: str, side: int, dtype: str, count: int, deterministic: bool = False):
        model = make_model(name, num_classes=NUM_CLASSES, dtype=dtype)
        train = config_lib.TrainConfig()
        optimizer = schedule.make_optimizer(train, 1000)
        step = steps_lib.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0.0)
        mesh = sharding.make_mesh()
        self._state = state_lib.init_state(model, optimizer, 0, model.backbone.size, mesh)
        spec = {
            "image": ((count, side, side, 3), np.uint8),
            "label": ((count,), np.int32),
            "weight": ((count,), np.float32),
        }
        images = np.random.default_rng(0).integers(0, 256, spec["image"][0]).astype(np.uint8)
        labels = np.arange(count, dtype=np.int32) % NUM_CLASSES
        weights = np.ones(count, np.float32)
        batch = {"image": images, "label": labels, "weight": weights}
        self._mesh = mesh
        self._batch = sharding.put_batch(batch, mesh)
        compiled = programs.compile_programs(
            step,
            state_lib.state_spec(self._state),
            [side],
            lambda _: spec,
            mesh,
            deterministic=deterministic,
        )
        self.program = compiled[side]

    def __call__(self) -> Any:
        self._state, metrics = self.program.run(self._state, self._batch)
        return metrics

    def train_on(self, batch: dict[str, np.ndarray]) -> Any:
        """Trains on a batch of the host's."""
        self._batch = sharding.put_batch(batch, self._mesh)
        return self()


class Torch:
    """torch's step; each call trains on."""

    def __init__(
        self, name: str, side: int, dtype: str, count: int, layout: str, is_compiled: bool
    ):
        torch = peers.torch
        backbone = make_model(name).backbone
        layouts = {"last": torch.channels_last, "first": torch.contiguous_format}
        network = peers.network(backbone, NUM_CLASSES).to(memory_format=layouts[layout])
        self._optimizer = torch.optim.SGD(
            network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4
        )
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (count, 3, side, side)).astype(np.uint8)
        self._images = torch.from_numpy(images).to(peers.device()).to(memory_format=layouts[layout])
        self._labels = (torch.arange(count) % NUM_CLASSES).to(peers.device())
        mean = torch.tensor(backbone.mean, device=peers.device()).reshape(1, 3, 1, 1)
        cast = torch.autocast(peers.device(), torch.bfloat16, enabled=dtype == "bfloat16")

        def loss(images: Any, labels: Any) -> Any:
            with cast:
                logits = network(images - mean)
            return torch.nn.functional.cross_entropy(logits.float(), labels)

        # One size a program, as ours; dynamic shapes are several times as slow.
        self._loss = torch.compile(loss, dynamic=False) if is_compiled else loss

    def __call__(self) -> None:
        self._loss(self._images, self._labels).backward()
        self._optimizer.step()
        # Given back at once, not at the next call: what runs in between is then not in its way.
        self._optimizer.zero_grad(set_to_none=True)
