"""Set before JAX starts: four CPU devices, so that sharding is really tested; code that is compiled
fast, as most of a test is compiling, and not optimised; and a compilation cache, so that tests
that train the same small network, here or in a command, compile it once. Arrays of unlike ranks
are an error: a user who sets JAX so must be able to call everything. Devices other than CPUs, if
they are asked for, run the code that users get.
"""

import atexit
import os
import shutil
import signal
import tempfile

# Commands ignore signals where their parent does, as under nohup: what tests start must not.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_CACHE = tempfile.mkdtemp(prefix="spp_jax_test_cache_")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    )
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
