"""Four CPU devices, so that sharding is really tested; set before JAX starts.

A failure of one device against four shows on CPUs as well as on GPUs.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
