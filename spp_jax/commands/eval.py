"""Scores a trained network, by one or several protocols in one table.

The config and the classes are the checkpoint's; --config.field=value changes fields, for example
--config.data.path=FOLDER or --config.eval.scale=256. Writes WORKDIR/eval_PROTOCOL.json.

--protocol=svm --config=PRESET --checkpoint=DIR --workdir=OUT trains SVMs on the features of a
checkpoint; it writes OUT/eval_svm.json.
"""

import os
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import cli

EXAMPLES = (
    "--workdir=runs/digits --protocol=full",
    "--workdir=runs/mine --protocol=center,ten_view --config.data.path=OTHER_PHOTOGRAPHS",
    "--protocol=svm --config=caltech101_svm --checkpoint=runs/mine --workdir=runs/svm",
)
KIND = "Config"
SEVERAL = True

_WORKDIR = "it is the workdir of training; with svm, where results go"


def define_flags() -> None:
    known = ", ".join(config_lib.PROTOCOLS)
    flags.DEFINE_string("workdir", None, "Workdir of train.py; with svm, where results go.")
    flags.DEFINE_string("checkpoint", None, "With svm: the workdir of train.py.")
    flags.DEFINE_list("protocol", ["center"], f"The test views: one or several of {known}; or svm.")
    flags.register_validator(
        "protocol",
        lambda names: names == ["svm"] or (bool(names) and set(names) <= set(config_lib.PROTOCOLS)),
        f"must be of {known}, or svm alone",
    )


def _is_svm() -> bool:
    return flags.FLAGS.protocol == ["svm"]


def define_config() -> None:
    if _is_svm():
        cli.define_config_file()
        return
    workdir = cli.require("workdir", _WORKDIR)
    if not os.path.isdir(workdir):
        raise errors.InputError(f"there is no folder --workdir={workdir}")
    from spp_jax import checkpoint

    step_dir = checkpoint.latest_step_dir(workdir)
    if step_dir is None:
        raise errors.InputError(f"no checkpoint in --workdir={workdir}")
    config_flags.DEFINE_config_dataclass("config", checkpoint.read_meta(step_dir).config)


def main(arguments: list[str]) -> int:
    del arguments
    from spp_jax.runs import workers

    workers.use_one_thread()
    workdir = cli.require("workdir", _WORKDIR)
    if not _is_svm() and flags.FLAGS.checkpoint:
        raise errors.InputError("--checkpoint is for --protocol=svm; others score --workdir")
    if _is_svm():
        _score_svms(workdir)
    else:
        _score(workdir, flags.FLAGS.config, flags.FLAGS.protocol)
    return 0


def _score(workdir: str, config: config_lib.Config, names: list[str]) -> None:
    """Writes WORKDIR/eval_PROTOCOL.json for each protocol and prints a table of all."""
    from spp_jax import checkpoint, cluster, network
    from spp_jax.commands import console, tables
    from spp_jax.data.sources import opening
    from spp_jax.evaluation import classify, protocols
    from spp_jax.runs import places

    with cluster.together():
        places.check(workdir, files=[f"eval_{name}.json" for name in names])
        stored = checkpoint.read_meta(checkpoint.latest_step_dir(workdir) or workdir).config
        config_lib.validate(config, stored=stored)
        network.check(config)
        for name in names:
            protocols.check_protocol(config, name)
        model, variables, meta = checkpoint.load_with_meta(workdir)
        if config.model != meta.config.model:
            raise errors.InputError("config.model is the checkpoint's and cannot be changed here")
        data, progress = config.data, console.for_all()
        splits = (data.eval_split,)
        opening.make_embedded(data.name, data.path, splits, opening.read_class_names, progress)
        source = opening.open_eval(data.name, data.path, data.eval_split, meta.class_names)
    cluster.agree("the examples", len(source))
    cluster.agree("the checkpoint", checkpoint.checksum(variables))
    where = f"{data.name} {data.path} {source.split}".replace("  ", " ").rstrip()
    _introduce(workdir, config, meta, source, where, progress.say)
    results = []
    for name in names:
        result = classify.evaluate(model, variables, config, source, name, progress=progress)
        if not result["num_examples"]:
            raise errors.InputError(f"no example of {where} can be read: {result['refused'][0]}")
        results.append({"step": meta.step, "data": where, **result})
        if cluster.is_first():
            _report(results[-1], os.path.join(workdir, f"eval_{name}.json"))
    progress.say(tables.of_protocols(results))


def _introduce(
    workdir: str,
    config: config_lib.Config,
    meta: Any,
    source: Any,
    where: str,
    say: Callable[[str], None],
) -> None:
    from spp_jax.data.loading import reading

    data, trained = config.data, meta.config.data
    scored = len(reading.even_sample(len(source), config.eval.num_examples))
    of = f" of {len(source)}" if scored < len(source) else ""
    say(f"step {meta.step} of {workdir}: {scored}{of} examples of {where}")
    for note in source.notes:
        say(note)
    is_same = (data.name, data.path) == (trained.name, trained.path)
    if is_same and source.split in ("", data.split):
        say("these are the examples of training, or hold them: no measure of what it learned")


def _report(result: dict[str, Any], path: str) -> None:
    from spp_jax.runs import files

    for sentence in result["refused"]:
        print(f"refused: {sentence}")
    files.write_json(path, result, indent=2)
    print(
        f"{result['protocol']}: top1 {result['top1']:.4f}  top5 {result['top5']:.4f}  "
        f"loss {result['loss']:.4f}  {result['num_examples']} examples, "
        f"{result['num_refused']} refused, {result['num_canvases']} canvas sizes, "
        f"{result['seconds']:.1f} s -> {path}",
        flush=True,
    )


def _score_svms(workdir: str) -> None:
    from spp_jax import checkpoint, cluster
    from spp_jax.commands import console, tables
    from spp_jax.evaluation.svm import benchmark
    from spp_jax.runs import files, places

    config = cli.read_config(config_lib.SvmConfig)
    config_lib.validate(config)
    places.check(workdir, files=["eval_svm.json"])
    if not flags.FLAGS.checkpoint:
        raise errors.InputError("protocol svm needs --checkpoint=DIR, a workdir of train.py")
    model, variables, _ = checkpoint.load(os.path.expanduser(flags.FLAGS.checkpoint))
    result = benchmark.run(model, variables, config, workdir, progress=console.for_all())
    if not cluster.is_first():
        return
    path = os.path.join(workdir, "eval_svm.json")
    files.write_json(path, result, indent=2)
    for sentence in result["refused"]:
        print(f"refused: {sentence}")
    print(f"{tables.of_svms(result)}\n-> {path}")
