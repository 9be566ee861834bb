"""`--dry_run`: what a run would be of, and the programs it would need, without a workdir."""

import dataclasses
import json
from typing import Any

import jax

from spp_jax import config as config_lib
from spp_jax import sharding
from spp_jax.data.sources import opening
from spp_jax.detection.learning import stages
from spp_jax.detection.windows import regions
from spp_jax.runs import progress as progress_lib
from spp_jax.training import classifier, loop, report
from spp_jax.training import state as state_lib


def train(
    config: config_lib.Config,
    workdir: str,
    evaluate: classifier.Evaluate,
    progress: progress_lib.Progress,
) -> None:
    """Says config, data, parameters and programs of a run of training."""
    _say_config(config, progress)
    if _has_to_be_made(config.data, progress):
        return
    job, saved = classifier.prepare(config, workdir, evaluate, progress)
    plan = loop.check(config, workdir, job, saved)
    if plan:
        progress.say(plan.lines())
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
    num_steps = job.stream.num_steps
    first = start if start < num_steps else 0
    loop.compile_programs(config, job, spec, first, mesh, progress.say)
    progress.say(f"{num_steps - start} steps would be trained; nothing was written")


def detect(
    config: config_lib.DetectionConfig, workdir: str, progress: progress_lib.Progress
) -> None:
    """Says config, data, network and programs of training a detector."""
    _say_config(config, progress)
    if _has_to_be_made(config.data, progress):
        return
    start, data, *_ = stages.check(config, workdir, progress)
    count = sum(x.size for x in jax.tree.leaves(start.variables))
    progress.say(f"{start.model.backbone.name}: {count:,} parameters")
    batches = regions.plan(data.sizes, config.features, jax.local_device_count())
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


def _has_to_be_made(
    data: config_lib.DataConfig | config_lib.DetectionDataConfig, progress: progress_lib.Progress
) -> bool:
    """Returns whether the data is an embedded set that is not made yet, and says so."""
    if not opening.has_to_be_made(data.name, data.path):
        return False
    progress.say(f"{data.name} is not made yet: a run makes it first; nothing was written")
    return True
