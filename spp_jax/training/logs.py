"""The logs of a run, metrics.jsonl and TensorBoard's events: none of them may block or end it."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from tensorboardX import record_writer, summary
from tensorboardX.proto import event_pb2 as _event_pb2

from spp_jax import errors
from spp_jax.runs import files

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"

event_pb2: Any = _event_pb2

_FLUSH_EVERY_SECONDS = 30.0


class Logs:
    """Writes the logs of a workdir, in the thread of its caller.

    A log that cannot be written is said once, with its reason, and dropped: a disk that is full for
    a moment costs lines of the log, and nothing else. A resumed run drops the lines after its
    checkpoint, as it is about to write the same ones again.

    Args:
        workdir: of the run.
        resume_step: of the checkpoint; 0 for a new run.
        say: is told of a log that is dropped.

    Raises:
        InputError: a log cannot be opened.
    """

    def __init__(self, workdir: str, resume_step: int, say: Callable[[str], None]):
        self._say = say
        self._logs: list[_Lines | _Events] = []
        try:
            self._logs.append(_Lines(workdir, resume_step))
            self._logs.append(_Events(workdir, resume_step))
        except OSError as e:
            self.close()
            path = e.filename or workdir
            raise errors.InputError(f"{path} cannot be written: {e.strerror}") from e

    def write(self, values: dict[str, Any]) -> None:
        """Adds values, one of which is "step", to every log that can still be written."""
        self._for_each(lambda log: log.write(values))

    def close(self) -> None:
        self._for_each(lambda log: log.close())

    def _for_each(self, act: Callable[[Any], None]) -> None:
        for log in tuple(self._logs):
            try:
                act(log)
            except OSError as e:
                self._logs.remove(log)
                with contextlib.suppress(OSError):
                    log.close()
                self._say(f"{log.path} cannot be written and ends here: {e.strerror}")


class _Lines:
    """One JSON object per line."""

    def __init__(self, workdir: str, resume_step: int):
        self.path = os.path.join(workdir, METRICS_FILE)
        _keep_lines_until(self.path, resume_step)
        # Unbuffered: what a full disk refused is not tried again when the file is closed.
        self._file = open(self.path, "ab", buffering=0, opener=files.no_links)  # noqa: SIM115 (closed below)

    def write(self, values: dict[str, Any]) -> None:
        files.write_all(self._file, (json.dumps(values) + "\n").encode())

    def close(self) -> None:
        self._file.close()


class _Events:
    """TensorBoard's events, without tensorboardX's thread: where that dies, its queue blocks."""

    def __init__(self, workdir: str, resume_step: int):
        self.path = os.path.join(workdir, TENSORBOARD)
        os.makedirs(self.path, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._writer = record_writer.RecordWriter(os.path.join(self.path, name))
        self._flushed = time.monotonic()
        self._add(0, file_version="brain.Event:2")
        if resume_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(resume_step, session_log=start)

    def write(self, values: dict[str, Any]) -> None:
        prefix = f"eval_{values['protocol']}" if "protocol" in values else "train"
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                self._add(values["step"], summary=summary.scalar(f"{prefix}/{name}", value))
        if time.monotonic() - self._flushed > _FLUSH_EVERY_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _add(self, step: int, **content: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._writer.close()


def _keep_lines_until(path: str, step: int) -> None:
    """Drops the lines after a step, and what is no line of metrics, as a killed run's last one."""
    if not os.path.exists(path):
        return
    kept = []
    for line in files.read_bytes(path).decode("utf-8", "replace").splitlines():
        try:
            values = files.parse_json(line)
        except ValueError:
            continue
        at = values.get("step") if isinstance(values, dict) else None
        if isinstance(at, int) and at <= step:
            kept.append(line + "\n")
    with files.replacing(path, "w") as f:
        f.writelines(kept)
