"""Runs campaigns of faults and prints a scoreboard; `make faults` runs all of them.

    python -m tests.faults [--short] [--only=NAME,...] [--case=K] [--output=DIR] [--processes=N]

Writes DIR/faults.json after each campaign, and keeps in it what earlier calls wrote of others.
--only=NAME --case=K repeats one case, and changes no score. The exit code is 1 if the project did
not hold in one of them.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from typing import Any

from benchmarks import facts
from tests.faults import campaign as campaign_lib
from tests.faults import campaigns, processes, running, stage, work


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few cases of each")
    parser.add_argument("--only", default="", help="names of campaigns, or how they begin")
    parser.add_argument("--case", type=int, default=None, help="one case of the campaign")
    parser.add_argument("--output", default="runs/faults", help="a folder")
    parser.add_argument("--processes", type=int, default=2, help="that run cases at once")
    given = parser.parse_args(arguments)
    names = [campaign.name for campaign in campaigns.ALL]
    starts = [start for start in given.only.split(",") if start]
    for start in starts:
        if not any(name.startswith(start) for name in names):
            parser.error(f"--only={start} is none of {', '.join(names)}")
    if given.processes < 1 or (given.case or 0) < 0:
        parser.error("--processes is at least 1, --case at least 0")
    chosen = [
        campaign
        for campaign in campaigns.ALL
        if (not starts or campaign.name.startswith(tuple(starts)))
        and (not given.short or campaign.short)
    ]
    output = pathlib.Path(given.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    place = stage.Stage(output / "stage")
    # Of each program of the same few that all processes compile, also those of little work.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place.root / "xla")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    start = time.monotonic()
    _make(place, {name for campaign in chosen for name in campaign.needs})
    print(f"the stage is set: {time.monotonic() - start:.0f} s", flush=True)
    jobs = [
        (
            campaign,
            range(campaign.short if given.short else campaign.count)
            if given.case is None
            else range(given.case, given.case + 1),
        )
        for campaign in chosen
    ]
    scores = _read(output / "faults.json")
    command = "python -m tests.faults" + " --short" * given.short
    origin = facts.facts(command, "jax", "numpy", "orbax-checkpoint", "pillow")
    # The short form at once, as to start a process takes as long as its cases.
    for some in [jobs] if given.short else [[job] for job in jobs]:
        for name, score in _run(some, place, given.processes).items():
            scores[name] = {**score, **origin, "seed": campaign_lib.SEED}
        if given.case is None:
            facts.write(str(output / "faults.json"), {"campaigns": list(scores.values())})
    run = [scores[campaign.name] for campaign in chosen]
    print(table(run))
    return int(any(score["failed"] for score in run))


def _read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the scores of earlier calls by the names of their campaigns, in order."""
    stored = json.loads(path.read_text())["campaigns"] if path.exists() else []
    scores = {score["campaign"]: score for score in stored}
    return {name: scores[name] for name in campaigns.BY_NAME if name in scores}


def _make(place: stage.Stage, names: set[str]) -> None:
    """Makes the sets, and runs commands once without a break, where that was not done before."""
    if not place.pictures.exists():
        place.make_sets()
    for job in work.ALL:
        if job.name in names and not job.is_made(place):
            job.make_unbroken(place, processes.run)


def _run(
    jobs: list[tuple[campaign_lib.Campaign, range]], place: stage.Stage, num_processes: int
) -> dict[str, dict[str, Any]]:
    """Runs campaigns, prints failures as they come, and returns the scores as JSON stores them."""

    def tell(campaign: campaign_lib.Campaign, result: dict[str, Any]) -> None:
        if "broken" in result:
            print(
                f"{campaign.name} --case={result['case']}: {result['broken']}: "
                f"{result['detail'].strip()[-600:]}",
                flush=True,
            )

    scores = {
        name: score.to_json()
        for name, score in running.run(jobs, place.root, num_processes, tell).items()
    }
    for name, score in scores.items():
        num_failed = sum(score["failed"].values())
        print(
            f"{name}: {score['cases']} cases, {num_failed} failed, {score['seconds']:.0f} s",
            flush=True,
        )
    return scores


def table(scores: list[dict[str, Any]]) -> str:
    """Returns the scoreboard, as Markdown."""
    lines = [
        "| fault | attempted | held | failed | how | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for score in scores:
        failed = sum(score["failed"].values())
        ways = [
            f"{count} {how}"
            for how, count in {**score["held"], **score["failed"], **score["not_tried"]}.items()
        ]
        held = score["attempted"] * (score["cases"] - failed) // max(score["cases"], 1)
        lines.append(
            f"| {score['fault']} | {score['attempted']:,} | {held:,} | {failed} | "
            f"{'; '.join(ways)} | {score['seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
