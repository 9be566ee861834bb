"""`python -m spp_jax.data.prepare`: the command `spp prepare`."""

import sys

from spp_jax.commands import cli, prepare

if __name__ == "__main__":
    cli.run(prepare, ["python -m spp_jax.data.prepare", *sys.argv[1:]], arguments=True)
