"""An engine that spreads pictures over the processes of a Ray cluster, by Ray Data.

Every process ("worker") has its own estimator and works as ``LocalEngine`` does, a group of pictures at
a time. Only paths and poses travel: each machine reads the pictures, and writes what is made of them,
itself, so all of them must see the same folders under the same paths. Ray itself runs in a process beside
this one (``ray_driver``), which it may end without ending this one.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from diffusionpose.errors import InputError, needs_extra
from diffusionpose.runtime.estimator import Answer, Finish, Group, PictureTask, PoseEstimator
from diffusionpose.runtime.ray_driver import Connect, Work

DRIVER = "from diffusionpose.runtime.ray_driver import main; main()"
PATIENCE = 30  # seconds that Ray has to end
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # tells nobody that it was used
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that it will change its mind on this
}


class _Driver:
    """The process that drives Ray. What it and Ray print is kept for the message on its unexpected end."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env={**QUIET, **os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for this process, which ends the other one
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout

    def ask(self, request: object) -> Any:
        """The first answer to a request; raises as ``answer``."""
        with suppress(BrokenPipeError):  # it has ended, or left the reason as its last answer
            pickle.dump(request, self._requests)
            self._requests.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next answer.

        Raises:
            InputError: it is the answer, or the process has ended.
        """
        try:
            answer = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError):
            status = self.process.wait()
            self._printed.seek(0)
            printed = self._printed.read().decode(errors="replace").strip().splitlines()
            last = f", after '{printed[-1]}'" if printed else ""
            raise InputError(
                f"Ray has ended in the middle of the work (exit status {status}{last})"
            ) from None
        if isinstance(answer, InputError):
            raise answer
        return answer

    def end(self) -> None:
        """Let the process end, whatever it is doing; how it ends matters no more."""
        with suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._printed.close()


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster: what it has to offer in all.

    Attributes:
        cpus: cores, as Ray counts them.
        gpus: GPUs.
        driver: asks it.
    """

    cpus: int
    gpus: int
    driver: _Driver = field(repr=False, compare=False)


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Cluster]:
    """A Ray cluster for as long as the block lasts.

    Args:
        address: of a cluster, as ``ray.init`` takes it; None starts a Ray of this machine alone.
        cpus: for a Ray of this machine: how many processes may work at once; None for one on each core.

    Raises:
        InputError: the extra ``ray`` is not installed, or there is no cluster at the address.
    """
    import_ray()
    driver = _Driver()
    try:
        all_cpus, all_gpus = driver.ask(Connect(address, cpus))
        yield Cluster(all_cpus, all_gpus, driver)
    finally:
        driver.end()


class RayEngine:
    """Works in the processes of a Ray cluster.

    Args:
        cluster: which one.
        make: makes a worker's estimator; it must pickle.
        finish: as of ``LocalEngine``; it runs in the worker, and must pickle.
        workers: how many; each takes a core and, with ``gpu``, a GPU.
        gpu: give every worker a GPU of its own; without, it sees none.

    Raises:
        InputError: the cluster has not enough cores or GPUs.
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
        self.workers = workers or most
        self._driver, self._gpu = cluster.driver, gpu
        self._made_of = import_ray().cloudpickle.dumps((make, finish))

    def run(self, groups: Iterable[Group]) -> Generator[Answer]:
        """The answers of a group together, groups in the order in which they are finished.

        To stop before the last one is to stop the cluster's use: it answers nothing more.

        Raises:
            InputError: what the estimator's making or ``finish`` raises in a worker, or Ray has ended.
        """
        pickled = [pickle.dumps([_anywhere(task) for task in group]) for group in groups]
        answers = self._driver.ask(Work(self._made_of, pickled, self.workers, self._gpu))
        while answers is not None:
            yield from pickle.loads(answers)  # of our own processes
            answers = self._driver.answer()


def _anywhere(task: PictureTask) -> PictureTask:
    """The task by a path that does not depend on the folder a process works in."""
    return replace(task, path=task.path.absolute())


def import_ray() -> Any:
    """The package ``ray``, which pickles more than Python does; Ray is not started.

    Raises:
        InputError: it is not installed.
    """
    with needs_extra("ray", "the engine 'ray' needs Ray Data"):
        import ray.cloudpickle
    return ray
