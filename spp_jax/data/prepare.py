"""Prepares a data set once, for train.py and eval.py to read.

    python -m spp_jax.data.prepare NAME [--manual_dir=DIR] [--data_dir=DIR] [--num_workers=N]

NAME is imagenet2012_256, made from the two official tars in --manual_dir without TensorFlow;
digit_scenes; or any set of TFDS, which needs TensorFlow (requirements-prepare.txt) and one core,
and where needed files that TFDS says to put into --manual_dir.
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import tensorflow_datasets as tfds
from absl import app, flags, logging

from spp_jax import errors
from spp_jax.data.imagenet import preparing, tars
from spp_jax.data.sources import opening

_MANUAL_DIR = flags.DEFINE_string("manual_dir", "", "Holds what cannot be downloaded: the tars.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", 'TFDS\'s data_dir; "": its default.')
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", os.cpu_count() or 1, "Processes, for imagenet2012_256.", lower_bound=1
)

_NUM_NAMED = 10  # images left out that are printed; the set's metadata.json has all


def prepare_stock(name: str, manual_dir: str, data_dir: str) -> str:
    """Prepares a set of TFDS as ArrayRecord with TFDS's own builder, in this process.

    TFDS cannot go on with what was interrupted; it removes it.

    Returns:
        What happened, in a sentence.

    Raises:
        InputError: an unknown name, TensorFlow is not installed, a file is missing, TFDS fails.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
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
        raise errors.InputError(f"{name} needs --manual_dir=DIR; TFDS says: {instructions}")
    if name.split(":")[0] == "imagenet2012":
        tars.find_tars(manual_dir)  # TFDS would leave out the split of a missing one
    config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except (AssertionError, OSError) as e:
        raise errors.InputError(f"TFDS cannot prepare {name}: {' '.join(str(e).split())}") from e
    return f"{name} is prepared under {builder.data_dir}"


def prepare_256(manual_dir: str, data_dir: str, num_workers: int) -> str:
    """Prepares imagenet2012_256; returns what happened, and raises, as `imagenet.prepare`."""
    where = preparing.final_dir(data_dir)
    if os.path.isdir(where):
        return f"{preparing.NAME} is prepared already under {where}"
    refused = preparing.prepare(manual_dir, data_dir, num_workers)
    for sentence in refused[:_NUM_NAMED]:
        print(f"left out: {sentence}")
    rest = f", {len(refused)} images left out (metadata.json names them)" if refused else ""
    return f"{preparing.NAME} is prepared under {where}{rest}"


def main(argv: Sequence[str]) -> int:
    name = argv[1]
    manual_dir = os.path.expanduser(_MANUAL_DIR.value)
    data_dir = os.path.expanduser(_DATA_DIR.value)
    # As Ctrl-C: the workers have to be ended.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if name == preparing.NAME:
            print(prepare_256(manual_dir, data_dir, _NUM_WORKERS.value))
        elif name in opening.EMBEDDED:
            opening.EMBEDDED[name].prepare(data_dir or None)
            print(f"{name} is prepared")
        else:
            print(prepare_stock(name, manual_dir, data_dir))
    except errors.InputError as e:
        _fail(str(e))
    except OSError as e:
        _fail(f"{name} cannot be prepared: {e}")
    except KeyboardInterrupt:
        how = "goes on from there" if name == preparing.NAME else "starts anew"
        print(f"stopped; the same command {how}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as e:
        _fail(str(e).split("\n")[0])
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    if len(rest) != 2:
        _fail(f"give one name of a data set, as {preparing.NAME}; got {rest[1:]}")
    return rest


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
