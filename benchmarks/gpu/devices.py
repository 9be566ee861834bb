"""Descriptions of GPUs that are not there, and a compiler for them.

XLA compiles for a described device or a cluster of them: the program is the real one, but for the
choices that its autotuner would make by timing on the device.
"""

import dataclasses
import importlib.util
import os
import pkgutil
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from spp_jax import errors

# What a large copy reaches of the vendor's peak bandwidth, and a large product of its operations.
BANDWIDTH_SHARE, OPERATIONS_SHARE = 0.9, 0.8

# Autotuning needs the device. Without it products fail to compile unless these are off; XLA calls
# cublasLt for some of them all the same.
_FLAGS = (
    "--xla_gpu_autotune_level=0",
    "--xla_gpu_enable_triton_gemm=false",
    "--xla_gpu_enable_cublaslt=false",
)

_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {optin}
  shared_memory_per_core: {shared}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock}
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} device_memory_size: {memory}
  cuda_compute_capability {{ major: {capability} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "NVIDIA {name}"
"""


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU as its vendor describes it.

    Attributes:
        name: of the vendor.
        bandwidth: peak of its memory, bytes a second.
        peak: matrix operations a second, without sparsity: {"bfloat16": ..., "float32": ...}; those
            of float32 are TensorFloat-32, as is JAX's default there.
        details: what else the compiler asks: cores, floating-point units of a core, clock in GHz,
            bytes of shared memory, cache and memory, and the compute capability.
    """

    name: str
    bandwidth: float
    peak: dict[str, float]
    details: dict[str, Any]

    def seconds(self, num_bytes: float, operations: float, dtype: str) -> tuple[float, float]:
        """Returns the times, in seconds, of moving bytes and of computing operations at best."""
        moving = num_bytes / (BANDWIDTH_SHARE * self.bandwidth)
        return moving, operations / (OPERATIONS_SHARE * self.peak[dtype])

    @property
    def description(self) -> str:
        """The text that XLA takes for a device that is not there."""
        return _DESCRIPTION.format(name=self.name, bandwidth=round(self.bandwidth), **self.details)


_HOPPER = {
    **{"cores": 132, "units": 128, "clock": 1.98, "capability": 9},
    **{"shared": 233472, "optin": 232448},
}
DEVICES = {
    "h200": Device(
        "H200",
        4.8e12,
        {"bfloat16": 989e12, "float32": 494e12},
        {**_HOPPER, "cache": 62914560, "memory": 150_000_000_000},
    ),
    "h100": Device(
        "H100 80GB HBM3",
        3.35e12,
        {"bfloat16": 989e12, "float32": 494e12},
        {**_HOPPER, "cache": 52428800, "memory": 85_000_000_000},
    ),
    "a100": Device(
        "A100-SXM4-80GB",
        2.039e12,
        {"bfloat16": 312e12, "float32": 156e12},
        {
            **{"cores": 108, "units": 64, "clock": 1.41, "capability": 8},
            **{"shared": 167936, "optin": 166912},
            **{"cache": 41943040, "memory": 85_000_000_000},
        },
    ),
}

# Partitions, hosts, devices of a host: 32 devices are four hosts.
_TOPOLOGIES = {1: "1x1x1", 8: "1x1x8", 32: "1x4x8"}
COUNTS = tuple(_TOPOLOGIES)


def _plugins() -> list[pkgutil.ModuleInfo]:
    parent = importlib.util.find_spec("jax_plugins")
    return list(pkgutil.iter_modules(parent.submodule_search_locations)) if parent else []


def prepare() -> None:
    """Sets what JAX and XLA must see before they look for devices.

    Raises:
        InputError: the GPU plugin is not installed.
    """
    if not any(plugin.name.startswith("xla_cuda") for plugin in _plugins()):
        raise errors.InputError(
            "this Python has no JAX for GPUs to compile with; `make gpu-programs` installs it in "
            ".venv-gpu, about 6 GB"
        )
    jax.config.update("jax_platforms", "cpu")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])


def make_mesh(device: Device, count: int) -> Mesh:
    """Returns a mesh with one axis, "data", of `count` described devices; `prepare` comes first."""
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=device.description, topology=_TOPOLOGIES[count]
    )
    mesh = topologies.make_mesh(topology, (count,), ("data",))
    return mesh.update(axis_types=(AxisType.Auto,))
