"""The short form of `make faults`, and what counts the cases: it tells all ways to end apart."""

import json
import pathlib
import subprocess
import sys

from tests.faults import campaigns, running, selftest, stage


def test_the_short_form_holds(tmp_path):
    arguments = [sys.executable, "-m", "tests.faults", "--short", f"--output={tmp_path}"]
    process = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-2000:]
    scores = json.loads((tmp_path / "faults.json").read_text())["campaigns"]
    chosen = [campaign for campaign in campaigns.ALL if campaign.short]
    assert [score["campaign"] for score in scores] == [campaign.name for campaign in chosen]
    assert [score["cases"] for score in scores] == [campaign.short for campaign in chosen]
    assert all(sum(score["held"].values()) == score["cases"] for score in scores)


def test_a_case_can_be_repeated():
    assert len({campaign.name for campaign in campaigns.ALL}) == len(campaigns.ALL)
    for campaign in campaigns.ALL:
        drawn = [campaign.rng(number).integers(10**9) for number in (3, 3, 4)]
        assert drawn[0] == drawn[1] != drawn[2]


def test_all_ways_to_end_are_told_apart_and_the_next_case_runs(tmp_path):
    place = stage.Stage(pathlib.Path(tmp_path))
    place.scratch.mkdir()
    seen = []
    jobs = [(selftest.CAMPAIGN, range(6))]
    score = running.run(jobs, place.root, 1, lambda _, result: seen.append(result))["selftest"]
    assert dict(score.held) == {"held": 2}
    kinds = {result["case"]: result["broken"] for result in score.broken}
    assert kinds == {1: "lost", 2: "crash", 3: "hang", 4: "exception"}
    assert [result["case"] for result in seen] == list(range(6))
    stored = score.to_json()
    assert (stored["attempted"], stored["failed"]) == (
        6,
        {"lost": 1, "crash": 1, "hang": 1, "exception": 1},
    )
