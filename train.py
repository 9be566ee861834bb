"""Trains an SPP network: python train.py --config=configs/digits_multisize.py --workdir=DIR.

Started again with the same flags it goes on from its last checkpoint.
"""

import functools
import os
import signal

import jax
from absl import flags

from spp_jax import cli, network
from spp_jax import config as config_lib
from spp_jax.evaluation import classify, protocols
from spp_jax.training import loop

cli.define_config_file()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, metrics.jsonl and config.json go.", required=True
)


def main() -> int:
    config = cli.read_config(config_lib.Config)
    if config.run.smoke:
        config_lib.make_smoke(config, jax.device_count())
    config_lib.validate(config)
    network.check(config)
    protocols.check_protocol(config, config.train.eval_protocol)
    evaluate = functools.partial(classify.evaluate, protocol=config.train.eval_protocol)
    result = loop.train(config, os.path.expanduser(_WORKDIR.value), evaluate)
    return 128 + signal.SIGTERM if result.stopped_by == signal.SIGTERM else 0


if __name__ == "__main__":
    cli.run(main)
