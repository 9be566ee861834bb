"""What the tests of extraction extract."""

from spp_jax import config as config_lib
from spp_jax.evaluation import extraction

PARTS = (config_lib.Part("conv5", (2, 1)), config_lib.Part("fc6"))


def request(scale="36", **fields):
    """Returns what is extracted, in batches of four."""
    fields = {"parts": PARTS, "batch_size": 4, "num_programs": 3} | fields
    return extraction.Request(view=extraction.make_view(scale, 32), **fields)
