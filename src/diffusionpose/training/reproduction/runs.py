"""Jobs done in processes of their own, some side by side, with their lines and the time left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from diffusionpose.training.reproduction.job import Job
from diffusionpose.training.reproduction.worker import __name__ as WORKER

Say = Callable[[str], None]


class Clock:
    """Time left of all jobs, from the pace of the epochs done in this sitting.

    Args:
        jobs: those to be done.
        weights: cost of an epoch of each by its name, in any unit.
        parallel: how many are done at once.
    """

    def __init__(self, jobs: Sequence[Job], weights: Mapping[str, float], parallel: int) -> None:
        self.weights, self.parallel = weights, parallel
        self.epochs_left = {job.name: job.settings.epochs for job in jobs}
        self.since: dict[str, float] = {}
        self.seconds = self.work = 0.0

    def start(self, name: str) -> None:
        """A job begins."""
        self.since[name] = time.monotonic()

    def epoch_done(self, name: str, left: int) -> None:
        """A job has finished an epoch and has ``left`` more to do."""
        now = time.monotonic()
        self.seconds += now - self.since.get(name, now)
        self.work += self.weights[name]
        self.since[name], self.epochs_left[name] = now, left

    def job_done(self, name: str) -> None:
        """Nothing more will come of a job."""
        self.epochs_left[name] = 0

    def left(self) -> str:
        """Time to the end of all trainings, "?" before the first epoch; measurements come on top."""
        if not self.work:
            return "?"
        works = [self.weights[name] * epochs for name, epochs in self.epochs_left.items()]
        # the last ones may leave places idle, so never less than the longest
        ahead = max([sum(works) / self.parallel, *works])
        return str(timedelta(seconds=round(ahead * self.seconds / self.work)))


def do_all(jobs: Sequence[Job], weights: Mapping[str, float], parallel: int, say: Say) -> dict[str, str]:
    """Do jobs; one that fails leaves the others alone.

    Args:
        jobs: to be done, in this order.
        weights: of :class:`Clock`.
        parallel: how many at once.
        say: takes every line of theirs, with the job's number and name before it.

    Returns:
        Why a job failed, by its name.

    Raises:
        KeyboardInterrupt: the jobs have been ended, and can be resumed.
    """
    crew = _Crew(Clock(jobs, weights, parallel), len(jobs), say)
    with ThreadPoolExecutor(max_workers=parallel) as pool, crew:
        answers = [pool.submit(crew.do, *each) for each in enumerate(jobs, start=1)]
        try:
            results = [answer.result() for answer in answers]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {job.name: text for job, text in zip(jobs, results, strict=True) if text is not None}


class _Crew:
    """The processes at work; none is left behind, whatever happens.

    Args:
        clock: of all jobs.
        total: how many jobs there are.
        say: takes lines.
    """

    def __init__(self, clock: Clock, total: int, say: Say) -> None:
        self.clock, self.total, self.say = clock, total, say
        self.lock = threading.Lock()
        self.running: list[subprocess.Popen[str]] = []

    def do(self, number: int, job: Job) -> str | None:
        """Do a job, in a thread of its own; why it failed, or None."""
        start = f"[{number}/{self.total} {job.name}]"
        with self.lock:
            self.clock.start(job.name)
            process = _start(job)
            self.running.append(process)
            self.say(f"{start} begins")
        last = ""
        for last in _lines(process):
            with self.lock:
                self.say(f"{start} {last}{_time_left(self.clock, job, last)}")
        status = process.wait()
        with self.lock:
            self.clock.job_done(job.name)
        if status == 0:
            return None
        return last if status == 1 and last else f"ended with status {status}: {last or 'no message'}"

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _start(job: Job) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(job.threads)}
    return subprocess.Popen(
        [sys.executable, "-m", WORKER, job.to_json()],
        stdin=subprocess.PIPE,  # its end tells the worker that this process is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()


def _time_left(clock: Clock, job: Job, line: str) -> str:
    """What to add to a line: after "epoch 2/3 ..." the time left of all jobs."""
    if not line.startswith("epoch "):
        return ""
    done, _, epochs = line.split()[1].partition("/")
    clock.epoch_done(job.name, int(epochs) - int(done))
    return f", {clock.left()} of all"
