"""What a campaign and a case of it are."""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from tests.faults import stage

SEED = 20261129

# Runs a case in an empty folder of its own, and returns in a word how the project held.
Case = Callable[[stage.Stage, np.random.Generator, pathlib.Path], str]


@dataclasses.dataclass(frozen=True)
class Campaign:
    """Many cases of one kind of fault.

    Attributes:
        name: of the campaign, as `--only` takes it.
        fault: what is done, for people.
        right: what must come of it, for people.
        case: runs one.
        count: cases of the whole campaign.
        short: cases of its short form; 0 leaves it out.
        faults: of one case, as where one run is killed several times.
        limit: seconds that a case may take.
        needs: the works of `work.ALL` whose unbroken results its cases use.
    """

    name: str
    fault: str
    right: str
    case: Case
    count: int
    short: int
    faults: int = 1
    limit: float = 120.0
    needs: tuple[str, ...] = ()

    def rng(self, number: int) -> np.random.Generator:
        """Returns the generator of a case."""
        return np.random.default_rng([SEED, zlib.crc32(self.name.encode()), number])
