"""Times programs beside each other, in turns: what else a machine does falls on all alike."""

import dataclasses
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from benchmarks import facts
from spp_jax import errors
from spp_jax.runs import memory

# Rounds not counted: programs compile, and the heap grows until it holds what all of them need.
WARM_UPS = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """Something to time.

    Attributes:
        call: runs it; what it returns is waited for.
        factor: the time of the whole is this many times that of a call.
    """

    call: Callable[[], Any]
    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of a table: ours, its peers and what the hardware can do, on the same work.

    Attributes:
        name: of the row.
        ours: the project's run.
        peers: others', by name.
        limit: what no program can do faster, measured: all bytes moved once, or all operations as
            one large matrix product.
    """

    name: str
    ours: Run
    peers: Mapping[str, Run]
    limit: Run | None = None


def alternate(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each run in each of `rounds` rounds, after those that warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + WARM_UPS):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run.call())
            if number >= WARM_UPS:
                seconds[name].append((time.perf_counter() - start) * run.factor)
    return seconds


def ratio(seconds: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Returns the median, least and greatest of how many times as long as ours a run took."""
    ratios = [a / b for a, b in zip(seconds, ours, strict=True)]
    return [statistics.median(ratios), min(ratios), max(ratios)]


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Returns {"case", "seconds": {name: median}, "ratios": {name: [median, least, greatest]}}."""
    runs = {"ours": case.ours, **case.peers}
    if case.limit:
        runs["limit"] = case.limit
    seconds = alternate(runs, rounds)
    return {
        "case": case.name,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "ratios": {
            name: ratio(times, seconds["ours"]) for name, times in seconds.items() if name != "ours"
        },
    }


def table(rows: Sequence[dict[str, Any]], what: str) -> str:
    """Returns a Markdown table: milliseconds, and in parentheses how many times ours that is."""
    names = list(dict.fromkeys(name for row in rows for name in row["ratios"]))
    names = [name for name in names if name != "limit"] + (["limit"] if "limit" in names else [])
    lines = [f"| {' | '.join([what, 'ours, ms', *names])} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [f"{1e3 * row['seconds']['ours']:.3g}"]
        for name in names:
            if name not in row["ratios"]:
                cells.append("-")
                continue
            middle, least, greatest = row["ratios"][name]
            spread = f"{middle:.2f}, {least:.2f}-{greatest:.2f}"
            cells.append(f"{1e3 * row['seconds'][name]:.3g} ({spread})")
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(
    rows: Sequence[dict[str, Any]], what: str, command: str, output: str, *libraries: str
) -> None:
    """Prints the table of measured cases and writes them, with where they come from, to a JSON."""
    device = jax.devices()[0].device_kind
    command = given(command)
    print(f"{command}, {device}; in parentheses times ours: median, least-greatest")
    print(table(rows, what), flush=True)
    if output:
        torch = ["torch"] if importlib.util.find_spec("torch") else []
        origin = facts.facts(command, "jax", *torch, *libraries)
        facts.write(output, {**origin, "device": device, "rows": list(rows)})


def given(command: str) -> str:
    """Returns a command with the flags it was given, without the paths among them."""
    shown = [a for a in sys.argv[1:] if not a.startswith("--output")]
    hidden = ["--images=FOLDER" if a.startswith("--images=") and "/" in a else a for a in shown]
    return " ".join([command, *hidden])


def numbers(flag: str, text: str, separator: str, count: int) -> tuple[int, ...]:
    """Returns `count` whole numbers of at least 2 of a flag's text; raises InputError."""
    try:
        whole = tuple(int(part) for part in text.split(separator))
    except ValueError:
        whole = ()
    if len(whole) != count or min(whole) < 2:
        raise errors.InputError(
            f"--{flag}: {text!r} is not {count} whole numbers of at least 2, joined by {separator}"
        )
    return whole


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a benchmark as the commands run: with their memory, and errors as one sentence.

    With `--fresh` freed memory is handed back, as in a user's program that does not call
    `spp_jax.keep_freed`. It is called before JAX looks for its devices, and so before flags are
    read: what JAX allocates in threads by then stays outside.
    """
    flags.DEFINE_bool("fresh", False, "Hand back the memory that is freed.")
    if "--fresh" not in sys.argv:
        memory.keep_freed()
    # Else JAX takes three quarters of a GPU's memory, and leaves a peer the rest.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        try:
            if len(argv) > 1:
                raise errors.InputError(f"unexpected argument {argv[1]!r}")
            check_output(flags.FLAGS["output"].value or "")
            main(argv)
        except errors.InputError as e:
            print(f"error: {e}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)


def check_output(path: str) -> None:
    """Raises InputError, before anything is measured, where no JSON can be written."""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise errors.InputError(f"--output={path}: {e.strerror}") from e
    if path and (os.path.isdir(path) or not os.access(folder, os.W_OK)):
        raise errors.InputError(f"--output={path} cannot be written")
