"""The embedded data sets, made when a command first asks for them."""

import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data.sources import opening
from spp_jax.runs import progress as progress_lib


def is_there(name: str, data_dir: str) -> bool:
    """Returns whether a data set need not be made: it is there, or is no embedded one."""
    if name not in opening.EMBEDDED:
        return True
    return tfds.builder(name, data_dir=data_dir or None).data_path.exists()


def prepare(name: str, data_dir: str, progress: progress_lib.Progress) -> None:
    """Makes the embedded set of that name, if there is one and it is not there yet.

    Raises:
        InputError: it cannot be written.
    """
    if name not in opening.EMBEDDED:
        return
    try:
        opening.EMBEDDED[name].prepare(data_dir or None, progress)
    except OSError as e:
        raise errors.InputError(f"{name} cannot be prepared under {data_dir}: {e}") from e
