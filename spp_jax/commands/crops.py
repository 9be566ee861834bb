"""Writes crops around objects as class folders to pre-train on: section 4.5's way with ILSVRC DET.

An image is resized to shorter side 400 in place of 256, as DET's objects are small: half an image's
length, not four fifths. Of random crops those are taken that hold half of an object or more, whose
class is the crop's. FOLDER/CLASS/IMAGE_N.jpg are then what configs/folder_multisize.py trains on.
"""

from absl import flags

from spp_jax.commands import cli
from spp_jax.config import fields

EXAMPLES = (
    "--data=VOCROOT --split=train --output=FOLDER",
    "--data=DETROOT --split=train --output=FOLDER --crops=4",
    "--data=VOCROOT --output=FOLDER --shorter_side=256 --share=0.8",
)


def define_flags() -> None:
    flags.DEFINE_string("data", None, "VOC's layout, or DET's arranged so.")
    flags.DEFINE_string("split", "train", "A file of ImageSets/Main.")
    flags.DEFINE_string("output", None, "The folder to write; new or empty.")
    flags.DEFINE_integer("shorter_side", 400, "Of the resized image, pixels.", 1, fields.MAX_SIDE)
    flags.DEFINE_integer("size", 224, "Side of a crop, pixels.", 1, fields.MAX_SIDE)
    flags.DEFINE_float("share", 0.5, "Least share of an object in its crop.", 0.0, 1.0)
    flags.DEFINE_integer("crops", 2, "Crops of an object.", 1, 10_000)
    flags.DEFINE_integer("seed", 0, "Of the places of crops.", lower_bound=0)


def main(arguments: list[str]) -> int:
    del arguments
    data = cli.require("data", "it is a folder of VOC's layout")
    output = cli.require("output", "it is the folder to write")
    from spp_jax.commands import console
    from spp_jax.data import crops
    from spp_jax.data.sources import voc

    given = flags.FLAGS
    source = voc.VocSource(data, given.split)
    cropper = crops.Cropper(given.shorter_side, given.size, given.share, given.crops, given.seed)
    count, refused = crops.write_crops(source, cropper, output, progress=console.Console())
    for sentence in refused:
        print(f"refused: {sentence}")
    print(f"{count} crops of {len(source)} images, {len(refused)} refused -> {output}")
    return 0
