"""`python extract.py`: the command `spp extract`."""

import sys

from spp_jax.commands import cli, extract

if __name__ == "__main__":
    cli.run(extract, sys.argv)
