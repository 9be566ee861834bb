"""The official tars of ILSVRC 2012: the place of each image in them, and its class.

ILSVRC2012_img_train.tar is a tar of class tars nXXXXXXXX.tar, ILSVRC2012_img_val.tar one of images.
The classes, their order and the labels of the validation images are from the lists TFDS ships.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow_datasets as tfds

from spp_jax import errors
from spp_jax.runs import files

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
NUM_OFFICIAL = {"train": 1_281_167, "validation": 50_000}
# The most members of a tar, which are all kept in memory; no official tar has more than 50,000.
MAX_MEMBERS = 2**20
# The most bytes of a header that a tar's reader reads at once: a member's long name.
_MAX_HEADER = 2**20


class Item(NamedTuple):
    """A file in a tar: its first byte, number of bytes, name and class."""

    offset: int
    size: int
    name: str
    label: int


def find_tars(manual_dir: str) -> dict[str, str]:
    """Returns {split: path} of the official tars.

    Raises:
        InputError: one of the tars is missing.
    """
    paths = {split: os.path.join(manual_dir, name) for split, name in TARS.items()}
    for path in paths.values():
        if not os.path.isfile(path):
            raise errors.InputError(
                f"no file {path}; that folder must hold {' and '.join(TARS.values())} from "
                "image-net.org"
            )
    return paths


def load_wnids() -> list[str]:
    """Returns the 1000 classes in the order of TFDS's own imagenet2012, which is sorted."""
    return _read_tfds_words("labels.txt")


def list_class_tars(tar: str) -> list[Item]:
    """Lists the class tars in the training tar, in the order of their labels."""
    labels = {wnid: label for label, wnid in enumerate(load_wnids())}
    items = []
    for member in _members(tar):
        name = os.path.basename(member.name)
        label = labels.get(name.removesuffix(".tar"))
        if label is None or not name.endswith(".tar"):
            raise errors.InputError(
                f"{tar} holds {name!r}, which is not the tar of one of the {len(labels)} classes"
            )
        items.append(Item(member.offset_data, member.size, name, label))
    if not items:
        raise errors.InputError(f"{tar} holds no class tars")
    return sorted(items, key=lambda item: item.label)


def list_class(tar: str, class_tar: Item) -> list[Item]:
    """Lists the images of one of the class tars in the training tar."""
    items = [
        _image(tar, member, class_tar.label)
        for member in _members(tar, class_tar.offset, class_tar.name)
    ]
    if items and items[-1].offset + items[-1].size > class_tar.offset + class_tar.size:
        raise errors.InputError(f"{tar}: {class_tar.name} in it is damaged")
    return items


def list_validation(tar: str) -> list[Item]:
    """Lists the images of the validation tar; line i of TFDS's list is the class of image i."""
    order = {wnid: label for label, wnid in enumerate(load_wnids())}
    labels = [order[wnid] for wnid in _read_tfds_words("validation_labels.txt")]
    items = []
    for member in _members(tar):
        name = os.path.basename(member.name)
        match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", name)
        if match is None or not 1 <= int(match[1]) <= len(labels):
            raise errors.InputError(
                f"{tar} holds {name!r}, which is none of ILSVRC2012_val_00000001.JPEG to "
                f"{len(labels):08}"
            )
        items.append(_image(tar, member, labels[int(match[1]) - 1]))
    return items


def _members(tar: str, offset: int = 0, name: str = "") -> Iterator[tarfile.TarInfo]:
    """Yields the files of a tar, or of the tar `name` that begins at `offset` of it.

    Raises:
        InputError: the tar is damaged, or has more than MAX_MEMBERS members.
    """
    where = f"{tar}: {name} in it" if name else tar
    try:
        with files.Bounded(files.open_regular(tar), _MAX_HEADER) as f:
            f.seek(offset)
            with tarfile.open(fileobj=f, mode="r:") as opened:
                for count, member in enumerate(opened):
                    if count == MAX_MEMBERS:
                        raise errors.InputError(f"{where} has more than {MAX_MEMBERS:,} members")
                    if member.isfile():
                        yield member
    except errors.InputError:
        raise
    # tarfile answers some damage with ValueError, as does a header beyond its limit.
    except (tarfile.TarError, ValueError) as e:
        raise errors.InputError(f"{where} is damaged or no tar ({e})") from e


def _image(tar: str, member: tarfile.TarInfo, label: int) -> Item:
    """Returns the place of an image in a tar; raises InputError for one too large to read."""
    if not 0 <= member.size <= files.MAX_BYTES:
        raise errors.InputError(
            f"{tar}: {member.name!r} in it claims {member.size:,} bytes, more than the limit of "
            f"{files.MAX_BYTES:,}"
        )
    return Item(member.offset_data, member.size, os.path.basename(member.name), label)


def _read_tfds_words(name: str) -> list[str]:
    """Reads a list that TFDS ships for its own imagenet2012."""
    path = tfds.core.tfds_path(f"datasets/imagenet2012/{name}")
    try:
        return path.read_text().split()
    except OSError as e:
        raise errors.InputError(
            f"tensorflow_datasets {tfds.__version__} has no {path}; version 4.9.10 has it"
        ) from e
