"""Runs campaigns in processes of their own, which may die or hang, and counts how they ended."""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tests.faults import campaign as campaign_lib
from tests.faults import processes

_CHUNK = 250  # cases of one process at most
_START_SECONDS = 120.0  # until a process has imported what it needs


@dataclasses.dataclass
class Score:
    """How the cases of a campaign ended.

    Attributes:
        campaign: whose cases.
        held: {how the project held: cases}.
        broken: the cases in which it did not: case, broken (the kind), detail.
        skipped: {what this machine lacks: cases that were not tried}.
        seconds: of all cases together.
    """

    campaign: campaign_lib.Campaign
    held: collections.Counter[str]
    broken: list[dict[str, Any]]
    skipped: collections.Counter[str]
    seconds: float = 0.0

    @property
    def num_cases(self) -> int:
        return self.held.total() + len(self.broken)

    def add(self, result: dict[str, Any]) -> None:
        self.seconds += result.get("seconds", 0.0)
        if "held" in result:
            self.held[result["held"]] += 1
        elif "skipped" in result:
            self.skipped[result["skipped"]] += 1
        else:
            self.broken.append(result)

    def to_json(self) -> dict[str, Any]:
        kinds = collections.Counter(result["broken"] for result in self.broken)
        return {
            "campaign": self.campaign.name,
            "fault": self.campaign.fault,
            "right": self.campaign.right,
            "cases": self.num_cases,
            "attempted": self.num_cases * self.campaign.faults,
            "held": dict(sorted(self.held.items())),
            "failed": dict(sorted(kinds.items())),
            "not_tried": dict(self.skipped),
            "seconds": round(self.seconds, 1),
            "failures": self.broken,
        }


def run(
    jobs: Sequence[tuple[campaign_lib.Campaign, range]],
    stage_folder: pathlib.Path,
    num_processes: int,
    tell: Callable[[campaign_lib.Campaign, dict[str, Any]], None],
) -> dict[str, Score]:
    """Runs cases of campaigns, in so many processes at once.

    Args:
        jobs: campaigns, and which cases of each.
        stage_folder: of the stage.
        num_processes: that run cases.
        tell: hears of each case as it ends, from several threads.

    Returns:
        The score of each campaign by its name.
    """
    scores = {
        campaign.name: Score(campaign, collections.Counter(), [], collections.Counter())
        for campaign, _ in jobs
    }
    cases = [(campaign, number) for campaign, numbers in jobs for number in numbers]
    lock = threading.Lock()

    def note(campaign: campaign_lib.Campaign, result: dict[str, Any]) -> None:
        with lock:
            scores[campaign.name].add(result)
            tell(campaign, result)

    # Long and short ones to each.
    groups = [cases[first::num_processes] for first in range(num_processes)]
    with concurrent.futures.ThreadPoolExecutor(num_processes) as pool:
        for done in [pool.submit(_run_group, group, stage_folder, note) for group in groups]:
            done.result()
    return scores


def _run_group(
    cases: list[tuple[campaign_lib.Campaign, int]],
    stage_folder: pathlib.Path,
    note: Callable[[campaign_lib.Campaign, dict[str, Any]], None],
) -> None:
    """Runs cases one after another, in a new process after each that ended its process."""
    while cases:
        chunk = cases[:_CHUNK]
        order = json.dumps([(campaign.name, number) for campaign, number in chunk])
        with subprocess.Popen(
            [sys.executable, "-m", "tests.faults.runner", str(stage_folder), order],
            cwd=processes.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as process:
            cases = cases[_follow(process, chunk, note) :]


def _follow(
    process: subprocess.Popen[str],
    cases: list[tuple[campaign_lib.Campaign, int]],
    note: Callable[[campaign_lib.Campaign, dict[str, Any]], None],
) -> int:
    """Notes how cases end until the process does; returns how many have ended."""
    lines: queue.Queue[str] = queue.Queue()
    errors = collections.deque(maxlen=40)
    threads = [
        threading.Thread(target=_pump, args=(process.stdout, lines.put, ""), daemon=True),
        threading.Thread(target=_pump, args=(process.stderr, errors.append, None), daemon=True),
    ]
    for thread in threads:
        thread.start()
    count, seconds, is_hung = 0, _START_SECONDS, False
    while count < len(cases):
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            is_hung = True
            break
        if not line:
            break
        seconds = cases[count][0].limit
        result = json.loads(line)
        if "case" in result:
            note(cases[count][0], result)
            count += 1
    if is_hung or not _ends(process):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if count == len(cases):
        return count
    threads[1].join(5)
    kind = "hang" if is_hung else "crash"
    detail = f"exit code {code}: " + "".join(errors)[-3000:]
    detail = f"{seconds:.0f} s passed" if is_hung else detail
    note(cases[count][0], {"case": cases[count][1], "broken": kind, "detail": detail})
    return count + 1


def _ends(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        return False
    return True


def _pump(stream: Any, put: Callable[[str], None], last: str | None) -> None:
    for line in stream:
        put(line)
    if last is not None:
        put(last)
