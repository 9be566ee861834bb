"""Extracts features of every image of a folder or a TFDS split, whatever their sizes.

Interrupted, the same command goes on. docs/features.md says what is in the file.
"""

import os
from typing import Any

from absl import flags

from spp_jax import config as config_lib
from spp_jax import errors
from spp_jax.commands import cli
from spp_jax.config import fields

SEVERAL = True
EXAMPLES = (
    "--checkpoint=runs/mine --images=PHOTOGRAPHS --layer=conv5 --levels=6,3,2,1 --output=conv5.npz",
    "--checkpoint=runs/googlenet --images=PHOTOGRAPHS --layer=pool --normalize --output=pool.npy",
    "--checkpoint=runs/mine --tfds=voc/2007 --layer=fc7 --output=fc7.npz",
)


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or what spp_jax.interop wrote.")
    flags.DEFINE_string("images", None, "A folder of images.")
    flags.DEFINE_string("tfds", None, "In place of a folder: a prepared TFDS set.")
    flags.DEFINE_string("split", "test", "Its split.")
    flags.DEFINE_string("data_dir", "", "Where it is; TFDS's own default if not given.")
    flags.DEFINE_list("layer", None, "Maps, or pool, fc6 ..., logits.")
    flags.DEFINE_string(
        "levels",
        "1",
        "Bins per side of each level of the pyramid, 6,3,2,1; one pyramid per layer: 3,2,1/2,1.",
    )
    flags.DEFINE_enum("reduce", "max", ["max", "mean"], "What a bin holds.")
    flags.DEFINE_string(
        "scale", "224", "Shorter side of the whole image, pixels; or crop, or warp."
    )
    flags.DEFINE_integer(
        "size",
        0,
        "Side of crop and warp; 0: the network's.",
        lower_bound=0,
        upper_bound=fields.MAX_SIDE,
    )
    flags.DEFINE_bool("normalize", False, "Give each layer's vector the length 1.")
    flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the file.")
    flags.DEFINE_string("output", None, "FILE.npz, or FILE.npy to be mapped.")
    flags.DEFINE_integer(
        "batch_size", 32, "Images of a batch.", lower_bound=1, upper_bound=fields.MAX_BATCH
    )
    flags.DEFINE_integer(
        "num_programs",
        8,
        "Programs to compile at most, if memory allows.",
        lower_bound=1,
        upper_bound=10_000,
    )
    flags.DEFINE_integer(
        "num_workers",
        0,
        "Loader processes; 0: threads.",
        lower_bound=0,
        upper_bound=fields.MAX_PROCESSES,
    )


def main(arguments: list[str]) -> int:
    del arguments
    from spp_jax import checkpoint, cluster
    from spp_jax.commands import console
    from spp_jax.data.sources import folders, opening
    from spp_jax.evaluation import extraction
    from spp_jax.runs import workers

    given, progress = flags.FLAGS, console.for_all()
    workers.use_one_thread()
    with cluster.together():
        output = cli.require("output", "it is the FILE.npz or FILE.npy to write")
        network = cli.require("checkpoint", "it is the workdir of the network")
        if not given.layer:
            raise errors.InputError("--layer is missing: it names the maps or vectors to extract")
        extraction.check_output(output)
        parts = _parts()
        if bool(given.tfds) == bool(given.images):
            raise errors.InputError("give --images=FOLDER or --tfds=NAME, one of them")
        if given.tfds:
            data_dir = os.path.expanduser(given.data_dir)
            splits, check = (given.split,), opening.read_class_names
            opening.make_embedded(given.tfds, data_dir, splits, check, progress)
            source = opening.TfdsSource(given.tfds, given.split, data_dir)
        else:
            source = folders.scan_images(os.path.expanduser(given.images))
        model, variables, meta = checkpoint.load_with_meta(network)
    for note in source.notes:
        progress.say(note)
    request = extraction.Request(
        parts,
        extraction.make_view(given.scale, given.size or model.backbone.size),
        normalize=given.normalize,
        dtype=given.dtype,
        batch_size=given.batch_size,
        num_programs=given.num_programs,
        num_workers=given.num_workers,
    )
    extracted = extraction.extract_to(
        output,
        model,
        variables,
        source,
        request,
        output_names=meta.class_names,
        progress=progress,
    )
    for sentence in extracted.refused:
        progress.say(f"refused: {sentence}")
    features = extracted.features
    progress.say(f"{features.shape} {features.dtype}, {len(extracted.refused)} refused -> {output}")
    return 0


def _parts() -> tuple[config_lib.Part, ...]:
    layers, levels = flags.FLAGS.layer, flags.FLAGS.levels
    pyramids = [cli.parse_levels("--levels", text) for text in levels.split("/")]
    for pyramid in pyramids:
        config_lib.check_bins(pyramid, f"--levels={levels}")
    if len(pyramids) == 1:
        pyramids *= len(layers)
    if len(pyramids) != len(layers):
        raise errors.InputError(
            f"--levels={levels} has {len(pyramids)} pyramids for {len(layers)} layers"
        )
    reduce: Any = flags.FLAGS.reduce
    return tuple(config_lib.Part(n, own, reduce) for n, own in zip(layers, pyramids))
