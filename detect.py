"""`python detect.py`: the command `spp detect`."""

import sys

from spp_jax.commands import detect

if __name__ == "__main__":
    detect.start(sys.argv)
