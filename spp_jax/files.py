"""Files that are there whole or not at all."""

import json
import os
import uuid
from typing import Any


def write_json(path: str, value: Any, indent: int | None = None) -> None:
    """Writes JSON beside `path` and puts it in its place in one step."""
    new = f"{path}.{uuid.uuid4().hex}"  # processes may write the same file
    with open(new, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=indent)
    os.replace(new, path)


def read_json(path: str) -> Any:
    """Returns what a JSON file holds; raises OSError or ValueError."""
    with open(path, encoding="utf-8") as f:
        return json.load(f)
