"""Checkpoints of a run that a test has made."""

import os

from spp_jax import checkpoint


def newest(workdir: str | os.PathLike[str]) -> str:
    """Returns the directory of a workdir's newest checkpoint; fails if there is none."""
    step_dir = checkpoint.latest_step_dir(os.fspath(workdir))
    assert step_dir is not None, f"no checkpoint in {workdir}"
    return step_dir
