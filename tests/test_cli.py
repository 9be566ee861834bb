"""What the commands share, as it shows in a process of its own."""

import os
import subprocess
import sys

SCRIPT = """
import sys
from spp_jax import cli

def main():
    print("caf\\udce9.jpg, caf\\xe9.jpg")
    print("refused: caf\\udce9.jpg", file=sys.stderr)
    return 0

cli.run(main)
"""


def test_any_name_can_be_printed_where_output_is_strict():
    for encoding, shown in (("utf-8", "caf\xe9"), ("ascii", r"caf\xe9")):
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
            capture_output=True,
            check=True,
        )
        assert found.stdout.decode(encoding) == rf"caf\udce9.jpg, {shown}.jpg" + "\n"
        assert found.stderr.decode(encoding) == r"refused: caf\udce9.jpg" + "\n"
