"""Scores a workdir's network by several protocols: its lines, its files and its table."""

import os
from collections.abc import Sequence
from typing import Any

from spp_jax import checkpoint, errors, network
from spp_jax import config as config_lib
from spp_jax.data.loading import reading
from spp_jax.data.sources import opening
from spp_jax.evaluation import classify
from spp_jax.evaluation import protocols as protocols_lib
from spp_jax.runs import files


def score(workdir: str, config: config_lib.Config, protocols: Sequence[str]) -> None:
    """Writes WORKDIR/eval_PROTOCOL.json for each protocol and prints a table of all.

    Args:
        workdir: of train.py; its newest checkpoint is scored.
        config: the checkpoint's, where data.* and eval.* may have been changed.
        protocols: of `config.PROTOCOLS`.

    Raises:
        InputError: the config does not allow a protocol, or changes the network; or the data is
            missing, is of other classes, or cannot be read.
    """
    if not os.access(workdir, os.W_OK):
        raise errors.InputError(f"workdir {workdir} cannot be written")
    config_lib.validate(config)
    network.check(config)
    for protocol in protocols:
        protocols_lib.check_protocol(config, protocol)
    model, variables, meta = checkpoint.load_with_meta(workdir)
    if config.model != meta.config.model:
        raise errors.InputError("config.model is the checkpoint's and cannot be changed here")
    data = config.data
    source = opening.open_eval(data.name, data.path, data.eval_split, meta.class_names)
    where = f"{data.name} {data.path} {source.split}".replace("  ", " ").rstrip()
    scored = len(reading.even_sample(len(source), config.eval.num_examples))
    of = f" of {len(source)}" if scored < len(source) else ""
    print(f"step {meta.step} of {workdir}: {scored}{of} examples of {where}", flush=True)
    for note in source.notes:
        print(note)
    same = (data.name, data.path) == (meta.config.data.name, meta.config.data.path)
    if same and source.split in ("", data.split):
        print("these are the examples of training, or hold them: no measure of what it learned")

    results = []
    for protocol in protocols:
        result = classify.evaluate(
            model, variables, config, source, protocol, has_progress_bar=True
        )
        if not result["num_examples"]:
            raise errors.InputError(f"no example of {where} can be read: {result['refused'][0]}")
        results.append({"step": meta.step, "data": where, **result})
        _report(results[-1], os.path.join(workdir, f"eval_{protocol}.json"))
    print(classify.table(results))


def _report(result: dict[str, Any], path: str) -> None:
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
