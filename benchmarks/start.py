"""Seconds from the start of eval.py to its end, and programs compiled for images of random sizes.

    python -m benchmarks.start --output=docs/results/speed_start.json

A network with random weights scores one image of each of four sizes, whole, as a user would: with
an empty compilation cache, then with the one that run left. Then features of many images, each of a
random size, are taken in one process that counts what XLA compiles.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

import spp_jax
from benchmarks import facts, timing
from spp_jax import checkpoint, network
from spp_jax import config as config_lib
from spp_jax.evaluation import features

_NETWORK = flags.DEFINE_string("network", "googlenet", "A name of spp_jax.make_model.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times the warm start is run.", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 10_000, "Images of random sizes.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "", "JSON to write.")

SIZES = ((224, 224), (224, 288), (224, 352), (288, 224))
EVENT = "/jax/core/compile/backend_compile_duration"


def write_network(workdir: str, name: str) -> None:
    """Writes a checkpoint of a network with random weights, of two classes."""
    config = config_lib.Config()
    config.model.name = name
    config.data.name = "folder"
    if name == "googlenet":
        config.model.levels, config.model.reduce = (1,), "mean"
    model = network.make(config.model, 2)
    images = jnp.zeros((1, model.backbone.size, model.backbone.size, 3), jnp.uint8)
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    meta = checkpoint.Meta(0, config, ("a", "b"), 0, {})
    checkpoint.save_network(workdir, {"params": params}, meta)


def write_images(folder: str) -> None:
    """Writes one image of each size, in two class folders."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        path = os.path.join(folder, "ab"[number % 2])
        os.makedirs(path, exist_ok=True)
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(image).save(os.path.join(path, f"{number}.png"))


def time_eval(workdir: str, folder: str, cache: str) -> float:
    """Returns the seconds of one eval.py."""
    command = [sys.executable, "eval.py", f"--workdir={workdir}", "--protocol=full"]
    command += [f"--config.data.path={folder}", "--config.data.shorter_side=224"]
    command += ["--config.data.held_out=0.999", "--config.eval.batch_size=1"]
    start = time.perf_counter()
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@contextlib.contextmanager
def count_compilations() -> Iterator[list[float]]:
    """Gives a list that gets the seconds of each program XLA compiles meanwhile."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **_: object) -> None:
        if event == EVENT:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def count_programs(num_images: int) -> dict[str, int]:
    """Returns how many programs are compiled for images of random sizes, the first time and again.

    Sizes are 40 to 103 pixels a side, so that ten thousand images do not take an hour.
    """
    model = spp_jax.make_model("digits")
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.uint8))
    sizes = np.random.default_rng(0).integers(40, 104, (num_images, 2)).tolist()
    images = [np.zeros((height, width, 3), np.uint8) for height, width in sizes]
    counts = {"sizes": len(set(map(tuple, sizes)))}
    for name in ("compiled", "compiled again"):
        with count_compilations() as compilations:
            features.extract(model, variables, images, "conv5", (2, 1), scale=None)
        counts[name] = len(compilations)
    return counts


def main(_: list[str]) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    with tempfile.TemporaryDirectory() as folder:
        workdir, photos = os.path.join(folder, "network"), os.path.join(folder, "photos")
        cache = os.path.join(folder, "cache")
        write_network(workdir, _NETWORK.value)
        write_images(photos)
        cold = time_eval(workdir, photos, cache)
        warm = [time_eval(workdir, photos, cache) for _ in range(_ROUNDS.value)]
    programs = count_programs(_IMAGES.value)
    print("| start of eval.py, s | cold | warm: median, least-greatest |")
    print("|---|---|---|")
    spread = f"{statistics.median(warm):.1f}, {min(warm):.1f}-{max(warm):.1f}"
    print(f"| {_NETWORK.value}, {len(SIZES)} sizes | {cold:.1f} | {spread} |")
    print(f"{_IMAGES.value} images of {programs['sizes']} random sizes: {programs}", flush=True)
    if _OUTPUT.value:
        result = facts.facts(timing.given("python -m benchmarks.start"), "jax", "flax")
        device = jax.devices()[0].device_kind
        result |= {"device": device, "network": _NETWORK.value, "cold": cold, "warm": warm}
        facts.write(_OUTPUT.value, result | {"programs": programs})


if __name__ == "__main__":
    timing.run(main)
