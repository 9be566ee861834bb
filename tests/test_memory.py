"""Memory that is freed."""

import os
import platform
import subprocess
import sys

import pytest

# Page faults of the second of two equal blocks, as a loop of programs allocates them.
_COUNT = """
import resource, sys
import numpy as np
from spp_jax.runs import memory
memory.keep_freed()
np.ones(2**24, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**24, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_unless_the_user_sets_malloc():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}

    def count(**variables):
        result = subprocess.run(
            [sys.executable, "-c", _COUNT],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(result.stdout)

    # 64 MiB are 16,384 pages; what NumPy itself touches is a few.
    assert count() < 1000
    # Huge pages, where the kernel gives them unasked, are 32 of them.
    assert count(MALLOC_ARENA_MAX="8") > count() + 20
