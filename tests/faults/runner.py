"""Runs cases of a campaign in this process, and tells of each on standard output as it ends.

    python -m tests.faults.runner STAGE '[["CAMPAIGN", CASE], ...]'

It is started by `running`, which sees when it dies or hangs.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from typing import Any

from tests.faults import campaign as campaign_lib
from tests.faults import campaigns, stage
from tests.faults.broken import Broken, NotTried


def run_case(campaign: campaign_lib.Campaign, place: stage.Stage, number: int) -> dict[str, Any]:
    """Runs a case; what it draws depends on its number alone."""
    start = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{campaign.name}-{number}-", dir=place.scratch))
    result: dict[str, Any] = {"case": number}
    try:
        result["held"] = campaign.case(place, campaign.rng(number), folder)
        shutil.rmtree(folder, ignore_errors=True)
    except Broken as e:
        result |= {"broken": e.kind, "detail": e.detail, "folder": str(folder)}
    except NotTried as e:
        result["skipped"] = str(e)
    except Exception:
        result |= {"broken": "exception", "detail": traceback.format_exc(), "folder": str(folder)}
    return {**result, "seconds": round(time.monotonic() - start, 3)}


def main(folder: str, cases: list[tuple[str, int]]) -> None:
    place = stage.Stage(pathlib.Path(folder))
    # What the cases print must not mix with what is told of them.
    told, sys.stdout = sys.stdout, sys.stderr
    for name, number in cases:
        print(json.dumps({"begin": number}), file=told, flush=True)
        print(json.dumps(run_case(campaigns.BY_NAME[name], place, number)), file=told, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
