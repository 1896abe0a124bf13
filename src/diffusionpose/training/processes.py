"""The processes that train together: how they are started, find each other, stop and end.

One process a device. ``diffusionpose train --devices 2`` starts the second one itself; torchrun and SLURM
start all of them. Needs no torch to import.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from diffusionpose.errors import InputError
from diffusionpose.training.settings import Machine

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PARENT = "DIFFUSIONPOSE_PARENT"  # id of the process that a training must not outlive
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # as torchrun sets them


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    ``rank`` is its number, of which 0 writes the files and reports; ``world`` is how many there are.
    """

    rank: int
    world: int
    device: torch.device

    def mean(self, value: Tensor) -> float:
        """Mean over all processes; each of them must call it."""
        from torch import distributed

        value = value.detach().clone()
        if self.world > 1:
            distributed.all_reduce(value)
        return float(value) / self.world

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks; each of them must call it."""
        from torch import distributed

        values = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the values of the first one; each of them must call it."""
        from torch import distributed

        for tensor in tensors if self.world > 1 else ():
            value = tensor.contiguous()
            distributed.broadcast(value, 0)
            tensor.copy_(value)


def is_first() -> bool:
    """Whether this process is the one that writes and reports; known before they have met."""
    return _environment().get("RANK", "0") == "0"


@contextmanager
def joined(machine: Machine) -> Iterator[Processes]:
    """All processes of a machine have met for as long as the block runs.

    Raises:
        InputError: an accelerator that is not there, more devices than there are, a process that is lost.
    """
    from torch import distributed

    place = _environment()
    rank, local_rank = int(place.get("RANK", 0)), int(place.get("LOCAL_RANK", 0))
    device = device_of(machine, local_rank)
    if machine.processes == 1:
        yield Processes(0, 1, device)
        return
    others: list[subprocess.Popen[bytes]] = []
    if not place:
        place, others = _start_others(machine)
    if place["WORLD_SIZE"] != str(machine.processes):
        raise InputError(
            f"--devices {machine.devices} --nodes {machine.nodes}: {place['WORLD_SIZE']} processes were "
            "started; give the numbers that torchrun or SLURM was given"
        )
    try:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://{place['MASTER_ADDR']}:{place['MASTER_PORT']}",
            rank=rank,
            world_size=machine.processes,
        )
        yield Processes(rank, machine.processes, device)
        distributed.barrier()
        for other in others:
            other.wait()
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        if rank:  # the one that was lost, or the first one, has said why
            raise SystemExit(1) from error
        raise InputError("one of the processes that train together has ended; see above") from error
    finally:
        for other in others:
            if other.returncode is None:
                os.killpg(other.pid, signal.SIGTERM)  # with its data loaders
        if distributed.is_initialized():
            distributed.destroy_process_group()


def device_of(machine: Machine, local_rank: int = 0) -> torch.device:
    """What a process of a machine computes on; InputError where it is not there."""
    import torch

    name = "cuda" if machine.accelerator == "gpu" else machine.accelerator
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name):
        raise InputError(f"--accelerator {machine.accelerator}: there is none here; give cpu, gpu or mps")
    limit = {"cuda": torch.cuda.device_count(), "mps": 1}.get(name, machine.devices)
    if machine.devices > limit:
        raise InputError(f"--devices {machine.devices}: this computer has {limit} of {machine.accelerator}")
    if name == "cuda":
        torch.cuda.set_device(local_rank)
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def _environment() -> dict[str, str]:
    """What torchrun sets, also where SLURM set its own names; empty in a process started alone."""
    if "RANK" in os.environ:
        return {name: os.environ[name] for name in NAMES if name in os.environ}
    if "SLURM_PROCID" not in os.environ or os.environ.get("SLURM_NTASKS", "1") == "1":
        return {}
    slurm = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    found = dict(zip(NAMES, (os.environ[name] for name in slurm), strict=False))
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", "127.0.0.1"))
    first = re.sub(r"\[(\w+).*", r"\1", nodes).split(",")[0]  # node[03-06,9] -> node03
    port = 10_000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 50_000
    return found | {"MASTER_ADDR": first, "MASTER_PORT": str(port)}


def _start_others(machine: Machine) -> tuple[dict[str, str], list[subprocess.Popen[bytes]]]:
    """Start the same command again for every further device; what torchrun would set here, and they."""
    if machine.nodes > 1:
        raise InputError(f"--nodes {machine.nodes}: start the command on each of them by torchrun or SLURM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(machine.devices)}
    command = [sys.executable, *sys.orig_argv[1:]]
    environment = {**os.environ, **place, PARENT: str(os.getpid())}
    others = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,  # the first one reports
            process_group=0,  # a terminal's Ctrl-C reaches the first one alone, which ends them
        )
        for rank in range(1, machine.devices)
    ]
    return place, others


def end_with_parent() -> None:
    """End this process soon after the one named in ``PARENT`` is gone, however that ended."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.2)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def noting_ctrl_c() -> Iterator[Callable[[], None]]:
    """A Ctrl-C (SIGINT) is only noted in the block; what it gives raises it as KeyboardInterrupt.

    Raised in the middle of a library's code, KeyboardInterrupt is sometimes swallowed there or comes out as
    another error. So whatever the block raises after a Ctrl-C becomes KeyboardInterrupt. A second Ctrl-C
    is raised at once.
    """
    pressed: list[int] = []

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    def note(number: int, frame: FrameType | None) -> None:
        check()
        pressed.append(number)

    before = signal.getsignal(signal.SIGINT)
    mine = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if mine:  # else somebody else handles it
        signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)
