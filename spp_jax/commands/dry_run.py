"""`--dry_run`: what a run would be of, and the programs it would need, without a workdir."""

import dataclasses
import json
from typing import Any

import jax

from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.commands import embedded
from spp_jax.detection.learning import stages
from spp_jax.detection.windows import regions
from spp_jax.runs import progress as progress_lib
from spp_jax.training import checks, classifier, programs, report, transfer
from spp_jax.training import state as state_lib


def train(
    config: config_lib.Config,
    workdir: str,
    evaluate: classifier.Evaluate,
    progress: progress_lib.Progress,
) -> None:
    """Says config, data, parameters and programs of a run of training."""
    _say_config(config, progress)
    sharding.check_batch_size(config.data.batch_size, "config.data.batch_size")
    saved = checks.find_saved(config, workdir)
    if _is_missing(config.data, progress):
        return
    job = classifier.make_job(config, evaluate, progress)
    num_steps = job.stream.num_steps
    if saved:
        checks.check_saved(saved, workdir, num_steps, job.num_examples, job.class_names)
    elif config.init_from:
        progress.say(transfer.make_plan(config.init_from, job.model, job.class_names).lines())
    progress.say(job.about)
    mesh = sharding.make_mesh()
    size = job.model.backbone.size
    shapes = jax.eval_shape(
        lambda: state_lib.init_state(job.model, job.optimizer, config.seed, size, mesh)
    )
    whole = sharding.replicated(mesh)
    spec: Any = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes
    )
    progress.say(report.parameter_table(spec.params))
    start = saved.meta.step if saved else 0
    compiled = programs.compile_programs(
        job.step,
        spec,
        job.stream.sizes_from(start if start < num_steps else 0),
        job.stream.batch_spec,
        mesh,
        deterministic=config.train.deterministic,
    )
    for program in compiled.values():
        progress.say(report.program_line(program, job.stream.batch_size))
    progress.say(f"{num_steps - start} steps would be trained; nothing was written")


def detect(
    config: config_lib.DetectionConfig, workdir: str, progress: progress_lib.Progress
) -> None:
    """Says config, data, network and programs of training a detector."""
    _say_config(config, progress)
    if _is_missing(config.data, progress):
        return
    start, data, *_ = stages.check(config, workdir, progress)
    count = sum(x.size for x in jax.tree.leaves(start.variables))
    progress.say(f"{start.model.backbone.name}: {count:,} parameters")
    batches = regions.plan(data.sizes, config.features, jax.device_count())
    scales = config.features.scales
    for canvas in dict.fromkeys(batch.canvas for batch in batches):
        num_images = sum(len(b.indices) for b in batches if b.canvas == canvas)
        sides = ", ".join("x".join(map(str, c)) for c in regions.scale_canvas(canvas, scales))
        progress.say(f"{num_images} images on canvases of {sides} pixels")
    num_canvases = len({batch.canvas for batch in batches})
    progress.say(
        f"{num_canvases * (len(scales) + 1)} programs would be compiled: for each of "
        f"{num_canvases} shapes one per scale and one for the windows"
        + (", and as many again for fine-tuning" if config.finetune.enabled else "")
        + "; nothing was written"
    )


def _say_config(config: Any, progress: progress_lib.Progress) -> None:
    progress.say(json.dumps(dataclasses.asdict(config), indent=2))


def _is_missing(
    data: config_lib.DataConfig | config_lib.DetectionDataConfig, progress: progress_lib.Progress
) -> bool:
    """Returns whether the data is an embedded set that is not made yet, and says so."""
    is_missing = not embedded.is_there(data.name, data.path)
    if is_missing:
        progress.say(f"{data.name} is not made yet: a run makes it first; nothing was written")
    return is_missing
