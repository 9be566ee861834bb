"""The training step beside torch's: eager, channels_last and compiled; images a second.

    python -m benchmarks.training_step --output=docs/results/speed_training.json

Each trains the same network on the same uint8 images already on the device: subtract the mean,
forward, cross entropy, backward, SGD with momentum and weight decay. Ours mirrors images at random
and measures the gradient as well. The limit is its floating-point operations as a large square
matrix product.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import spp_jax
from benchmarks import peers, timing
from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.training import programs, schedule, steps
from spp_jax.training import state as state_lib

_CASES = flags.DEFINE_list(
    "cases", ["zf5:224", "zf5:180", "overfeat7:224"], "Networks and sides of their images."
)
_DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of the networks.")
_BATCH = flags.DEFINE_integer("batch", 0, "Images of a step; 0 is 16 on CPUs, else 128.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each is run, in turns.", lower_bound=1)
_COMPILE = flags.DEFINE_bool("compile", True, "Whether to time torch.compile as well.")
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

NUM_CLASSES = 1000


class Ours:
    """The project's step; each call trains on."""

    def __init__(self, name: str, side: int, dtype: str, count: int, deterministic: bool = False):
        model = spp_jax.make_model(name, num_classes=NUM_CLASSES, dtype=dtype)
        train = config_lib.TrainConfig()
        optimizer = schedule.make_optimizer(train, 1000)
        step = steps.make_train_step(model, optimizer, seed=0, flip=True, color_noise=0.0)
        mesh = sharding.make_mesh()
        self._state = state_lib.init_state(model, optimizer, 0, model.backbone.size, mesh, {})
        spec = {
            "image": ((count, side, side, 3), np.uint8),
            "label": ((count,), np.int32),
            "weight": ((count,), np.float32),
        }
        images = np.random.default_rng(0).integers(0, 256, spec["image"][0]).astype(np.uint8)
        labels = np.arange(count, dtype=np.int32) % NUM_CLASSES
        weights = np.ones(count, np.float32)
        batch = {"image": images, "label": labels, "weight": weights}
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


class Torch:
    """torch's step; each call trains on."""

    def __init__(
        self, name: str, side: int, dtype: str, count: int, layout: str, is_compiled: bool
    ):
        torch = peers.torch
        backbone = spp_jax.make_model(name).backbone
        layouts = {"last": torch.channels_last, "first": torch.contiguous_format}
        network = peers.network(backbone, NUM_CLASSES).to(memory_format=layouts[layout])
        self._optimizer = torch.optim.SGD(
            network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, fused=None
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

        self._loss = torch.compile(loss) if is_compiled else loss

    def __call__(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(self._images, self._labels).backward()
        self._optimizer.step()


def make_case(name: str, side: int, dtype: str, count: int) -> timing.Case:
    """Returns a network's step at one size."""
    ours = Ours(name, side, dtype, count)
    rivals = {}
    if peers.HAS_TORCH:
        kinds = {"torch": ("first", False), "torch channels_last": ("last", False)}
        if _COMPILE.value:
            kinds["torch.compile channels_last"] = ("last", True)
        for kind, (layout, is_compiled) in kinds.items():
            peer = Torch(name, side, dtype, count, layout, is_compiled)
            rivals[kind] = timing.Run(peers.waited(peer))
    if jax.default_backend() == "gpu":
        deterministic = Ours(name, side, dtype, count, deterministic=True)
        rivals["ours, deterministic"] = timing.Run(deterministic)
    product = 4096 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((product, product), dtype)
    multiply = jax.jit(
        functools.partial(jnp.matmul, precision="highest" if dtype == "float32" else None)
    )
    limit = None
    if ours.program.flops:
        limit = timing.Run(lambda: multiply(square, square), ours.program.flops / (2 * product**3))
    return timing.Case(f"{name} {side} {dtype}", timing.Run(ours), rivals, limit)


def main(_: list[str]) -> None:
    count = _BATCH.value or (16 if jax.default_backend() == "cpu" else 128)
    rows = []
    for dtype in _DTYPES.value:
        for case in _CASES.value:
            name, side = case.split(":")
            row = timing.measure(make_case(name, int(side), dtype, count), _ROUNDS.value)
            speeds = {kind: round(count / t, 1) for kind, t in row["seconds"].items()}
            print(f"{row['case']}, images/s: {speeds}", flush=True)
            rows.append(row | {"images_per_second": speeds})
    what = f"a step of {count}"
    timing.report(rows, what, "python -m benchmarks.training_step", _OUTPUT.value)


if __name__ == "__main__":
    timing.run(main)
