"""Prints the digest of a workdir's newest checkpoint: python -m tests.faults.digest WORKDIR"""

import pathlib
import sys

from tests.faults import work

if __name__ == "__main__":
    print(work.parameters(pathlib.Path(sys.argv[1])))
