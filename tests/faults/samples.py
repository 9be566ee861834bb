"""The small whole files that `readers` mutates, by their paths in a folder."""

import dataclasses
import functools
import io
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore (compiled)

from spp_jax import checkpoint
from spp_jax import config as config_lib
from spp_jax.data import images
from spp_jax.runs import files
from tests.data import test_voc
from tests.interop import encoder

IDS, CLASSES = ("a", "b c", "000005"), ("dog", "cat")
TFDS = "mutated_set"
# Files that are read, and not mutated.
UNTOUCHED = ("array_record-00000-of-00001",)

_ROWS = [[0.0, 0, 9, 9], [1.5, 2, 30, 40], [5, 5, 6, 100]]


def annotations() -> dict[str, bytes]:
    """Returns annotations with and without a size, by several tools."""
    dog, cat = (
        test_voc.make_object("dog", (1, 1, 20, 10)),
        test_voc.make_object("cat", (3, 4, 5, 6), 1),
    )
    size = "<size><width>20</width><height>10</height><depth>3</depth></size>"
    declared = '<?xml version="1.0" encoding="utf-8"?>\n'
    part = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part></object>"
    texts = {
        "a": f"<annotation>{size}{dog}{cat}</annotation>",
        "b": f"{declared}<annotation>\n{dog}\n{cat.replace('</object>', part)}\n</annotation>",
        "c": f'<?xml version="1.0" encoding="gb2312"?><annotation>{size}{dog}</annotation>',
    }
    return {f"Annotations/{name}.xml": text.encode() for name, text in texts.items()}


def npz() -> dict[str, bytes]:
    """Returns windows in archives, deflated or not."""
    whole = {}
    for name, save in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        file = io.BytesIO()
        arrays: dict[str, Any] = {i: np.asarray(_ROWS, np.float32) for i in IDS}
        save(file, **arrays)
        whole[name] = file.getvalue()
    return whole


def json_windows() -> dict[str, bytes]:
    """Returns windows in JSON."""
    return {"a.json": json.dumps(dict.fromkeys(IDS, _ROWS) | {"none": []}).encode()}


def _checked(entries: dict[str, Any]) -> bytes:
    return json.dumps({**entries, "crc32": files.checksum(entries)}, indent=1).encode()


def detector_files() -> dict[str, bytes]:
    """Returns a detector's config and data as older versions write them, without checksums."""
    config = dataclasses.asdict(config_lib.DetectionConfig())
    data = {"class_names": list(CLASSES), "digest": "0123", "network": 2269603836}
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "data.json": json.dumps(data).encode(),
    }


def entries() -> dict[str, bytes]:
    """Returns entries of SVMs with their checksum."""
    values = {f"[{i}]": {"map": 0.25 * i, "splits": [0.5], "layer": "fc6"} for i in range(3)}
    return {"entries.json": _checked(values)}


def meta() -> dict[str, bytes]:
    """Returns metadata of a checkpoint, with and without their checksum."""
    stored: dict[str, Any] = {
        "step": 3,
        "config": dataclasses.asdict(config_lib.Config()),
        "class_names": list(CLASSES),
        "num_examples": 7,
        "metrics": {"top1": 0.5},
        "versions": {"spp_jax": "0.1.0"},
    }
    checked = {**stored, "metadata_crc32": checkpoint._metadata_checksum(stored)}
    return {"old": json.dumps(stored).encode(), "new": json.dumps(checked).encode()}


@functools.cache
def tfds_set() -> dict[str, bytes]:
    """Returns a prepared set of four examples, as TFDS writes it."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }
    )
    png = images.encode(np.zeros((8, 8, 3), np.uint8), ".png")
    record = f"{TFDS}-train.array_record-00000-of-00001"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        writer = array_record_module.ArrayRecordWriter(str(path / record), "group_size:1")
        for label in range(4):
            example = {"image": io.BytesIO(png), "label": label % 2}
            encoded = features.encode_example(example)
            writer.write(features.serialize_example(encoded))
        writer.close()
        features.save_metadata(folder, feature_name=None)
        features.save_config(folder)
        whole = {each.name: each.read_bytes() for each in path.iterdir()}
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "train",
        "numBytes": "300",
        "shardLengths": ["4"],
    }
    info = {"fileFormat": "array_record", "name": TFDS, "splits": [split], "version": "1.0.0"}
    whole["dataset_info.json"] = json.dumps(info, indent=2).encode()
    return {f"{TFDS}/1.0.0/{name}": data for name, data in whole.items()}


def weights() -> dict[str, bytes]:
    """Returns weights in Caffe's three forms, and in an archive."""
    rng = np.random.default_rng(0)
    layers = {
        "conv1": [rng.normal(size=(4, 3, 2, 2)).astype("f4"), rng.normal(size=4).astype("f4")],
        "fc": [rng.normal(size=(5, 9)).astype("f4"), rng.normal(size=5).astype("f4")],
    }
    whole = {f"{form}.caffemodel": encoder.net(layers, form) for form in encoder.FORMS}
    whole["doubles.caffemodel"] = encoder.net(layers, is_double=True, is_packed=False)
    file = io.BytesIO()
    arrays: dict[str, Any] = {"conv1/kernel": layers["conv1"][0].transpose(2, 3, 1, 0)}
    arrays["conv1/bias"] = layers["conv1"][1]
    np.savez(file, **arrays)
    whole["weights.npz"] = file.getvalue()
    return whole


def detections() -> dict[str, bytes]:
    """Returns detections of two classes."""
    lines = [f"{i} {0.5 + k:.6f} {1 + k}.000 2.5 20 {30 + k}" for k, i in enumerate(IDS)]
    text = "\n".join(lines + lines) + "\n"
    return {f"comp4_det_test_{name}.txt": text.encode() for name in CLASSES}


def image_sets() -> dict[str, bytes]:
    """Returns an image set and the labels of two classes."""
    whole = {"ImageSets/Main/test.txt": "\n".join(IDS) + "\n"}
    for name in CLASSES:
        lines = [f"{i} {k - 1:2d}" for k, i in enumerate(IDS)]
        whole[f"ImageSets/Main/{name}_test.txt"] = "\n".join(lines) + "\n"
    return {name: text.encode() for name, text in whole.items()}


def metrics() -> dict[str, bytes]:
    """Returns the lines of a run of five steps."""
    lines = [{"step": k, "loss": 1 / (k + 1), "batch_hash": f"{k:08x}"} for k in range(5)]
    lines.insert(2, {"step": 1, "protocol": "center", "top1": 0.5, "refused": []})
    return {"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()}


def class_names() -> dict[str, bytes]:
    """Returns names of classes, one per line, as editors write them."""
    text = "\n".join([*CLASSES, "tench, Tinca tinca", "\u00e9toile"]) + "\n"
    return {"names.txt": text.encode(), "bom.txt": text.encode("utf-8-sig")}
