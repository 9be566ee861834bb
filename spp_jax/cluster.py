"""The processes that run one command together: how they start, what they agree on, how they end.

The engine is JAX's own, `jax.distributed`: NCCL between GPUs, gloo between CPUs. A command of one
process starts none of it, and what its processes agree on is what this one says.
"""

import contextlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np

from spp_jax import errors

T = TypeVar("T")


class End(Protocol):
    """Ends this process with an error, whatever its main thread waits for."""

    def __call__(self, sentence: str, *, show_threads: bool = False) -> NoReturn:
        """Takes the sentence, and whether it also tells where each thread stands."""
        ...


class Place(NamedTuple):
    """Where a process is among those of its command; all or none of it is given.

    Attributes:
        coordinator: HOST:PORT of process 0, where the others find it.
        num_processes: of the command.
        process_id: of this one, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


class _Run:
    """The processes of this command: this one alone, until others are started."""

    index = 0
    count = 1
    names: tuple[str, ...] = ("process 0",)
    is_ending = False
    fails_together = False
    end: End
    client: Any = None
    watch: threading.Thread
    _number = 0

    def exchange(self, data: bytes) -> list[bytes]:
        """Returns the data of each process.

        By JAX's coordinator and not on the devices: no program is compiled for it, and a process
        may come minutes later than another. One that never comes is lost, and ends this one.
        """
        self._number += 1
        self.client.key_value_set_bytes(self._key(self._number, self.index), data)
        every = [
            self.client.blocking_key_value_get_bytes(self._key(self._number, i), _FOR_EVER)
            for i in range(self.count)
        ]
        # All of them are here, so all of them have read the last one.
        if self._number > 1:
            self.client.key_value_delete(self._key(self._number - 1, self.index))
        return every

    def _key(self, number: int, index: int) -> str:
        return f"spp_jax/{number}/{index}"


_run = _Run()
# Milliseconds.
_FOR_EVER = 10**9


def index() -> int:
    """Returns the number of this process, from 0."""
    return _run.index


def count() -> int:
    """Returns the number of processes."""
    return _run.count


def is_first() -> bool:
    """Whether this is the process that writes what all of them share, and tells how far it is."""
    return _run.index == 0


@contextlib.contextmanager
def start(
    place: Place, end: End, *, start_seconds: int = 300, heartbeat_seconds: int = 30
) -> Iterator[None]:
    """Starts this process as one of several; ends with all of them, where none fails.

    Without a place it looks for SLURM, Open MPI and indexed jobs of Kubernetes, as JAX does. Where
    there is one process nothing is started. Call it before JAX looks for its devices.

    While it is open, the loss of a process ends the others, at most twice `heartbeat_seconds` after
    it.

    Args:
        place: of this process.
        end: ends this process where another one is lost, or the others do not come; it is called in
            a thread.
        start_seconds: how long it waits for the others.
        heartbeat_seconds: after so many without a sign of life a process counts as lost.

    Raises:
        InputError: the place is wrong, or the processes are started already.
    """
    if _run.client is not None:
        raise errors.InputError("the processes of this command are started already")
    if not is_one_of_several(place):
        yield
        return
    _run.end = end
    _initialize(place, start_seconds, heartbeat_seconds)
    try:
        yield
        _end_together()
    except errors.InputError:
        if _run.fails_together:
            _end_together()
        raise
    finally:
        # Whatever fails in this process alone, its end tells the others.
        _run.is_ending = True


def is_one_of_several(place: Place) -> bool:
    """Whether a place is of several processes, or a cluster has started several; imports no JAX.

    Raises:
        InputError: it is given in part, or cannot be.
    """
    if place == Place():
        return (
            int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in os.environ
        ) or (int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1 or _is_indexed_job())
    if None in place:
        raise errors.InputError(
            "coordinator, num_processes and process_id are given together, or none of them"
        )
    host, _, port = str(place.coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise errors.InputError(f"coordinator={place.coordinator} is not HOST:PORT")
    number, total = place.process_id or 0, place.num_processes or 0
    if not 0 <= number < total:
        raise errors.InputError(
            f"process_id={number} must be at least 0 and less than num_processes={total}"
        )
    return total > 1


def gather(value: Any) -> list[Any]:
    """Returns what each process says, by their number; every process has to call it.

    The value is what JSON can hold.
    """
    if _run.count == 1:
        return [value]
    return [json.loads(data) for data in _run.exchange(json.dumps(value).encode())]


def gather_arrays(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Returns the arrays of each process, by their number; every process has to call it."""
    if _run.count == 1:
        return [arrays]
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return [
        dict(np.load(io.BytesIO(data), allow_pickle=False))
        for data in _run.exchange(stream.getvalue())
    ]


