"""Scores a trained network: python eval.py --workdir=DIR --protocol=center|full|ten_view|...

Several protocols, --protocol=center,ten_view, make one table. Config and classes are the
checkpoint's; --config.field=value changes fields, for example --config.data.path=FOLDER or
--config.eval.scale=256. Writes DIR/eval_PROTOCOL.json.

--protocol=svm --config=configs/caltech101_svm.py --checkpoint=DIR --workdir=OUT trains SVMs on the
features of a checkpoint; it writes OUT/eval_svm.json.
"""

import os

from absl import flags
from ml_collections import config_flags

from spp_jax import checkpoint, cli, errors
from spp_jax import config as config_lib
from spp_jax.evaluation import scoring
from spp_jax.evaluation.svm import benchmark

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Workdir of train.py; with svm, where results go.", required=True
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "With svm: the workdir of train.py.")
_PROTOCOL = flags.DEFINE_list(
    "protocol",
    ["center"],
    f"The test views: one or several of {', '.join(config_lib.PROTOCOLS)}; or svm.",
)
flags.register_validator(
    "protocol",
    lambda names: names == ["svm"] or (bool(names) and set(names) <= set(config_lib.PROTOCOLS)),
    f"must be of {', '.join(config_lib.PROTOCOLS)}, or svm alone",
)


def define_config() -> None:
    if _PROTOCOL.value == ["svm"]:
        cli.define_config_file()
        return
    workdir = os.path.expanduser(_WORKDIR.value or "")
    step_dir = checkpoint.latest_step_dir(workdir)
    if step_dir is None:
        raise errors.InputError(f"no checkpoint in --workdir={workdir}")
    config_flags.DEFINE_config_dataclass("config", checkpoint.read_meta(step_dir).config)


def main() -> int:
    workdir = os.path.expanduser(_WORKDIR.value)
    if _PROTOCOL.value == ["svm"]:
        return score_svm(workdir)
    scoring.score(workdir, flags.FLAGS.config, _PROTOCOL.value)
    return 0


def score_svm(workdir: str) -> int:
    config = cli.read_config(config_lib.SvmConfig)
    config_lib.validate(config)
    if not _CHECKPOINT.value:
        raise errors.InputError("protocol svm needs --checkpoint=DIR, a workdir of train.py")
    model, variables, _ = checkpoint.load(os.path.expanduser(_CHECKPOINT.value))
    result = benchmark.evaluate(model, variables, config, workdir)
    for sentence in result["refused"]:
        print(f"refused: {sentence}")
    print(benchmark.table(result))
    print(f"-> {os.path.join(workdir, benchmark.RESULT)}")
    return 0


if __name__ == "__main__":
    cli.run(main, define_config)
