"""Fields of configs: each says what it is for, what it may be, and whether a resumed run may
change it.

A config is nested dataclasses of such fields. A path names one of them: "train.sizes".
"""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from spp_jax import errors

T = TypeVar("T")

# Ceilings of fields: what is beyond them is a slip of the pen, and would fill the memory or the
# disk long before it is of use.
MAX_SIDE = 16_384  # pixels
MAX_LEVEL = 64  # bins per side
MAX_BATCH = 65_536
MAX_PROCESSES = 1_024
MAX_COUNT = 2**31 - 1  # of what is counted in 32 bits, as steps are
MAX_FLOAT = 1_000_000
_MAX_ITEMS = 1_000  # of a tuple


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field is for and what it may be; of a tuple the limits hold for each item.

    Attributes:
        comment: for users, one or more sentences.
        above, at_least, below, at_most: limits of a number.
        ceiling: the largest number that can be meant.
        one_of: the values there are.
        is_increasing: whether each item of a tuple must be more than the one before.
        is_filled: whether a tuple must have an item.
        may_change: whether a run may go on with another value without being another run.
        normalize: returns a value in its one form.
    """

    comment: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    ceiling: float | None = None
    one_of: tuple[Any, ...] = ()
    is_increasing: bool = False
    is_filled: bool = False
    may_change: bool = False
    normalize: Callable[[Any], Any] | None = None

    def allows(self, value: Any) -> bool:
        """Returns whether a value, of the field's type, is within the limits; NaN is in none."""
        items = value if isinstance(value, tuple) else (value,)
        return (
            all(self._allows_item(item) for item in items)
            and not (self.is_increasing and list(value) != sorted(set(value)))
            and not (self.is_filled and not value)
        )

    def _allows_item(self, item: Any) -> bool:
        return (
            (self.above is None or item > self.above)
            and (self.at_least is None or item >= self.at_least)
            and (self.below is None or item < self.below)
            and (self.at_most is None or item <= self.at_most)
            and (not self.one_of or item in self.one_of)
        )

    def excess(self, value: Any) -> str:
        """Returns the ceiling in words where a value is above it, as "at most 64", or ""."""
        items = value if isinstance(value, tuple) else (value,)
        if len(items) > _MAX_ITEMS:
            return f"at most {_MAX_ITEMS} numbers"
        if self.ceiling is not None and any(item > self.ceiling for item in items if item):
            return f"at most {self.ceiling:,}"
        return ""

    def wanted(self) -> str:
        """Returns the limits in words, as "from 0 to below 1"; "" where there are none."""
        low = "" if self.above is None else f"more than {self.above}"
        low = low if self.at_least is None else f"at least {self.at_least}"
        high = "" if self.below is None else f"below {self.below}"
        high = high if self.at_most is None else f"at most {self.at_most}"
        if self.at_least is not None and high:
            low, high = f"from {self.at_least}", high.replace("at most", "").strip()
        words = (" to " if low.startswith("from") else " and ").join(x for x in (low, high) if x)
        if self.one_of:
            words = f"one of {', '.join(map(str, self.one_of))}"
        if self.is_increasing:
            words = ", ".join(x for x in ("increasing", words) if x)
        return ", ".join(x for x in (words, "at least one" if self.is_filled else "") if x)


class Entry(NamedTuple):
    """A field of a config: its path, type, rule, and the value that the config has there."""

    path: str
    kind: Any
    rule: Rule
    value: Any

    @property
    def kind_name(self) -> str:
        """The type in words: "int", "tuple[int, ...]"."""
        return str(self.kind) if typing.get_args(self.kind) else self.kind.__name__


def field(default: Any, comment: str, **rule: Any) -> Any:
    """Declares a field of a config by its default, its comment and the other parts of a `Rule`."""
    return dataclasses.field(default=default, metadata={"rule": Rule(comment, **rule)})


def path_field(comment: str, *, default: str = "", may_change: bool = False) -> Any:
    """Declares a field that holds the path of a file or folder; "" is none."""

    def whole(value: Any) -> Any:
        return whole_path(value) if isinstance(value, str) else value

    return field(default, comment, may_change=may_change, normalize=whole)


