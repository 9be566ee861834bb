"""How much memory there is, and how a process allocates it."""

import ctypes
import importlib.util
import os
import platform

# malloc.h's numbers of what mallopt sets.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def physical() -> int:
    """Returns the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def keep_freed() -> None:
    """Makes glibc's malloc keep what is freed, where JAX has CPUs only, for the next step.

    By default malloc hands large blocks back at once, and the kernel clears them anew. XLA's CPU
    client allocates a program's memory when it runs, so that takes up to half the time of a step.
    The process then never shrinks, and where programs of very different sizes take turns it can
    hold two to three times what it needs: any MALLOC_* variable of the user's turns this off. Call
    it before JAX looks for its devices: arenas of threads that are there stay as they are.
    """
    has_accelerator = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    if platform.libc_ver()[0] != "glibc" or has_accelerator or is_set:
        return
    mallopt = ctypes.CDLL(None).mallopt
    # One arena, as those of threads hold no large blocks; no blocks mapped on their own; no trim.
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        mallopt(option, value)
