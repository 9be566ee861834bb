"""`python train.py`: the command `spp train`."""

import sys

from spp_jax.commands import cli, train

if __name__ == "__main__":
    cli.run(train, sys.argv)