def whole_path(path: str | os.PathLike[str]) -> str:
    """Returns the absolute path of what a user wrote: "~" is home, "" stays "".

    An address, "gs://bucket/folder", is returned as it is.
    """
    path = os.fspath(path)
    return os.path.abspath(os.path.expanduser(path)) if path and "://" not in path else path


def entries(config: Any, prefix: str = "") -> Iterator[Entry]:
    """Yields every field that is no section of its own, in order."""
    hints = typing.get_type_hints(type(config))
    for each in dataclasses.fields(config):
        value, path = getattr(config, each.name), prefix + each.name
        if dataclasses.is_dataclass(value):
            yield from entries(value, path + ".")
        else:
            yield Entry(path, hints[each.name], each.metadata["rule"], value)


def normalize(config: Any) -> None:
    """Puts every value into its one form, in place: paths, for one, are made absolute."""
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            normalize(value)
        elif each.metadata["rule"].normalize:
            setattr(config, each.name, each.metadata["rule"].normalize(value))


def validate(config: T, *, stored: T | None = None) -> None:
    """Normalises a config, in place, and raises InputError for the first wrong value.

    That is one of another type than its field's, which presets and the command line let pass; one
    that its field does not allow; or one that does not fit another, of which the config's own
    `check_together` knows.

    Args:
        config: of any kind.
        stored: the normalised config of a checkpoint or workdir that `config` is, or goes on with.
            Its values may be above ceilings, which older versions did not have.
    """
    normalize(config)
    before = {entry.path: entry.value for entry in entries(stored)} if stored is not None else {}
    for entry in entries(config):
        path, kind, rule, value = entry
        if not _is_of(value, kind):
            raise errors.InputError(
                f"config.{path} must be {entry.kind_name}, got {_shorten(value, repr)}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise errors.InputError(f"config.{path} must be a finite number, got {value}")
        if isinstance(value, str) and "\0" in value:
            raise errors.InputError(
                f"config.{path} must hold no zero byte, got {_shorten(value, repr)}"
            )
        if not rule.allows(value):
            raise errors.InputError(f"config.{path} must be {rule.wanted()}, got {_shorten(value)}")
        if rule.excess(value) and not (path in before and before[path] == value):
            raise errors.InputError(
                f"config.{path} must be {rule.excess(value)}, got {_shorten(value)}"
            )
    # Every kind of config has it.
    typing.cast(Any, config).check_together(stored)


def _shorten(value: Any, write: Callable[[Any], str] = str) -> str:
    """Returns a value as one line of 100 characters or a little more."""
    try:
        text = write(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    text = errors.printable(" ".join(text.split("\n")))
    return text if len(text) <= 100 else f"{text[:100]}..."


def difference(old: T, new: T) -> str | None:
    """Returns "config.seed was 0 and is 1" for the first field that makes it another run, or None.

    `old` and `new` are normalised configs of one type.
    """
    for before, after in zip(entries(old), entries(new)):
        if before.value != after.value and not after.rule.may_change:
            return f"config.{after.path} was {before.value!r} and is {after.value!r}"
    return None


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """Returns the normalised config that `dataclasses.asdict` made a dictionary, also after JSON.

    Raises:
        InputError: a field that this version does not have.
    """
    config = _from_dict(kind, values, "config")
    normalize(config)
    return config


def _from_dict(kind: type[T], values: dict[str, Any], path: str) -> T:
    if not isinstance(values, dict):
        raise errors.InputError(f"{path} must be an object of fields, got {values!r:.100}")
    hints = typing.get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise errors.InputError(f"{path}.{name} is no field of this version of spp_jax")
        if dataclasses.is_dataclass(hints[name]):
            value = _from_dict(typing.cast(type, hints[name]), value, f"{path}.{name}")
        given[name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is_of(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_of(v, item) for v in value)
    return type(value) is kind or (kind is float and type(value) is int)
