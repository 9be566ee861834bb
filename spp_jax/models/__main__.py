"""`python -m spp_jax.models`: the command `spp networks`."""

from spp_jax.commands import networks

if __name__ == "__main__":
    networks.main([])
