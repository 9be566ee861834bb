"""What the JSON of a benchmark says of us at worst: beside a peer, a limit or a tolerance."""

import json
import math
import os
from typing import Any

# Ratios to these say what a choice or the hardware costs, not who is faster.
_NO_PEERS = ("limit", "ours, deterministic")


def read_worst(path: str) -> str:
    """Returns the worst ratio of a JSON file with what it is of; "" where there is none."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as f:
        return worst(json.load(f))


def worst(result: dict[str, Any]) -> str:
    """Returns the worst ratio of a result, as a part of a sentence; "" where it has none."""
    if "compared" in result:
        ratio, row = _largest(result["compared"], _share)
        return f"{ratio:.2f} of the tolerance ({row['case']})"
    if "kinds" in result:
        ratio, kind = min((kind["ratio"], name) for name, kind in result["kinds"].items())
        return f"{ratio:.1f} times as fast as once per window ({kind})"
    if "limits" in result:
        if not result["limits"]:
            return ""
        ratio, row = _largest(result["limits"], lambda row: row["ratio"])
        return f"{ratio:.2f} times the limit ({row['name']})"
    if "passed" in result:
        return f"{result['passed']} passed, {len(result['failed'])} failed"
    return _worst_row(result.get("rows", []))


def _largest(rows: list[dict[str, Any]], key: Any) -> tuple[float, dict[str, Any]]:
    row = max(rows, key=key)
    return key(row), row


def _share(row: dict[str, Any]) -> float:
    if row["tolerance"]:
        return row["error"] / row["tolerance"]
    return math.inf if row["error"] else 0.0


def _worst_row(rows: list[dict[str, Any]]) -> str:
    """Returns that of timed rows, or of the memory of a step."""
    for row in rows:
        if row.get("peak_bytes") and row.get("compiler_bytes"):
            ratio = row["peak_bytes"] / row["compiler_bytes"]
            return f"{ratio:.2f} times the compiler's bytes ({row['case']})"
    ratios = [
        (ratio[0], name, row["case"])
        for row in rows
        for name, ratio in row.get("ratios", {}).items()
    ]
    peers = [entry for entry in ratios if entry[1] not in _NO_PEERS]
    costs = [
        f"{name.removeprefix('ours, ')} {ratio:.2f}"
        for ratio, name, _ in ratios
        if name == "ours, deterministic"
    ]
    chosen = peers or [entry for entry in ratios if entry[1] == "limit"]
    if not chosen:
        return ""
    ratio, name, case = min(chosen)
    return "; ".join([f"{name} takes {ratio:.2f} times ours ({case})", *costs])
