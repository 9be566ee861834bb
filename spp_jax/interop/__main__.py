"""`python -m spp_jax.interop`: the command `spp import`."""

import sys

from spp_jax.commands import cli, import_weights

if __name__ == "__main__":
    cli.run(import_weights, ["python -m spp_jax.interop", *sys.argv[1:]])
