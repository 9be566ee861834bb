"""Opens builders of TFDS without running what their files name.

The file of a prepared set names a class for each feature, as "my_project.features.Mask", and TFDS
imports any module of that name: a folder of somebody else's could run any module it likes.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

from spp_jax import errors

_lock = threading.RLock()


def open_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns `tfds.builder(name)`, whose features are TFDS's own, or of classes imported before.

    Raises:
        InputError: the files of the set name another class, or the name begins with a namespace
            as "huggingface:", of which TFDS would download data and programs.
        Exception: as `tfds.builder`.
    """
    if naming.parse_builder_name_kwargs(name)[0].namespace:
        raise errors.InputError(
            f"{errors.printable(name)} is of a namespace; only sets of TFDS itself, and sets "
            "prepared in its folder, are read"
        )
    with _known_classes(name):
        builder = tfds.builder(name, data_dir=data_dir)
        _ = builder.info  # read here, not when it is first needed
        return builder


@contextlib.contextmanager
def _known_classes(name: str) -> Iterator[None]:
    """Makes TFDS refuse, within the block, features of classes that are not imported yet."""
    kind: Any = tfds.features.FeatureConnector
    refused: list[str] = []

    def class_of(cls: Any, class_name: str) -> Any:
        if class_name not in cls._registered_features:
            refused.append(class_name)
            raise ValueError(class_name)
        return cls._registered_features[class_name]

    with _lock:
        original = kind.__dict__["cls_from_name"]
        kind.cls_from_name = classmethod(class_of)
        try:
            yield
        # TFDS wraps what is raised within it in exceptions of other types.
        except Exception as e:
            if refused:
                raise errors.InputError(
                    f"{name}: its features.json names the class {errors.printable(refused[0])}, "
                    "which is none of TFDS's own features; import its module first if you trust it"
                ) from e
            raise
        finally:
            kind.cls_from_name = original
