"""Many pictures over the processes of a Ray cluster, by Ray Data.

Every process ("worker") makes an estimator of its own and works as ``LocalEngine`` does, a group of pictures
at a time. Only paths and poses travel: each machine reads the pictures, and writes what is made of them,
itself, so all of them must see the same folders under the same paths.
"""

import logging
import os
import pickle
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from diffusionpose.errors import InputError, needs_extra
from diffusionpose.runtime.estimator import Answer, Finish, Group, LocalEngine, PoseEstimator

OBJECT_STORE = 100_000_000  # bytes: only paths and poses go through it; Ray wants 75 MB at least
REACH = 10  # seconds for an answer from a cluster's address
ENDS = 60  # seconds for a thread of Ray Data to end
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # tells nobody that it was used
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that it will change its mind on this
}


class Cluster(NamedTuple):
    """What a Ray cluster has to offer in all: cores, as Ray counts them, and GPUs."""

    cpus: int
    gpus: int


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Cluster]:
    """A Ray cluster for as long as the block lasts; InputError where there is none.

    Args:
        address: of a cluster, as ``ray.init`` takes it; None starts a Ray of this machine alone.
        cpus: for a Ray of this machine: how many processes may work at once; None for one on each core.
    """
    ray = import_ray()
    cores = os.cpu_count() or 1
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address:
        check_listening(address)
    else:
        if cpus is not None and cpus > cores:
            raise InputError(f"--workers {cpus}: this machine has {cores} cores; ask for 1 to {cores}")
        options |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        options["object_store_memory"] = OBJECT_STORE
    try:
        ray.init(logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = _no_cluster(address, error) if address else f"Ray does not start ({error})"
        raise InputError(reason) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        there = ray.cluster_resources()
        yield Cluster(int(there.get("CPU", 0)), int(there.get("GPU", 0)))
    finally:
        # Ray ends the process where a thread of its own still works when it is shut down
        for thread in threading.enumerate():
            if thread.name.startswith("StreamingExecutor"):
                thread.join(ENDS)
        ray.shutdown()


class RayEngine:
    """Works in the processes of the cluster that is :func:`connected`.

    Args:
        cluster: what it has; InputError where it has not enough cores or GPUs.
        make: makes a worker's estimator; it must pickle, as Ray does it.
        finish: as of ``LocalEngine``; it runs in the worker, and must pickle.
        workers: how many; each takes a core and, with ``gpu``, a GPU. None for as many as there can be.
        gpu: give every worker a GPU of its own; without, it sees none.
    """

    def __init__(
        self,
        cluster: Cluster,
        make: Callable[[], PoseEstimator],
        finish: Finish | None = None,
        *,
        workers: int | None = None,
        gpu: bool = False,
    ) -> None:
        if gpu and not cluster.gpus:
            raise InputError("--device cuda: the Ray cluster has 0 GPUs; leave it out, or take cpu")
        most = min(cluster.cpus, cluster.gpus) if gpu else cluster.cpus
        if not 1 <= (workers or most) <= most:
            what = f"{cluster.cpus} cores" + (f" and {cluster.gpus} GPUs" if gpu else "")
            raise InputError(f"--workers {workers or 1}: the Ray cluster has {what}; ask for 1 to {most}")
        self.workers, self._gpu = workers or most, gpu
        self._made_of = import_ray().cloudpickle.dumps((make, finish))

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers of a group together, groups in the order in which they are finished.

        InputError where the estimator's making or ``finish`` raises it in a worker, or Ray fails.
        """
        ray = import_ray()
        absolute = ([replace(task, path=task.path.absolute()) for task in group] for group in groups)
        items = [{"group": pickle.dumps(group)} for group in absolute]
        if not items:
            return
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=(self._made_of,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            num_cpus=1,
            num_gpus=1 if self._gpu else 0,
        )
        try:
            for row in dataset.iter_rows():
                answers = pickle.loads(row["answers"])  # of our own processes
                if isinstance(answers, InputError):
                    raise answers
                yield from answers
        except ray.exceptions.RayError as error:
            reason = str(error).splitlines()[-1]
            raise InputError(f"Ray has ended in the middle of the work ({reason})") from error


class _Worker:
    """A process of the cluster: an engine of its own, which works as in any other process."""

    def __init__(self, made_of: bytes) -> None:
        self.made_of = made_of
        self.engine: LocalEngine | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """The answers of each group, or the InputError that ends the work."""
        answers: list[list[Answer] | InputError] = []
        for group in batch["group"]:
            try:
                if self.engine is None:  # not before: Ray would start a process again that fails
                    make, finish = pickle.loads(self.made_of)
                    self.engine = LocalEngine(make(), finish)
                answers.append(list(self.engine.run([pickle.loads(group)])))
            except InputError as error:
                answers.append(error)
        return {"answers": [pickle.dumps(answer) for answer in answers]}


def check_listening(address: str) -> None:
    """InputError where nobody listens at host:port, which Ray would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), REACH).close()
        except (OSError, OverflowError) as error:
            raise InputError(_no_cluster(address, error)) from error


def _no_cluster(address: str, why: Exception) -> str:
    return f"--ray-address {address}: no Ray cluster ({why}); is `ray start` running there?"


def import_ray() -> Any:
    """The package ``ray`` with Ray Data, not started; InputError where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with needs_extra("ray", "the engine 'ray' needs Ray Data"):
        import ray
        import ray.cloudpickle
        import ray.data
        import ray.exceptions
    return ray
