"""`python -m spp_jax.data.object_crops`: the command `spp crops`."""

import sys

from spp_jax.commands import cli, crops

if __name__ == "__main__":
    cli.run(crops, ["python -m spp_jax.data.object_crops", *sys.argv[1:]])
