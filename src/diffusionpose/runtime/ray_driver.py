"""The process that drives Ray for ``ray_engine``, and what a worker of the cluster does.

Ray's core may end the process it runs in without a word: a whole test run was lost so about when Ray was
shut down (seen once, with 2.60, exit status 1). So it gets a process of its own, which is told what to do
through its input and answers through its output; both are streams of pickles. The end of its input is its
own end, in the middle of work, too.
"""

from __future__ import annotations

import _thread
import logging
import os
import pickle
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from diffusionpose.errors import InputError, needs_extra

if TYPE_CHECKING:
    from diffusionpose.runtime.estimator import LocalEngine

OBJECT_STORE = 100_000_000  # bytes: only paths and poses go through it; Ray wants 75 MB at least
REACH = 10  # seconds for an answer from a cluster's address


@dataclass(frozen=True)
class Connect:
    """The first request: which cluster, as of ``ray_engine.connected``. The answer is its (cpus, gpus)."""

    address: str | None
    cpus: int | None


@dataclass(frozen=True)
class Work:
    """Any later request. The answers are the workers' (pickled lists of answers), then None or an InputError.

    Attributes:
        made_of: (make, finish) of ``RayEngine``, pickled.
        groups: each pickled.
        workers: how many.
        gpu: whether each has a GPU.
    """

    made_of: bytes
    groups: list[bytes]
    workers: int
    gpu: bool


def main() -> NoReturn:
    """Answer the requests until there are no more. What fails as it may (InputError) is an answer."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is no answer
    status = 0
    try:
        with suppress(KeyboardInterrupt, BrokenPipeError), os.fdopen(output, "wb") as answers:
            _serve(_requests(sys.stdin.buffer), answers)
    except Exception:
        traceback.print_exc()
        status = 1
    os._exit(status)  # at once: a thread still reads, which Python does not forgive when it ends


def _serve(requests: Iterator[Any], answers: BinaryIO) -> None:
    try:
        with _cluster(next(requests)) as ray:
            there = ray.cluster_resources()
            _send(answers, (int(there.get("CPU", 0)), int(there.get("GPU", 0))))
            for work in requests:
                try:
                    for answer in _answers(ray, work):
                        _send(answers, answer)
                    _send(answers, None)
                except InputError as error:
                    _send(answers, error)
    except InputError as error:
        _send(answers, error)


def _send(stream: BinaryIO, answer: object) -> None:
    pickle.dump(answer, stream)
    stream.flush()


def _requests(stream: BinaryIO) -> Iterator[Any]:
    """The requests as they come; the stream's end raises KeyboardInterrupt where one is being answered."""
    waiting: queue.Queue[Any] = queue.Queue()
    idle = threading.Event()

    def read() -> None:
        with suppress(EOFError, OSError):
            while True:
                waiting.put(pickle.load(stream))
        waiting.put(None)
        if not idle.is_set():
            _thread.interrupt_main()

    threading.Thread(target=read, daemon=True).start()
    while True:
        idle.set()
        request = waiting.get()
        if request is None:
            return
        idle.clear()
        yield request


@contextmanager
def _cluster(connect: Connect) -> Iterator[Any]:
    """The package ``ray``, connected for as long as the block lasts.

    Raises:
        InputError: the extra ``ray`` is not installed, or there is no such cluster.
    """
    with needs_extra("ray", "the engine 'ray' needs Ray Data"):
        import ray
        import ray.data  # needs more than Ray itself
    address = connect.address
    if address:
        _check_listening(address)
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False}
    if not address:
        options |= {"num_cpus": connect.cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        ray.init(logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = _no_cluster(address, error) if address else f"Ray does not start ({error})"
        raise InputError(why) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """InputError where nobody listens at host:port, which Ray would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), REACH).close()
        except (OSError, OverflowError) as error:
            raise InputError(_no_cluster(address, error)) from error


def _no_cluster(address: str, why: Exception) -> str:
    return f"--ray-address {address}: no Ray cluster ({why}); is `ray start` running there?"


def _answers(ray: Any, work: Work) -> Iterator[bytes]:
    """What the workers answer, group by group, in the order in which they are finished.

    Raises:
        InputError: what ends a worker's work.
    """
    if not work.groups:
        return
    items = [{"group": group, "made_of": work.made_of} for group in work.groups]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Worker,
        compute=ray.data.ActorPoolStrategy(size=work.workers),
        num_cpus=1,
        num_gpus=1 if work.gpu else 0,
    )
    for row in dataset.iter_rows():
        if row["failure"]:
            raise pickle.loads(row["failure"])  # of our own processes, as all that is unpickled here
        yield row["answers"]


class Worker:
    """A process of the cluster: an engine of its own, which works as in any other process."""

    def __init__(self) -> None:
        self.engine: LocalEngine | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """The answers of one group, or the InputError that ends the work."""
        try:
            if self.engine is None:  # not before: what fails as the process starts makes Ray start it again
                self.engine = _engine(row["made_of"])
            answers = list(self.engine.run([pickle.loads(row["group"])]))
        except InputError as error:
            return {"answers": b"", "failure": pickle.dumps(error)}
        return {"answers": pickle.dumps(answers), "failure": b""}


def _engine(made_of: bytes) -> LocalEngine:
    from diffusionpose.runtime.estimator import LocalEngine

    try:
        make, finish = pickle.loads(made_of)
        return LocalEngine(make(), finish)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"a Ray worker cannot start ({reason}); is the same installed everywhere?"
        ) from error
