"""What every result of a benchmark says of where it comes from."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from typing import Any


def facts(command: str, *libraries: str) -> dict[str, Any]:
    """Returns command, commit, date, machine, and the versions of Python and of libraries."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    # Where the work tree is a copy without its history there is none to tell.
    described = subprocess.run(describe, capture_output=True, text=True, check=False)
    commit = described.stdout.strip() or "unknown"
    return {
        "command": command,
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
        "python": platform.python_version(),
        **{library: importlib.metadata.version(library) for library in libraries},
    }


def write(path: str, result: dict[str, Any]) -> None:
    """Writes the JSON of a benchmark."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
