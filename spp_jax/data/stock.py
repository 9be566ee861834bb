"""TFDS's own sets, prepared once as ArrayRecord by TFDS's own builders, which need TensorFlow."""

import importlib.util

import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.data import leftovers
from spp_jax.data.imagenet import preparing, tars
from spp_jax.data.sources import tfds_builders


def prepare(name: str, manual_dir: str, data_dir: str) -> str:
    """Prepares a set of TFDS as ArrayRecord with TFDS's own builder, in this process.

    TFDS cannot go on with what was interrupted; it is removed, then or by the next call.

    Returns:
        What happened, in a sentence.

    Raises:
        InputError: an unknown name, TensorFlow is not installed, a file is missing, TFDS fails,
            or another process prepares it.
    """
    try:
        builder = tfds_builders.open_builder(name, data_dir or None)
    except errors.InputError:
        raise
    # What TFDS makes of names with slashes, colons, or nothing in them.
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as e:
        raise errors.InputError(
            f"{name!r} is neither {preparing.NAME}, digit_scenes nor a set TFDS knows"
        ) from e
    if builder.is_prepared():
        return f"{name} is prepared already under {builder.data_dir}"
    # importlib_resources is TFDS's, for its checksums; it does not declare it (4.9.10).
    for module in ("tensorflow", "importlib_resources"):
        if importlib.util.find_spec(module) is None:
            raise errors.InputError(
                f"{module} is not installed, with which TFDS prepares {name}; run `pip install -r "
                "requirements-prepare.txt`, here or in an environment just for this: reading a "
                "prepared set does not need it"
            )
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not manual_dir:
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise errors.InputError(f"{name} needs a manual_dir; TFDS says: {instructions}")
    if name.split(":")[0] == "imagenet2012":
        tars.find_tars(manual_dir)  # TFDS would leave out the split of a missing one
    config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    leftovers.mark(builder)
    try:
        with leftovers.alone(builder.data_path, marked=True):
            builder.download_and_prepare(download_config=config, file_format="array_record")
            leftovers.unmark(builder)
    # The last is ArrayRecord's.
    except (AssertionError, OSError, RuntimeError) as e:
        raise errors.InputError(f"TFDS cannot prepare {name}: {' '.join(str(e).split())}") from e
    return f"{name} is prepared under {builder.data_dir}"
