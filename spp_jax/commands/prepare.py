"""Prepares a data set once, for training and evaluation to read: NAME is

imagenet2012_256, made from the two official tars in --manual_dir without TensorFlow; digit_scenes
or digit_groups; or any set of TFDS, which needs TensorFlow (requirements-prepare.txt) and one core,
and where needed files that TFDS says to put into --manual_dir.
"""

import os
from typing import Any

from absl import flags

from spp_jax import errors

EXAMPLES = (
    "imagenet2012_256 --manual_dir=TARS",
    "digit_scenes --data_dir=DATA",
    "imagenet2012 --manual_dir=TARS --data_dir=DATA",
)

_NUM_NAMED = 10  # images left out that are printed; the set's metadata.json has all


def define_flags() -> None:
    flags.DEFINE_string("manual_dir", "", "Holds what cannot be downloaded: the tars.")
    flags.DEFINE_string("data_dir", "", "TFDS's data_dir; TFDS's own default if not given.")
    flags.DEFINE_integer(
        "num_workers", os.cpu_count() or 1, "Processes, for imagenet2012_256.", lower_bound=1
    )


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise errors.InputError(
            f"give one name of a data set, as imagenet2012_256; got {arguments}"
        )
    from spp_jax.commands import console
    from spp_jax.data import stock
    from spp_jax.data.imagenet import preparing
    from spp_jax.data.sources import opening
    from spp_jax.runs import signals

    (name,) = arguments
    manual_dir, data_dir = (
        os.path.expanduser(path) for path in (flags.FLAGS.manual_dir, flags.FLAGS.data_dir)
    )
    progress, stop = console.Console(), signals.StopSignal(lambda text: None)
    try:
        if name == preparing.NAME:
            _prepare_256(manual_dir, data_dir, stop, progress)
        elif name in opening.EMBEDDED:
            opening.EMBEDDED[name].prepare(data_dir or None, progress)
            print(f"{name} is prepared")
        else:
            print(stock.prepare(name, manual_dir, data_dir))
    except BrokenPipeError:
        raise  # of what is printed
    except OSError as e:
        raise errors.InputError(f"{name} cannot be prepared: {e}") from e
    except KeyboardInterrupt as e:
        how = "goes on from there" if name == preparing.NAME else "starts anew"
        console.complain(f"stopped; the same command {how}")
        return 128 + (stop.signal or signals.number_of(e))
    return 0


def _prepare_256(manual_dir: str, data_dir: str, stop: Any, progress: Any) -> None:
    from spp_jax.data.imagenet import preparing

    where = preparing.final_dir(data_dir)
    if os.path.isdir(where):
        print(f"{preparing.NAME} is prepared already under {where}")
        return
    refused = preparing.prepare(
        manual_dir, data_dir, flags.FLAGS.num_workers, stop=stop, progress=progress
    )
    for sentence in refused[:_NUM_NAMED]:
        print(f"left out: {sentence}")
    rest = f", {len(refused)} images left out (metadata.json names them)" if refused else ""
    print(f"{preparing.NAME} is prepared under {where}{rest}")
