"""The files that README's and the guides' commands are about, made of noise, under their names.

FOLDER, photos, TARS, VOCROOT and ILSVRC, and GoogLeNet with random weights as
bvlc_googlenet.caffemodel and WEIGHTS (.npz: files are told apart by content) with its CLASSES.
"""

import math
import os
import pathlib
from typing import Any

import flax.traverse_util
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds

import spp_jax
from spp_jax.interop import conversion
from spp_jax.models import sppnet
from tools import official_tars

CLASSES = ("apple", "bead")
# Corners as VOC has them: counted from 1, both inclusive.
_ANNOTATION = (
    "<annotation><size><width>{1}</width><height>{0}</height></size><object><name>{2}</name>"
    "<bndbox><xmin>41</xmin><ymin>31</ymin><xmax>100</xmax><ymax>90</ymax></bndbox></object>"
    "</annotation>"
)


def write_all() -> None:
    """Writes everything into the current folder."""
    rng = np.random.default_rng(0)
    for number in range(24):
        name = CLASSES[number % 2]
        write_photo(rng, f"FOLDER/{name}/{number}.jpg", number % 2)
    for number in range(3):
        write_photo(rng, f"photos/{number}.jpg", number % 2)
    write_tars(rng)
    write_voc(rng, pathlib.Path("VOCROOT"), {"trainval": 8, "test": 4})
    # DET as it is distributed, which docs/detection.md arranges.
    for split in ("train", "val"):
        write_voc(rng, pathlib.Path("det"), {split: 6})
        for kind, folder in (("Annotations", "Annotations/DET"), ("JPEGImages", "Data/DET")):
            os.makedirs(f"ILSVRC/{folder}", exist_ok=True)
            os.rename(f"det/{kind}", f"ILSVRC/{folder}/{split}")
        os.makedirs("ILSVRC/ImageSets/DET", exist_ok=True)
        os.rename(f"det/ImageSets/Main/{split}.txt", f"ILSVRC/ImageSets/DET/{split}.txt")
    write_weights(rng)


def write_photo(rng: np.random.Generator, path: str, kind: int) -> tuple[int, int]:
    """Writes a JPEG with an object, a square of a colour of its class; returns (height, width)."""
    height, width = (int(side) for side in rng.integers(100, 180, 2))
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    image[30:90, 40:100] = (220, 40, 40) if kind else (40, 40, 220)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pathlib.Path(path).write_bytes(simplejpeg.encode_jpeg(image))
    return height, width


def write_voc(rng: np.random.Generator, root: pathlib.Path, counts: dict[str, int]) -> None:
    """Writes VOC's layout with so many images a split."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        ids = [f"{split}{i}" for i in range(count)]
        for i, image_id in enumerate(ids):
            size = write_photo(rng, str(root / f"JPEGImages/{image_id}.jpg"), i % 2)
            annotation = _ANNOTATION.format(*size, CLASSES[i % 2])
            (root / f"Annotations/{image_id}.xml").write_text(annotation)
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(ids) + "\n")


def write_tars(rng: np.random.Generator) -> None:
    """Writes TARS, the official two with a few images."""
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    for wnid in sorted(set(labels))[:24]:
        write_photo(rng, f"wnids/{wnid}_1.JPEG", 0)
    os.makedirs("TARS")
    official_tars.make_tars("wnids", "TARS")


def write_weights(rng: np.random.Generator) -> None:
    """Writes GoogLeNet's layers by their published names, and the names of its classes."""
    model = spp_jax.make_model("googlenet", levels=(1,), reduce="mean")
    head = conversion.head_names(model.backbone)
    arrays = {}
    shapes: Any = flax.traverse_util.flatten_dict(sppnet.param_shapes(model), sep="/")
    for path, spec in shapes.items():
        part, name = path.split("/", 1)
        layer, kind = name.rsplit("/", 1)
        scale = math.sqrt(2 / math.prod(spec.shape[:-1])) if kind == "kernel" else 0.01
        published = layer if part == "backbone" else head[layer]
        # Pixels are about 64 from their mean: the first layer, which has 3 inputs, scales them.
        scale /= 64 if spec.shape[-2:-1] == (3,) else 1
        arrays[f"{published}/{kind}"] = scale * rng.normal(size=spec.shape).astype(np.float32)
    for file in ("bvlc_googlenet.caffemodel", "WEIGHTS"):
        with open(file, "wb") as f:
            np.savez(f, **arrays)
    names = [*CLASSES, *(f"class {i}" for i in range(len(CLASSES), 1000))]
    pathlib.Path("CLASSES").write_text("\n".join(names) + "\n")
