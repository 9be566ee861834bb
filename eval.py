"""Scores a trained network: python eval.py --workdir=DIR --protocol=center|full|ten_view|...

Several protocols, --protocol=center,ten_view, make one table. Config and classes are the
checkpoint's; --config.field=value changes fields, for example --config.data.path=FOLDER or
--config.eval.scale=256. Writes DIR/eval_PROTOCOL.json.
"""

import json
import os
from typing import Any

from absl import flags
from ml_collections import config_flags

from spp_jax import checkpoint, cli, errors
from spp_jax import config as config_lib
from spp_jax.data import pipeline, sources
from spp_jax.evaluation import classify

_WORKDIR = flags.DEFINE_string("workdir", None, "Workdir of train.py.", required=True)
_PROTOCOL = flags.DEFINE_list(
    "protocol", ["center"], f"The test views: one or several of {', '.join(config_lib.PROTOCOLS)}."
)
flags.register_validator(
    "protocol",
    lambda names: bool(names) and set(names) <= set(config_lib.PROTOCOLS),
    f"must be of {', '.join(config_lib.PROTOCOLS)}",
)


def define_config() -> None:
    workdir = os.path.expanduser(_WORKDIR.value or "")
    step_dir = checkpoint.latest_step_dir(workdir)
    if step_dir is None:
        raise errors.InputError(f"no checkpoint in --workdir={workdir}")
    config_flags.DEFINE_config_dataclass("config", checkpoint.read_meta(step_dir).config)


def main() -> int:
    workdir = os.path.expanduser(_WORKDIR.value)
    if not os.access(workdir, os.W_OK):
        raise errors.InputError(f"workdir {workdir} cannot be written")
    config: config_lib.Config = flags.FLAGS.config
    config_lib.validate(config)
    for protocol in _PROTOCOL.value:
        config_lib.check_protocol(config, protocol)
    model, variables, meta = checkpoint.load_with_meta(workdir)
    if config.model != meta.config.model:
        raise errors.InputError("config.model is the checkpoint's and cannot be changed here")
    data = config.data
    source = sources.open_eval(data.name, data.path, data.eval_split, meta.class_names)
    where = f"{data.name} {data.path} {source.split}".replace("  ", " ").rstrip()
    scored = len(pipeline.even_sample(len(source), config.eval.num_examples))
    of = f" of {len(source)}" if scored < len(source) else ""
    print(f"step {meta.step} of {workdir}: {scored}{of} examples of {where}", flush=True)
    same = (data.name, data.path) == (meta.config.data.name, meta.config.data.path)
    if same and source.split in ("", data.split):
        print("these are the examples of training, or hold them: no measure of what it learned")

    results = []
    for protocol in _PROTOCOL.value:
        result = classify.evaluate(
            model, variables, config, source, protocol, has_progress_bar=True
        )
        if not result["num_examples"]:
            raise errors.InputError(f"no example of {where} can be read: {result['refused'][0]}")
        results.append({"step": meta.step, "data": where, **result})
        _report(results[-1], os.path.join(workdir, f"eval_{protocol}.json"))
    print(classify.table(results))
    return 0


def _report(result: dict[str, Any], path: str) -> None:
    for sentence in result["refused"]:
        print(f"refused: {sentence}")
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(result, f, indent=2)
    os.replace(path + ".new", path)
    print(
        f"{result['protocol']}: top1 {result['top1']:.4f}  top5 {result['top5']:.4f}  "
        f"loss {result['loss']:.4f}  {result['num_examples']} examples, "
        f"{result['num_refused']} refused, {result['num_canvases']} canvas sizes, "
        f"{result['seconds']:.1f} s -> {path}",
        flush=True,
    )


if __name__ == "__main__":
    cli.run(main, define_config)
