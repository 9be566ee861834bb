"""A detector's workdir: whether training may go on in it, and the network it starts from.

Nothing has been learnt in a workdir that holds neither SVMs, nor regressors, nor a checkpoint of
fine-tuning: whatever its config and data were, others may take their place.
"""

import dataclasses
import os
import shutil

from spp_jax import checkpoint, errors
from spp_jax import config as config_lib
from spp_jax.detection import dataset, detector
from spp_jax.detection.proposals import coverage, proposing
from spp_jax.detection.scoring import testing
from spp_jax.models import sppnet
from spp_jax.runs import files, lock, places


@dataclasses.dataclass(frozen=True)
class Start:
    """The network that a detector is trained from.

    Attributes:
        step_dir: its checkpoint.
        model, variables, meta: as `checkpoint.load_with_meta` gives them.
        is_own: whether that is the detector's own copy, as `config.checkpoint` is not there.
    """

    step_dir: str
    model: sppnet.SPPNet
    variables: dict
    meta: checkpoint.Meta
    is_own: bool


def validate(config: config_lib.DetectionConfig, workdir: str) -> None:
    """Validates the config of training in a workdir, which may hold one of an older version."""
    has_config = bool(workdir) and os.path.exists(os.path.join(workdir, detector.CONFIG_FILE))
    config_lib.validate(config, stored=detector.read_config(workdir) if has_config else None)


def check(config: config_lib.DetectionConfig, workdir: str) -> None:
    """Raises InputError if the workdir is of another detector, or cannot be written."""
    if not workdir or (os.path.exists(workdir) and not os.path.isdir(workdir)):
        raise errors.InputError(f"workdir {workdir!r} is not a directory")
    _check_places(config, workdir)
    if not os.path.exists(os.path.join(workdir, detector.CONFIG_FILE)):
        return
    stored = detector.read_config(workdir)
    if _has_learnt(workdir):
        detector.check_same(stored, config, workdir)


def _check_places(config: config_lib.DetectionConfig, workdir: str) -> None:
    """Raises InputError where training could not write."""
    folders = [detector.NETWORK]
    if config.finetune.enabled:
        folders = [detector.FINETUNED]
    if not config.proposals.path and not config.proposals.cache:
        folders.append(proposing.CACHE)
    results = []
    if config.data.eval_split:
        results.append(testing.RESULT)
        folders.append(testing.DETECTIONS)
    splits = [s for s in (config.data.split, config.data.eval_split) if s]
    places.check(
        workdir,
        files=(
            *(detector.CONFIG_FILE, detector.DATA_FILE, lock.LOCK_FILE),
            *(detector.SVM_FILE, detector.REGRESSION_FILE),
            *results,
            *(coverage.file_name(split) for split in splits),
        ),
        folders=folders,
    )


def load_start(config: config_lib.DetectionConfig, workdir: str) -> Start:
    """Loads the network of `config.checkpoint`.

    If that is not there, takes the workdir's own copy, once something has been learnt from it.

    Raises:
        InputError: there is neither.
    """
    given = checkpoint.latest_step_dir(config.checkpoint) if config.checkpoint else None
    step_dir = given or (detector.network_dir(workdir) if _has_learnt(workdir) else None)
    if step_dir is None:
        if not config.checkpoint:
            raise errors.InputError("config.checkpoint is not set: it is the network to start from")
        raise errors.InputError(f"config.checkpoint={config.checkpoint}: no checkpoint there")
    return Start(step_dir, *checkpoint.load_with_meta(step_dir), is_own=given is None)


def record(
    config: config_lib.DetectionConfig,
    workdir: str,
    data: dataset.Dataset,
    digest: str,
    start: Start,
) -> None:
    """Writes the config and what is learnt from, and copies the network unless it is fine-tuned.

    Args:
        config: of the detector.
        workdir: made if missing.
        data: the training split.
        digest: stands for everything that is learnt from.
        start: the network.

    Raises:
        InputError: something has been learnt in the workdir from other data or another network, or
            it cannot be written.
    """
    path = os.path.join(workdir, detector.DATA_FILE)
    facts = {"class_names": list(data.class_names), "digest": digest}
    network: int | None = None if start.is_own else checkpoint.checksum(start.variables)
    has_learnt = _has_learnt(workdir)
    if has_learnt and os.path.exists(path):
        stored = detector.read_data(workdir)
        if {name: stored[name] for name in facts} != facts:
            raise errors.InputError(
                f"workdir {workdir} is of other images, objects or windows than these of split "
                f"{data.source.split}; take another one"
            )
        network = _same_network(config, workdir, stored.get("network"), network)
    try:
        os.makedirs(workdir, exist_ok=True)
        files.write_checked(path, {**facts, "network": network})
        config_path = os.path.join(workdir, detector.CONFIG_FILE)
        if start.is_own:  # where it came from, not where it is not
            was = detector.read_config(workdir).checkpoint
            config = dataclasses.replace(config, checkpoint=was)
        files.write_checked(config_path, dataclasses.asdict(config), indent=2)
        copy = os.path.join(workdir, detector.NETWORK)
        if not has_learnt and not start.is_own:
            shutil.rmtree(copy, ignore_errors=True)  # of a network that nothing was learnt from
        if not config.finetune.enabled and detector.network_dir(workdir) is None:
            # Its own copy, so that the workdir depends on nothing else.
            checkpoint.save_network(copy, start.variables, start.meta)
    except OSError as e:
        raise errors.InputError(f"{e.filename or workdir} cannot be written: {e.strerror}") from e


def _same_network(
    config: config_lib.DetectionConfig,
    workdir: str,
    stored: int | None,
    network: int | None,
) -> int | None:
    """Returns the checksum of the network learnt from; raises InputError if it is another one.

    Workdirs of version 0.1.0 have no checksum; their own copy of the network does instead, and
    after fine-tuning, which leaves none, the path.
    """
    copy = os.path.join(workdir, detector.NETWORK)
    if stored is None and checkpoint.latest_step_dir(copy):
        stored = checkpoint.checksum(checkpoint.load_with_meta(copy)[1])
    if stored is None:
        before = detector.read_config(workdir).checkpoint
        is_other = network is not None and before != config.checkpoint
    else:
        is_other = network is not None and stored != network
    if is_other:
        raise errors.InputError(
            f"workdir {workdir} was trained from another network than config.checkpoint="
            f"{config.checkpoint}; take another workdir"
        )
    return network if stored is None else stored


def _has_learnt(workdir: str) -> bool:
    stages = (detector.SVM_FILE, detector.REGRESSION_FILE)
    return any(os.path.exists(os.path.join(workdir, name)) for name in stages) or bool(
        checkpoint.latest_step_dir(os.path.join(workdir, detector.FINETUNED))
    )
