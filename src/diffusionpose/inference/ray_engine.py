"""An engine that spreads pictures over the processes of a Ray cluster, by Ray Data.

Every process ("worker") has its own estimator and works as ``LocalEngine`` does, a group of pictures at
a time. Only paths and poses travel: each machine reads the pictures, and writes what is made of them,
itself, so all of them must see the same folders under the same paths.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.extras import needs_extra
from diffusionpose.inference.engine import Answer, Finish, Group, LocalEngine, PictureTask
from diffusionpose.inference.estimator import PoseEstimator

OBJECT_STORE = 100_000_000  # bytes: only paths and poses go through it; Ray wants 75 MB at least
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # tells nobody that it was used
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that it will change its mind on this
}


@dataclass(frozen=True)
class Cluster:
    """What Ray has to offer in all.

    Attributes:
        cpus: cores, as Ray counts them.
        gpus: GPUs.
    """

    cpus: int
    gpus: int


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Cluster]:
    """A Ray cluster for as long as the block lasts; a Ray that runs in this process already stays as it is.

    Args:
        address: of a cluster, as ``ray.init`` takes it; None starts a Ray of this machine alone.
        cpus: for a Ray of this machine: how many processes may work at once; None for one on each core.

    Raises:
        InputError: the extra ``ray`` is not installed, or there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield _resources(ray)
        return
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    here = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else here),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--ray-address {address}: no Ray cluster ({error}); is `ray start` running there?"
            if address
            else f"Ray does not start ({error})"
        ) from error
    try:
        yield _resources(ray)
    finally:
        ray.shutdown()


class RayEngine:
    """Works in the processes of the Ray cluster that this process is connected to.

    Args:
        make: makes a worker's estimator; it must pickle.
        finish: as of ``LocalEngine``; it runs in the worker, and must pickle.
        workers: how many; each takes a core and, with ``gpu``, a GPU.
        gpu: give every worker a GPU of its own; without, it sees none.

    Raises:
        InputError: the cluster has not enough cores or GPUs.
    """

    def __init__(
        self,
        make: Callable[[], PoseEstimator],
        finish: Finish | None = None,
        *,
        workers: int | None = None,
        gpu: bool = False,
    ) -> None:
        cluster = _resources(import_ray())
        if gpu and not cluster.gpus:
            raise InputError("--device cuda: the Ray cluster has 0 GPUs; leave it out, or take cpu")
        most = min(cluster.cpus, cluster.gpus) if gpu else cluster.cpus
        if not 1 <= (workers or most) <= most:
            what = f"{cluster.cpus} cores" + (f" and {cluster.gpus} GPUs" if gpu else "")
            raise InputError(f"--workers {workers or 1}: the Ray cluster has {what}; ask for 1 to {most}")
        self.workers = workers or most
        self._pickled = import_ray().cloudpickle.dumps((make, finish))
        self._gpu = gpu

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers of a group together, groups in the order in which they are finished.

        Raises:
            InputError: what the estimator's making or ``finish`` raises in a worker.
        """
        import ray.data

        items = [{"group": pickle.dumps([_anywhere(task) for task in group])} for group in groups]
        if not items:
            return
        with _quiet(ray):
            dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
                _Worker,  # type: ignore[arg-type]  # a class, of which each worker makes one
                fn_constructor_args=(self._pickled,),
                compute=ray.data.ActorPoolStrategy(size=self.workers),
                num_cpus=1,
                num_gpus=1 if self._gpu else 0,
            )
            for row in dataset.iter_rows():
                answers = pickle.loads(row["answers"])  # of our own processes
                if isinstance(answers, InputError):
                    raise answers
                yield from answers


class _Worker:
    """A process of the cluster."""

    def __init__(self, pickled: bytes) -> None:
        self.engine: LocalEngine | InputError
        try:  # what is raised here would make Ray start the process again and again
            make, finish = pickle.loads(pickled)
            self.engine = LocalEngine(make(), finish)
        except InputError as error:
            self.engine = error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.engine = InputError(
                f"a Ray worker cannot start ({reason}); is the same installed everywhere?"
            )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answers of one group, or the InputError that ends the work."""
        answers: list[Answer] | InputError
        if isinstance(self.engine, InputError):
            answers = self.engine
        else:
            try:
                answers = list(self.engine.run([pickle.loads(row["group"])]))
            except InputError as error:
                answers = error
        return {"answers": pickle.dumps(answers)}


def _anywhere(task: PictureTask) -> PictureTask:
    """The task by a path that does not depend on the folder a process works in."""
    return replace(task, path=task.path.absolute())


def import_ray() -> Any:
    """The package ``ray``, with Ray Data.

    Raises:
        InputError: it is not installed.
    """
    with needs_extra("ray", "the engine 'ray' needs Ray Data"):
        import ray
        import ray.data  # needs more than Ray itself
    return ray


def _resources(ray: Any) -> Cluster:
    there = ray.cluster_resources()
    return Cluster(int(there.get("CPU", 0)), int(there.get("GPU", 0)))


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """No bars and no reports of Ray Data; the caller has his own."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    try:
        context.enable_progress_bars = False
        logger.setLevel(logging.ERROR)
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
