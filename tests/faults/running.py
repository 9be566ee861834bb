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
from collections.abc import Callable
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
    campaign: campaign_lib.Campaign,
    cases: range,
    stage_folder: pathlib.Path,
    num_processes: int,
    tell: Callable[[dict[str, Any]], None],
) -> Score:
    """Runs cases of a campaign; `tell` hears of each as it ends, from several threads."""
    score = Score(campaign, collections.Counter(), [], collections.Counter())
    size = min(_CHUNK, -(-len(cases) // num_processes))
    chunks = [cases[i : i + size] for i in range(0, len(cases), size)]
    lock = threading.Lock()

    def note(result: dict[str, Any]) -> None:
        with lock:
            score.add(result)
            tell(result)

    with concurrent.futures.ThreadPoolExecutor(num_processes) as pool:
        for done in [pool.submit(_run_chunk, campaign, c, stage_folder, note) for c in chunks]:
            done.result()
    return score


def _run_chunk(
    campaign: campaign_lib.Campaign,
    cases: range,
    stage_folder: pathlib.Path,
    note: Callable[[dict[str, Any]], None],
) -> None:
    """Runs cases one after another, in a new process after each that ended its process."""
    first = cases.start
    while first < cases.stop:
        arguments = [campaign.name, str(stage_folder), str(first), str(cases.stop)]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.faults.runner", *arguments],
            cwd=processes.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as process:
            first = _follow(process, campaign.limit, first, note)


def _follow(
    process: subprocess.Popen[str],
    limit: float,
    first: int,
    note: Callable[[dict[str, Any]], None],
) -> int:
    """Notes how cases end until the process does; returns the next case that must be run."""
    lines: queue.Queue[str] = queue.Queue()
    errors = collections.deque(maxlen=40)
    threads = [
        threading.Thread(target=_pump, args=(process.stdout, lines.put, ""), daemon=True),
        threading.Thread(target=_pump, args=(process.stderr, errors.append, None), daemon=True),
    ]
    for thread in threads:
        thread.start()
    case, seconds, is_hung = first, _START_SECONDS, False
    while True:
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            is_hung = True
            break
        if not line:
            break
        seconds = limit
        result = json.loads(line)
        if "case" in result:
            note(result)
            case = result["case"] + 1
    if is_hung or (process.poll() is None and not _ends(process)):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if not is_hung and code == 0:
        return case
    threads[1].join(5)
    kind = "hang" if is_hung else "crash"
    detail = f"{limit:.0f} s passed" if is_hung else f"exit code {code}: " + "".join(errors)[-3000:]
    note({"case": case, "broken": kind, "detail": detail})
    return case + 1


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
