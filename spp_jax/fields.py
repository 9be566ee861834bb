"""Nested dataclasses of fields: walked, checked, compared, and kept as JSON.

What `config.Config` and the other presets' types share. A path is "train.sizes".
"""

import dataclasses
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from spp_jax import errors, files

T = TypeVar("T")


def path_field(default: str = "") -> str:
    """Declares a field that holds the path of a file or folder; "" is none."""
    return dataclasses.field(default=default, metadata={"is_path": True})


def make_paths_whole(config: Any) -> None:
    """Makes every path of a config absolute, in place: a workdir is used from other folders too."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            make_paths_whole(value)
        elif field.metadata.get("is_path"):
            setattr(config, field.name, files.whole_path(value))


def difference(old: T, new: T, free: Collection[str]) -> str | None:
    """Returns "config.seed was 0 and is 1" for the first field that differs, None if none does.

    Args:
        old, new: of one type, with whole paths.
        free: paths of fields that may differ.
    """
    before = dict(walk(old))
    for path, value in walk(new):
        if path not in free and value != before[path]:
            return f"config.{path} was {before[path]!r} and is {value!r}"
    return None


def walk(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Returns (path, value) of every field that is no dataclass itself, in order."""
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name
        is_section = dataclasses.is_dataclass(value)
        found += walk(value, path + ".") if is_section else [(path, value)]
    return found


def check_types(config: Any) -> None:
    """Raises InputError for the first value that is not of its field's type.

    The command line lets ("a",) pass for a tuple of integers; presets can hold anything.
    """
    for path, value in walk(config):
        kind: Any = type(config)
        for name in path.split("."):
            kind = typing.get_type_hints(kind)[name]
        if not _is_of(value, kind):
            raise errors.InputError(f"config.{path} must be {kind}, got {value!r}")


def check_numbers(config: Any, *, positive: str, not_negative: str) -> None:
    """Raises InputError for the first value that is not more than 0, or is less.

    Args:
        config: of right types.
        positive: paths with spaces between them, of values that must be more than 0.
        not_negative: those of values that must be at least 0.
    """
    values = dict(walk(config))
    for path in positive.split():
        if not values[path] > 0:  # nor is what is no number
            raise errors.InputError(f"config.{path} must be more than 0, got {values[path]}")
    for path in not_negative.split():
        if not values[path] >= 0:
            raise errors.InputError(f"config.{path} must be at least 0, got {values[path]}")


def from_dict(kind: type[T], values: dict[str, Any], path: str = "config") -> T:
    """Returns the config that `dataclasses.asdict` made a dictionary, also after JSON.

    Its paths are made whole: earlier versions stored them as they were given.

    Raises:
        InputError: a field that this version does not have.
    """
    hints = typing.get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise errors.InputError(f"{path}.{name} is no field of this version of spp_jax")
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(typing.cast(type, hints[name]), value, f"{path}.{name}")
        given[name] = tuple(value) if isinstance(value, list) else value
    config = kind(**given)
    make_paths_whole(config)
    return config


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is_of(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_of(v, item) for v in value)
    return type(value) is kind or (kind is float and type(value) is int)