def agree(what: str, value: Any) -> None:
    """Raises InputError in every process if one of them has another value than the first.

    Args:
        what: the value is, for the sentence.
        value: what JSON can hold.
    """
    values = gather(value)
    for name, other in zip(_run.names, values):
        if other != values[0]:
            fail(
                f"{what} of {name} differs from that of {_run.names[0]}: {_shown(other)} is not "
                f"{_shown(values[0])}"
            )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raises the InputError that one process meets in every one, with the name of its process."""
    own = ""
    try:
        yield
    except errors.InputError as e:
        if _run.count == 1:
            raise
        own = str(e)
    for name, sentence in zip(_run.names, gather(own)):
        if sentence:
            fail(f"{name}: {sentence}")


def fail(sentence: str) -> NoReturn:
    """Raises the InputError that every process raises here; the first one's says it."""
    _run.fails_together = True
    raise (errors.InputError if is_first() else errors.OthersError)(sentence)


def end_alone(sentence: str) -> NoReturn:
    """Ends this process, which stands still, with an error that names it; the others miss it."""
    _run.end(f"{_run.names[_run.index]}: {sentence}", show_threads=True)


def share(items: Sequence[T]) -> list[T]:
    """Returns the items that are this process's: every `count()`-th one."""
    return list(items[_run.index :: _run.count])


def _is_indexed_job() -> bool:
    return "JOB_COMPLETION_INDEX" in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ


def _initialize(place: Place, start_seconds: int, heartbeat_seconds: int) -> None:
    """Starts JAX's processes, and the thread that looks for lost ones."""
    import jax  # imported here: what is wrong with a place is said before

    from spp_jax import sharding

    # Signals are the command's own. And a lost process is named by the thread below: JAX would
    # abort each of the others with a trace of its own functions.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_enable_recoverability", True)
    at = f" at {place.coordinator}" if place.coordinator else ""
    # JAX aborts where its own time is up.
    late = threading.Timer(
        start_seconds,
        _run.end,
        [f"the processes of this command did not come together{at} in {start_seconds} seconds"],
    )
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            initialization_timeout=start_seconds + 60,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as e:
        reason = errors.first_line(e)[:200]
        raise errors.InputError(f"the processes cannot be started{at}: {reason}") from e
    # No public function sends bytes, or tells of processes that this one does not wait for.
    from jax._src import distributed

    _run.client = distributed.global_state.client
    _run.index, _run.count = jax.process_index(), jax.process_count()
    _run.names = tuple(f"process {i}" for i in range(_run.count))
    _run.watch = threading.Thread(target=_watch, daemon=True)
    _run.watch.start()
    hosts = gather(socket.gethostname())
    _run.names = tuple(f"process {i} ({errors.printable(h)})" for i, h in enumerate(hosts))
    # Devices meet for the first time, which on CPUs they have 30 seconds for.
    sharding.largest(0).block_until_ready()
    late.cancel()


def _watch() -> None:
    """Ends this process when another one is lost.

    Whoever asks who lives waits until all that live have asked, so that the first process goes on
    asking until the others have left.
    """
    everyone = set(range(_run.count))
    lost = set()
    while not _run.is_ending or (is_first() and lost != everyone - {0}):
        time.sleep(0.05 if _run.is_ending else 0.5)
        try:
            lost = everyone - set(_run.client.get_live_nodes(list(everyone)))
        except Exception:  # the coordinator does not answer
            lost = {0}
        if lost and not _run.is_ending:
            names = ", ".join(_run.names[number] for number in sorted(lost))
            _run.end(
                f"{names} ended or gives no sign of life: {_run.names[_run.index]} ends too; "
                "started again, the run goes on from its last checkpoint"
            )


def _end_together() -> None:
    """Waits for the others, and leaves the coordinator to the last."""
    import jax

    gather(None)
    _run.is_ending = True
    _run.watch.join()
    jax.distributed.shutdown()


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."
