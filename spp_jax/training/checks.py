"""May a run go on in its workdir: what is checked before anything compiles or is written."""

import dataclasses
import os
from typing import NamedTuple

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.runs import files, lock, places
from spp_jax.training import logs, schedule

CONFIG_FILE = "config.json"


class Saved(NamedTuple):
    """The newest checkpoint of a run: its step directory, and what that says of itself."""

    step_dir: str
    meta: checkpoint.Meta


def stored_config(workdir: str) -> config_lib.Config | None:
    """Returns the config of the checkpoint that a run goes on from, None for a new run."""
    step_dir = checkpoint.latest_step_dir(workdir) if os.path.isdir(workdir) else None
    return checkpoint.read_meta(step_dir).config if step_dir else None


def find_saved(config: config_lib.Config, workdir: str) -> Saved | None:
    """Returns the checkpoint to go on from, None for a new run.

    Any config may take the place of that of a workdir without a checkpoint: nothing has been learnt
    there.

    Raises:
        InputError: the workdir is no directory, nothing can be written there, or it is of another
            run.
    """
    if not workdir or (os.path.exists(workdir) and not os.path.isdir(workdir)):
        raise errors.InputError(f"workdir {workdir!r} is not a directory")
    places.check(
        workdir,
        files=(CONFIG_FILE, logs.METRICS_FILE, lock.LOCK_FILE),
        folders=(checkpoint.CHECKPOINTS, logs.TENSORBOARD),
    )
    step_dir = checkpoint.latest_step_dir(workdir) if os.path.isdir(workdir) else None
    if step_dir is None:
        _check_config_file(os.path.join(workdir, CONFIG_FILE))
        return None
    saved = Saved(step_dir, checkpoint.read_meta(step_dir))
    old = saved.meta.config
    if schedule.shares_sizes(old.train, config.train, config.seed):
        train = dataclasses.replace(old.train, num_epochs=config.train.num_epochs)
        old = dataclasses.replace(old, train=train)
    changed = config_lib.difference(old, config)
    if changed:
        raise errors.InputError(
            f"workdir {workdir} is of another config: {changed}; take another workdir, with "
            f"config.init_from={workdir} to start from its network"
        )
    return saved


def check_saved(
    saved: Saved, workdir: str, num_steps: int, num_examples: int, class_names: tuple[str, ...]
) -> None:
    """Raises InputError unless a run of so many steps, on such data, goes on from a checkpoint."""
    meta = saved.meta
    if meta.step > num_steps:
        raise errors.InputError(
            f"workdir {workdir} was trained to step {meta.step}, beyond the {num_steps} steps of "
            "config.train.num_epochs"
        )
    if (meta.class_names, meta.num_examples) != (class_names, num_examples):
        raise errors.InputError(
            f"workdir {workdir} was trained on {meta.num_examples} examples of classes "
            f"{', '.join(meta.class_names[:3])} ..., not on these {num_examples} of "
            f"{', '.join(class_names[:3])} ..."
        )


def check_held_out(saved: Saved, workdir: str, num_steps: int) -> None:
    """Raises InputError if a run of version 0.1.0, which held out other images, is to go on.

    It did not split class by class: images held out then would be trained on.
    """
    if saved.meta.versions.get("spp_jax") == "0.1.0" and saved.meta.step < num_steps:
        raise errors.InputError(
            f"workdir {workdir} was trained by version 0.1.0, which held out other images of a "
            "folder without splits: finish it there, or take another workdir, with "
            f"config.init_from={workdir} to start from its network"
        )


def write_config(config: config_lib.Config, workdir: str) -> None:
    """Writes WORKDIR/config.json; raises InputError if it cannot be written."""
    try:
        os.makedirs(workdir, exist_ok=True)
        path = os.path.join(workdir, CONFIG_FILE)
        files.write_json(path, dataclasses.asdict(config), indent=2)
    except OSError as e:
        raise errors.InputError(f"{e.filename or workdir} cannot be written: {e.strerror}") from e


def _check_config_file(path: str) -> None:
    """Raises InputError if there is such a file and it holds no config of training."""
    if not os.path.exists(path):
        return
    try:
        config_lib.from_dict(config_lib.Config, files.read_json(path))
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise errors.InputError(f"{path} is no config of spp_jax: {e}") from e
