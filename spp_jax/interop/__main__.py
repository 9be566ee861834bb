"""Imports published weights: python -m spp_jax.interop --backbone=NAME --weights=FILE
--classes=FILE --output=DIR.

Writes a checkpoint that spp_jax.load and eval.py take. docs/pretrained.md says more.
"""

import os

from absl import flags

from spp_jax import cli
from spp_jax.interop import pretrained
from spp_jax.models import backbones

_BACKBONE = flags.DEFINE_enum("backbone", None, list(backbones.BACKBONES), "", required=True)
_WEIGHTS = flags.DEFINE_string("weights", None, "A .caffemodel or an .npz.", required=True)
_CLASSES = flags.DEFINE_string(
    "classes", None, "Text: a class a line, in the order of the network's outputs.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Where the checkpoint goes.", required=True)
_LEVELS = flags.DEFINE_string(
    "levels",
    None,
    'Bins per side of each pyramid level, "()" for the network without SPP; default: as published.',
)
_REDUCE = flags.DEFINE_enum("reduce", None, ["max", "mean"], "Default: as published.")
_FRESH_HEAD = flags.DEFINE_bool(
    "fresh_head", False, "Take the convolutions only and start a new head from seed 0."
)
_UNSCALED_DROPOUT = flags.DEFINE_bool(
    "unscaled_dropout", False, "The file is of the authors' Caffe: halve fc7 and fc8."
)


def main() -> int:
    weights, classes, output = (
        os.path.expanduser(flag.value) for flag in (_WEIGHTS, _CLASSES, _OUTPUT)
    )
    class_names = pretrained.read_class_names(classes)
    config = pretrained.make_config(
        _BACKBONE.value,
        len(class_names),
        levels=None if _LEVELS.value is None else cli.parse_levels("--levels", _LEVELS.value),
        reduce=_REDUCE.value,
    )
    found = pretrained.import_weights(
        config,
        weights,
        class_names,
        output,
        fresh_head=_FRESH_HEAD.value,
        unscaled_dropout=_UNSCALED_DROPOUT.value,
    )
    model = config.model
    print(
        f"{model.name}, levels {model.levels}, {model.reduce}: {found.num_layers} layers of "
        f"{weights}, {found.num_parameters:,} parameters, {len(class_names)} classes"
    )
    if found.left_out:
        print(f"left out: {', '.join(found.left_out)}")
    if _FRESH_HEAD.value:
        print("the head is new, initialised with seed 0 (--fresh_head): train it before use")
    print(f"-> {output}")
    print(f"python eval.py --workdir={output} --protocol=center --config.data.path=FOLDER")
    return 0


if __name__ == "__main__":
    cli.run(main)
