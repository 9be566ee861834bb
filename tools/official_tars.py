"""Makes small tars of ImageNet's official layout from a folder of nWNID_*.JPEG."""

import io
import os
import re
import tarfile

import cv2
import numpy as np
import tensorflow_datasets as tfds

# TFDS's own builder gives the sorted images of the validation tar its labels from the first on,
# whatever their numbers: a small tar has right labels only if it holds number 1, 2 ... A number
# whose class has no image in the folder is a grey square.
NUM_VALIDATION = 64


def make_tars(images: str, directory: str) -> None:
    """Writes ILSVRC2012_img_train.tar and _val.tar into a directory."""
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    left = {name[:9]: name for name in sorted(os.listdir(images)) if re.match(r"n\d{8}_", name)}
    _, grey = cv2.imencode(".jpg", np.full((300, 400, 3), 128, np.uint8))
    num_real = 0
    with tarfile.open(os.path.join(directory, "ILSVRC2012_img_val.tar"), "w") as tar:
        for number, wnid in enumerate(labels[:NUM_VALIDATION], 1):
            name = left.pop(wnid, None)
            num_real += name is not None
            data = _read(os.path.join(images, name)) if name else grey.tobytes()
            _add(tar, f"ILSVRC2012_val_{number:08}.JPEG", data)
    with tarfile.open(os.path.join(directory, "ILSVRC2012_img_train.tar"), "w") as tar:
        for wnid, name in left.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as class_tar:
                _add(class_tar, f"{wnid}_1.JPEG", _read(os.path.join(images, name)))
            _add(tar, f"{wnid}.tar", inner.getvalue())
    print(f"tars: {len(left)} training images, {num_real} of {NUM_VALIDATION} validation images")


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
