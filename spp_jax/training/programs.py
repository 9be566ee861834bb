"""Compiles one training program per size before the first step: section 2.3's two networks."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from spp_jax import sharding
from spp_jax.runs import signals
from spp_jax.training import state as state_lib
from spp_jax.training import steps

# The side of square images, or the (height, width) of a canvas, pixels.
Size = int | tuple[int, int]

# XLA compiles one program on several cores, but not all the time; a few at once use the rest.
_COMPILED_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled training step of one size, and its costs.

    Attributes:
        size: side of its images, or (height, width) of their canvas, pixels.
        run: (state, batch) -> (state, metrics); the old state's memory is reused.
        seconds: time that compiling took.
        flops: operations of a step on all devices; None if XLA does not count them.
        bytes: peak memory of a step on one device; None if XLA does not report it.
    """

    size: Size
    run: Any
    seconds: float
    flops: float | None
    bytes: int | None


def compile_programs(
    step: steps.TrainStep,
    spec: state_lib.TrainState,
    sizes: Iterable[Size],
    batch_spec: Callable[[Size], dict[str, tuple[tuple[int, ...], Any]]],
    mesh: Mesh,
    *,
    deterministic: bool = False,
    stop: signals.Stop | None = None,
) -> dict[Size, Program]:
    """Returns {size: its program}, one for each distinct size, or fewer where asked to stop.

    A batch of any other shape is then an error and never a silent recompilation.

    Args:
        step: of `steps.make_train_step`.
        spec: shapes and shardings of the state, from `state_spec`.
        sizes: sides of the square images, or canvases.
        batch_spec: size -> {name: (shape, dtype)} of the batch of all devices.
        mesh: its devices share the batch.
        deterministic: forbid operations whose result depends on the order of threads (GPU).
        stop: ends the work after the programs under way.
    """
    options = compiler_options(mesh, deterministic=deterministic)

    def compile_one(size: Size) -> Program | None:
        if stop is not None and stop.signal is not None:
            return None
        split = sharding.split(mesh)
        batch = {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=split)
            for name, (shape, dtype) in batch_spec(size).items()
        }
        whole = sharding.replicated(mesh)
        start = time.monotonic()
        jitted = jax.jit(step, donate_argnums=0, out_shardings=whole)
        # Layers find the mesh, to sum their gradients over its devices in float32.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            lowered = jitted.lower(spec, batch)
        run = lowered.compile(compiler_options=options)
        seconds = time.monotonic() - start
        cost, memory = run.cost_analysis(), run.memory_analysis()
        return Program(
            size,
            run,
            seconds,
            # XLA counts one device's share.
            flops=cost["flops"] * mesh.size if cost and "flops" in cost else None,
            bytes=_peak_bytes(memory) if memory else None,
        )

    with concurrent.futures.ThreadPoolExecutor(_COMPILED_AT_ONCE) as pool:
        distinct = sorted(set(sizes), key=np.prod, reverse=True)
        return {p.size: p for p in pool.map(compile_one, distinct) if p is not None}


def compiler_options(mesh: Mesh, *, deterministic: bool) -> dict[str, Any]:
    """Returns the options a step is compiled with; on CPUs there are none."""
    if mesh.devices.flat[0].platform != "gpu":
        return {}
    options: dict[str, Any] = {"xla_gpu_deterministic_ops": True} if deterministic else {}
    if mesh.size > 1:
        # Sums over devices then run while the gradients of earlier layers are computed.
        options["xla_gpu_enable_latency_hiding_scheduler"] = True
    return options


def _peak_bytes(memory: Any) -> int:
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return arguments + memory.temp_size_in_bytes - memory.alias_size_in_bytes
