"""Reads programs as JAX hands them to XLA, before a backend rewrites what it does not have."""

import re

import jax


def operations(lowered: jax.stages.Lowered) -> set[str]:
    """Returns the names of a program's operations: "scatter", "select_and_scatter", "add" ..."""
    return set(re.findall(r"stablehlo\.([a-z_]+)", lowered.as_text()))
