"""Commands as processes of their own, and what is done to them."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from tests.faults.broken import Broken

ROOT = pathlib.Path(__file__).parents[2]


class Process:
    """A command that runs.

    Attributes:
        pid: of the process, which leads a session of its own.
        output: the file that gets what it prints.
        code: its exit code, negative for a signal; None while it runs.
    """

    def __init__(self, pid: int, output: pathlib.Path):
        self.pid, self.output = pid, output
        self.code: int | None = None
        self.ended = threading.Event()

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def wait(self, seconds: float) -> int:
        """Returns the exit code; a process that does not end in time is a fault."""
        if not self.ended.wait(seconds):
            self._break_off(seconds)
        assert self.code is not None
        return self.code

    def send(self, number: int) -> None:
        """Sends a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            if not self.ended.is_set():
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process with -9, as the kernel does when memory is short, and waits."""
        self.send(signal.SIGKILL)
        self.ended.wait()

    def _break_off(self, seconds: float) -> NoReturn:
        """Has a process that hangs print where its threads are, and kills it."""
        self.send(signal.SIGUSR1)
        self.ended.wait(1)
        self.kill()
        raise Broken("hang", f"{seconds:.0f} s passed; it printed: {self.text[-6000:]}")

    def wait_for(self, is_there: Callable[[], bool], seconds: float = 90.0) -> bool:
        """Waits until something is so; returns whether it was before the process ended."""
        end = time.monotonic() + seconds
        while not is_there():
            if self.ended.is_set():
                return False
            if time.monotonic() > end:
                self._break_off(seconds)
            time.sleep(0.001)
        return True

    def others(self) -> list[int]:
        """Returns the processes of its session that live, itself not counted."""
        return [p for p in _pids() if p != self.pid and _session(p) == self.pid]

    @contextlib.contextmanager
    def leaves_no_process(self, seconds: float = 10.0) -> Iterator[None]:
        """Looks, after its body, whether the processes that the command started end in time."""
        yield
        end = time.monotonic() + seconds
        while left := self.others():
            if time.monotonic() > end:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise Broken("orphan", f"{left} live {seconds:.0f} s after their main one")
            time.sleep(0.02)


@dataclasses.dataclass(frozen=True)
class Faults:
    """What a process suffers from its start on.

    Attributes:
        max_file_bytes: no file may grow longer (RLIMIT_FSIZE).
        environment: variables; those of failing.c among them.
    """

    max_file_bytes: int | None = None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


@functools.cache
def failing_library() -> str:
    """Returns the library of failing.c, made anew; "" without a C compiler."""
    compiler, source = shutil.which("cc"), pathlib.Path(__file__).with_name("failing.c")
    if not compiler:
        return ""
    library = os.path.join(tempfile.mkdtemp(prefix="faults-"), "failing.so")
    options = ["-shared", "-fPIC", "-O1", "-o", library]
    subprocess.run([compiler, *options, source, "-ldl"], check=True)
    return library


class _Starter:
    """The process that starts the others."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.starter"],
            cwd=ROOT,
            env=os.environ | {"LD_PRELOAD": failing_library()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._processes: dict[int, Process] = {}
        self._output = pathlib.Path()
        self._started = threading.Event()
        self._newest: Process | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, order: dict[str, object]) -> Process:
        self._output = pathlib.Path(str(order["output"]))
        self._started.clear()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        if not self._started.wait(120):
            raise RuntimeError("the starter of processes does not answer")
        assert self._newest is not None
        return self._newest

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "started" in answer:
                self._newest = Process(answer["started"], self._output)
                self._processes[self._newest.pid] = self._newest
                self._started.set()
            else:
                process = self._processes.pop(answer["ended"])
                process.code = answer["code"]
                process.ended.set()


@functools.cache
def _starter() -> _Starter:
    return _Starter()


def start(
    command: Sequence[str],
    output: pathlib.Path,
    faults: Faults | None = None,
    *,
    errors: pathlib.Path | None = None,
    folder: pathlib.Path = ROOT,
) -> Process:
    """Starts a command of the repository.

    Args:
        command: the script, or "-m" and a module, and its arguments: ["eval.py", "--workdir=x"].
        output: the file that gets what it prints.
        faults: what it suffers.
        errors: the file that gets what it prints to standard error; None: `output` as well.
        folder: it works in.
    """
    files = {"output": str(output), "errors": str(errors or output), "folder": str(folder)}
    order = {"command": list(command), **files}
    return _starter().start(order | dataclasses.asdict(faults or Faults()))


def run(command: Sequence[str], output: pathlib.Path, seconds: float = 100.0) -> str:
    """Runs a command to its end and returns what it printed; a failure of it is a fault."""
    process = start(command, output)
    code = process.wait(seconds)
    if code:
        raise Broken("failed", f"exit code {code}; it printed: {process.text[-1500:]}")
    return process.text


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _session(pid: int) -> int:
    """Returns the session of a process that lives, or 0."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            state, _, _, session = f.read().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state in "ZX" else int(session)
