"""Trains an SPP network. Started again with the same flags it goes on from its last checkpoint."""

import functools

from absl import flags

from spp_jax import config as config_lib
from spp_jax.commands import cli

KIND = "Config"
SEVERAL = True
EXAMPLES = (
    "--config=configs/digits_multisize.py --workdir=runs/digits",
    "--config=folder_multisize --workdir=runs/mine --config.data.path=PHOTOGRAPHS",
    "--config=imagenet_multisize:overfeat7 --workdir=runs/overfeat --dry_run",
)


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Where checkpoints, metrics.jsonl and config.json go.")
    flags.DEFINE_bool(
        "dry_run", False, "Say what would be trained, compile its programs, and write no workdir."
    )


def main(arguments: list[str]) -> int:
    del arguments
    config = cli.read_config(config_lib.Config)
    workdir = cli.require("workdir", "it is the folder that checkpoints and metrics go to")
    import jax

    from spp_jax import network
    from spp_jax.commands import console
    from spp_jax.evaluation import classify, protocols
    from spp_jax.runs import signals, workers
    from spp_jax.training import checks, classifier

    if config.run.smoke:
        config_lib.make_smoke(config, jax.device_count())
    config_lib.validate(config, stored=checks.stored_config(workdir))
    network.check(config)
    protocols.check_protocol(config, config.train.eval_protocol)
    progress = console.for_all()
    workers.use_one_thread()
    evaluate = functools.partial(classify.evaluate, protocol=config.train.eval_protocol)
    if flags.FLAGS.dry_run:
        from spp_jax.commands import dry_run

        dry_run.train(config, workdir, evaluate, progress)
        return 0
    stop = signals.StopSignal(progress.say)
    result = classifier.train(config, workdir, evaluate, stop=stop, progress=progress)
    return 0 if result.stopped_by is None else 128 + result.stopped_by
