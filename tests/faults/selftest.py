"""A campaign whose cases end in each way there is, for the test of what counts them."""

import os
import pathlib
import signal
import time

import numpy as np

from tests.faults.broken import Broken
from tests.faults.campaign import Campaign
from tests.faults.stage import Stage


def _case(stage: Stage, rng: np.random.Generator, folder: pathlib.Path) -> str:
    """Holds, breaks, dies, hangs, raises, holds."""
    del stage, rng
    number = int(folder.name.split("-")[1])
    if number == 1:
        raise Broken("lost", "as it should be")
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 3:
        time.sleep(60)
    if number == 4:
        raise ValueError("as it should be")
    return "held"


CAMPAIGN = Campaign("selftest", "every way to end", "all are told apart", _case, 6, 0, limit=2)
