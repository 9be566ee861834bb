"""Nested dataclasses of fields: walked, checked against their types, and kept as JSON.

What `config.Config` and the other presets' types share. A path is "train.sizes".
"""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from spp_jax import errors

T = TypeVar("T")


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
    return kind(**given)


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is_of(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_of(v, item) for v in value)
    return type(value) is kind or (kind is float and type(value) is int)
