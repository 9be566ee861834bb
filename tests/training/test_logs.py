"""The logs of a run, and a disk that refuses them."""

import json
import os
import struct
from typing import Any

import pytest
from tensorboardX.proto import event_pb2 as _event_pb2

from spp_jax import errors
from spp_jax.training import logs

event_pb2: Any = _event_pb2  # made when it is imported, so that no type is known


def _fill_disk_of(folder):
    """Lets every file of a folder that this process has open lie on a full disk."""
    full = os.open("/dev/full", os.O_WRONLY)
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # that of the listing itself
        if target.startswith(str(folder)):
            os.dup2(full, int(name))
    os.close(full)


def _events(folder):
    """Returns (step, name, value) of every number: records of length, checksum, event, checksum."""
    values = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            values += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]
    return values


def test_numbers_go_to_both_logs(tmp_path):
    log = logs.Logs(str(tmp_path), 0, print)
    log.write({"step": 3, "loss": 0.5, "batch_hash": "ab"})
    log.write({"step": 4, "protocol": "full", "top1": 0.25})
    log.close()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 3, "loss": 0.5, "batch_hash": "ab"}
    assert _events(tmp_path / "tensorboard") == [
        (3, "train/loss", 0.5),
        (4, "eval_full/top1", 0.25),
    ]


def test_a_full_disk_is_said_once_per_log_and_ends_nothing(tmp_path):
    said = []
    log = logs.Logs(str(tmp_path), 0, said.append)
    log.write({"step": 1, "loss": 1.0})
    _fill_disk_of(tmp_path)
    for step in range(2, 2000):  # more than tensorboardX has buffers for
        log.write({"step": step, "loss": 1.0})
    log.close()
    full = "cannot be written and ends here: No space left on device"
    assert sorted(said) == [f"{tmp_path}/metrics.jsonl {full}", f"{tmp_path}/tensorboard {full}"]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'


def test_odd_lines_are_dropped_and_lines_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    odd = [b"7", b"[1]", b"null", b'{"loss": 1}', b'{"step": "2"}', b"\xff\xfe", b"[" * 10**5]
    kept, later = b'{"step": 2}', b'{"step": 3}'
    path.write_bytes(b"\n".join([kept, *odd, later, b'{"step": 2, "cut']))
    logs.Logs(str(tmp_path), 2, print).close()
    assert path.read_bytes() == kept + b"\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_something_in_the_way_of_a_log(tmp_path, name):
    if name == "tensorboard":
        (tmp_path / name).write_text("mine")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(errors.InputError, match=rf"{name} cannot be written: "):
        logs.Logs(str(tmp_path), 0, print)
