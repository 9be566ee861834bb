"""Results as Markdown tables, and as the lines and files of the commands."""

from collections.abc import Mapping, Sequence
from typing import Any

from spp_jax.evaluation.svm import benchmark


def of_protocols(results: Sequence[dict[str, Any]]) -> str:
    """Returns results of `classify.evaluate` as a Markdown table of errors, like Tables 3 and 4."""
    lines = [
        "| protocol | shorter side | views | top-1 error % | top-5 error % | images | images/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        scales = "-" if r["protocol"] == "warp" else ", ".join(map(str, r["scales"]))
        if r["protocol"] == "multi_view" and r["full_scale"]:
            scales += f", full {r['full_scale']}"
        errors = (f"{100 * (1 - r[name]):.2f}" for name in ("top1", "top5"))
        speed = f"{r['num_examples'] / max(r['seconds'], 1e-9):.1f}"
        cells = (r["protocol"], scales, r["num_views"], *errors, r["num_examples"], speed)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def of_svms(result: dict[str, Any]) -> str:
    """Returns a result of `benchmark.run` as a Markdown table, percent, rows by scales."""
    entries = result["rows"]
    scales = list(dict.fromkeys(e["scale"] for e in entries))
    shown = [s if not s.isdecimal() else f"full {s}" for s in scales]
    name = "mAP, 11-point (area)" if "map" in result else "mean class accuracy"
    lines = [f"| {name} % | features | {' | '.join(shown)} |", "|---" * (2 + len(scales)) + "|"]
    for layer in dict.fromkeys(e["layer"] for e in entries):
        mine = {e["scale"]: e for e in entries if e["layer"] == layer}
        sizes = next(iter(mine.values()))["num_features"]
        cells = [benchmark.percent(mine[scale]) for scale in scales]
        lines.append(f"| {layer} | {sizes:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def of_detections(values: Mapping[str, Any]) -> str:
    """Returns the values of `result` as a Markdown table, in percent."""
    lines = ["| class | AP 11-point | AP area | recall | objects |", "|---|---|---|---|---|"]

    def row(name: str, *shares: float | None) -> str:
        return " | ".join([f"| {name}", *("-" if s is None else f"{100 * s:.2f}" for s in shares)])

    for name in values["ap_11point"]:
        shares = (values[key][name] for key in ("ap_11point", "ap_area", "recall"))
        # A name may hold line ends, and the bar that ends a cell.
        cell = " ".join(name.split()).replace("|", "\\|")
        lines.append(f"{row(cell, *shares)} | {values['num_objects'][name]} |")
    lines.append(row("**mean**", values["map_11point"], values["map_area"]) + " | | |")
    return "\n".join(lines)
