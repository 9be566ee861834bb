"""`--dry_run`: what a run would be of, and the programs it would need, without a workdir."""

import dataclasses
import json
from typing import Any

import jax

from spp_jax import checkpoint, sharding
from spp_jax import config as config_lib
from spp_jax.data.sources import objects
from spp_jax.detection import dataset
from spp_jax.detection.windows import regions
from spp_jax.runs import progress as progress_lib
from spp_jax.training import classifier, programs, report
from spp_jax.training import state as state_lib


def train(
    config: config_lib.Config, evaluate: classifier.Evaluate, progress: progress_lib.Progress
) -> None:
    """Says config, data, parameters and programs of a run of training."""
    _say_config(config, progress)
    job = classifier.make_job(config, evaluate, progress)
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
    compiled = programs.compile_programs(
        job.step,
        spec,
        job.stream.sizes_from(0),
        job.stream.batch_spec,
        mesh,
        deterministic=config.train.deterministic,
    )
    for program in compiled.values():
        progress.say(report.program_line(program, job.stream.batch_size))
    progress.say(f"{job.stream.num_steps} steps would be trained; nothing was written")


def detect(config: config_lib.DetectionConfig, progress: progress_lib.Progress) -> None:
    """Says config, data, network and programs of training a detector."""
    _say_config(config, progress)
    source = objects.open_objects(config.data.name, config.data.path, config.data.split)
    data = dataset.read(source, skip_damaged=True)
    progress.say(data.lines())
    model, variables, _ = checkpoint.load(config.checkpoint)
    regions.check_features(model, config.features)
    count = sum(x.size for x in jax.tree.leaves(variables))
    progress.say(f"{model.backbone.name}: {count:,} parameters")
    batches = regions.plan(data.sizes, config.features, jax.device_count())
    scales = config.features.scales
    for canvas in dict.fromkeys(batch.canvas for batch in batches):
        num_images = sum(len(b.indices) for b in batches if b.canvas == canvas)
        sides = ", ".join("x".join(map(str, c)) for c in regions.scale_canvas(canvas, scales))
        progress.say(f"{num_images} images on canvases of {sides} pixels")
    num_canvases = len({batch.canvas for batch in batches})
    progress.say(
        f"{num_canvases * (len(scales) + 1)} programs would be compiled: for each of "
        f"{num_canvases} shapes one per scale and one for the windows; nothing was written"
    )


def _say_config(config: Any, progress: progress_lib.Progress) -> None:
    progress.say(json.dumps(dataclasses.asdict(config), indent=2))
