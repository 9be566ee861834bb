"""`python eval.py`: the command `spp eval`."""

import sys

from spp_jax.commands import cli, eval

if __name__ == "__main__":
    cli.run(eval, sys.argv)
