"""`python -m spp_jax`: the command `spp`."""

from spp_jax.commands import main

if __name__ == "__main__":
    main.run()
