"""Imports published weights: writes a checkpoint that spp_jax.load and eval.py take.

docs/pretrained.md says where the files are and what was compared.
"""

from absl import flags

from spp_jax.commands import cli

EXAMPLES = (
    "--backbone=googlenet --weights=bvlc_googlenet.caffemodel --classes=imagenet_classes.txt"
    " --output=runs/googlenet",
    "--backbone=zf5 --weights=WEIGHTS.npz --classes=CLASSES.txt --output=runs/zf5 --fresh_head",
    "--backbone=squeezenet1_1 --weights=WEIGHTS.caffemodel --classes=CLASSES.txt --output=DIR"
    " --levels=6,3,2,1",
)


def define_flags() -> None:
    flags.DEFINE_string("backbone", None, "A name that `spp networks` lists.")
    flags.DEFINE_string("weights", None, "A .caffemodel or an .npz.")
    flags.DEFINE_string(
        "classes", None, "Text: one class per line, in the order of the network's outputs."
    )
    flags.DEFINE_string("output", None, "Where the checkpoint goes.")
    flags.DEFINE_string(
        "levels",
        None,
        'Bins per side of each pyramid level, "()" for the network without SPP; if not given: as '
        "published.",
    )
    flags.DEFINE_enum("reduce", None, ["max", "mean"], "If not given: as published.")
    flags.DEFINE_bool(
        "fresh_head", False, "Take the convolutions only and start a new head from seed 0."
    )
    flags.DEFINE_bool(
        "unscaled_dropout", False, "The file is of the authors' Caffe: halve fc7 and fc8."
    )


def main(arguments: list[str]) -> int:
    del arguments
    backbone = cli.require("backbone", "it is a name that `spp networks` lists")
    weights = cli.require("weights", "it is a .caffemodel or an .npz")
    classes = cli.require("classes", "it is a text with one class per line")
    output = cli.require("output", "it is the folder that the checkpoint goes to")
    from spp_jax.interop import pretrained

    given = flags.FLAGS
    class_names = pretrained.read_class_names(classes)
    config = pretrained.make_config(
        backbone,
        len(class_names),
        levels=None if given.levels is None else cli.parse_levels("--levels", given.levels),
        reduce=given.reduce,
    )
    imported = pretrained.import_weights(
        config,
        weights,
        class_names,
        output,
        fresh_head=given.fresh_head,
        unscaled_dropout=given.unscaled_dropout,
    )
    model = config.model
    print(
        f"{model.name}, levels {model.levels}, {model.reduce}: {imported.num_layers} layers of "
        f"{weights}, {imported.num_parameters:,} parameters, {len(class_names)} classes"
    )
    if imported.left_out:
        print(f"left out: {', '.join(imported.left_out)}")
    if given.fresh_head:
        print("the head is new, initialised with seed 0 (--fresh_head): train it before use")
    print(f"-> {output}")
    print(f"python eval.py --workdir={output} --protocol=center --config.data.path=FOLDER")
    return 0
