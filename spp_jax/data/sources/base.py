"""The protocol of a source of images, and how class names of data and of networks are matched.

A source is a sequence of encoded examples in a fixed order, read at random. It can be sent to
loader processes.
"""

import bisect
import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from spp_jax import errors

# WordNet's identifier of an ImageNet class, as in n01440764_10026.JPEG or "n01440764 tench".
WNID = re.compile(r"n[0-9]{8}(?![0-9])")


class Example(NamedTuple):
    """An encoded image, the index of its class, and its name: a path, or "digit_scenes[7]"."""

    data: bytes
    label: int
    name: str


class Source(Protocol):
    """A sequence of examples; reading one raises `errors.ImageError` where its file cannot be read.

    `notes` are sentences for the user about how the source was read: for example which folder was
    taken for a split, and which files were passed over.
    """

    class_names: tuple[str, ...]
    split: str
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def name(self, index: int) -> str:
        """Returns the name of an example without reading it."""
        ...


class Joined:
    """The examples of several sources, one source after the other; the classes of the first."""

    def __init__(self, parts: Sequence[Source]):
        self.class_names = parts[0].class_names
        self.split = "+".join(part.split for part in parts)
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        self._parts = parts
        self._stops = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return self._stops[-1]

    def _find(self, index: int) -> tuple[Source, int]:
        number = bisect.bisect(self._stops, index)
        return self._parts[number], index - (self._stops[number - 1] if number else 0)

    def __getitem__(self, index: int) -> Example:
        part, place = self._find(index)
        return part[place]

    def name(self, index: int) -> str:
        part, place = self._find(index)
        return part.name(place)


def find_class(name: str, class_names: Sequence[str]) -> int:
    """Returns the index of one class in a network's classes as `match_classes` does, -1 if none."""
    try:
        return match_classes([name], class_names, "")[0]
    except errors.InputError:
        return -1


def match_classes(names: Sequence[str], class_names: Sequence[str], where: str) -> list[int]:
    """Returns the index in a network's classes of each class of the data.

    Folders n01440764 and "tench" both match class "n01440764 tench": a class that begins with a
    WordNet identifier is matched by its whole name, by the identifier, and by the rest of its name
    if no other class has the same rest.

    Args:
        names: the classes of the data.
        class_names: the classes of the network.
        where: the name of the data in errors.

    Raises:
        InputError: the network has no such class, or two names match the same class.
    """
    index = {name: i for i, name in reversed(list(enumerate(class_names)))}
    by_wnid = {m[0]: i for name, i in index.items() if (m := WNID.match(name))}
    rests = [WNID.sub("", name, count=1).strip() for name in class_names]
    by_rest = {rest: i for i, rest in enumerate(rests) if rests.count(rest) == 1}
    matched: list[int] = []
    unknown: list[str] = []
    for name in names:
        wnid = WNID.match(name)
        i = index.get(name, by_wnid.get(wnid[0]) if wnid else by_rest.get(name))
        if i is None:
            unknown.append(name)
        elif i in matched:
            raise errors.InputError(
                f"{where}: {name!r} and another are both class {class_names[i]!r}"
            )
        else:
            matched.append(i)
    if unknown:
        raise errors.InputError(
            f"{where}: the network was not trained on class {unknown[0]!r}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        )
    return matched
