"""Extracts features of every image of a folder or a TFDS split, whatever their sizes.

    python extract.py --checkpoint=DIR --images=FOLDER --layer=conv5 --levels=6,3,2,1
        --output=FILE.npz

Interrupted, the same command goes on. docs/features.md says what is in the file.
"""

import os
from typing import Any

from absl import flags

from spp_jax import checkpoint, cli, errors
from spp_jax import config as config_lib
from spp_jax.data.sources import folders, opening
from spp_jax.evaluation import extraction

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Workdir of train.py, or what spp_jax.interop wrote.", required=True
)
_IMAGES = flags.DEFINE_string("images", None, "A folder of images.")
_TFDS = flags.DEFINE_string("tfds", None, "In place of a folder: a prepared TFDS set.")
_SPLIT = flags.DEFINE_string("split", "test", "Its split.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where it is; TFDS's own default if not given.")
_LAYER = flags.DEFINE_list("layer", None, "Maps, or pool, fc6 ..., logits.", required=True)
_LEVELS = flags.DEFINE_string(
    "levels", "1", "Bins per side of each level of the pyramid, 6,3,2,1; one a layer: 3,2,1/2,1."
)
_REDUCE = flags.DEFINE_enum("reduce", "max", ["max", "mean"], "What a bin holds.")
_SCALE = flags.DEFINE_string(
    "scale", "224", "Shorter side of the whole image, pixels; crop; or warp."
)
_SIZE = flags.DEFINE_integer("size", 0, "Side of crop and warp; 0: the network's.", lower_bound=0)
_NORMALIZE = flags.DEFINE_bool("normalize", False, "Give each layer's vector the length 1.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the file.")
_OUTPUT = flags.DEFINE_string("output", None, "FILE.npz, or FILE.npy to be mapped.", required=True)
_BATCH = flags.DEFINE_integer("batch_size", 32, "Images of a batch.", lower_bound=1)
_PROGRAMS = flags.DEFINE_integer(
    "num_programs", 8, "Programs to compile at most, if memory allows.", lower_bound=1
)
_WORKERS = flags.DEFINE_integer("num_workers", 0, "Loader processes; 0: threads.", lower_bound=0)


def main() -> int:
    output = os.path.expanduser(_OUTPUT.value)
    extraction.check_output(output)
    parts = _parts()
    images, tfds = _IMAGES.value, _TFDS.value
    if bool(tfds) == bool(images):
        raise errors.InputError("give --images=FOLDER or --tfds=NAME, one of them")
    if tfds:
        source = opening.TfdsSource(tfds, _SPLIT.value, os.path.expanduser(_DATA_DIR.value))
    else:
        source = folders.scan_images(os.path.expanduser(images or ""))
    for note in source.notes:
        print(note)
    model, variables, meta = checkpoint.load_with_meta(os.path.expanduser(_CHECKPOINT.value))
    request = extraction.Request(
        parts,
        extraction.make_view(_SCALE.value, _SIZE.value or model.backbone.size),
        _NORMALIZE.value,
        _DTYPE.value,
        _BATCH.value,
        _PROGRAMS.value,
        _WORKERS.value,
    )
    found = extraction.extract_to(
        output,
        model,
        variables,
        source,
        request,
        output_names=meta.class_names,
        has_progress_bar=True,
    )
    for sentence in found.refused:
        print(f"refused: {sentence}")
    print(
        f"{found.features.shape} {found.features.dtype}, {len(found.refused)} refused -> {output}"
    )
    return 0


def _parts() -> tuple[config_lib.Part, ...]:
    pyramids = [cli.parse_levels("--levels", text) for text in _LEVELS.value.split("/")]
    if len(pyramids) == 1:
        pyramids *= len(_LAYER.value)
    if len(pyramids) != len(_LAYER.value):
        raise errors.InputError(
            f"--levels={_LEVELS.value} has {len(pyramids)} pyramids for {len(_LAYER.value)} layers"
        )
    reduce: Any = _REDUCE.value
    return tuple(config_lib.Part(n, levels, reduce) for n, levels in zip(_LAYER.value, pyramids))


if __name__ == "__main__":
    cli.run(main)
