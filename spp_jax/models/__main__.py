"""`python -m spp_jax.models`: the command `spp networks`."""

import sys

from spp_jax.commands import cli, networks

if __name__ == "__main__":
    cli.run(networks, ["python -m spp_jax.models", *sys.argv[1:]])
