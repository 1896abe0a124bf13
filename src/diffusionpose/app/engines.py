"""What finds the poses of many pictures: an engine in this process, or one over a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.inference.engine import Engine, Finish
    from diffusionpose.inference.estimator import PoseEstimator
    from diffusionpose.skeletons import Skeleton


@dataclass(frozen=True)
class Ready:
    """An engine that can begin, and what its results depend on.

    Attributes:
        engine: the engine.
        skeleton: of its poses.
        device: "cpu", "cuda", ...
        batch_size: persons per pass through the network.
    """

    engine: Engine
    skeleton: Skeleton
    device: str
    batch_size: int


@dataclass(frozen=True)
class EstimatorOptions:
    """All that an estimator is made of; it travels to other machines, where the estimator is made.

    Attributes:
        weights, device: as of ``PoseEstimator.from_pretrained``.
        options: its others.
    """

    weights: str | None
    device: str
    options: dict[str, Any]

    def make(self) -> PoseEstimator:
        """The estimator.

        Raises:
            InputError: as ``PoseEstimator.from_pretrained``.
        """
        from diffusionpose.inference.estimator import PoseEstimator

        return PoseEstimator.from_pretrained(self.weights, self.device, **self.options)


def local_engine(how: EstimatorOptions, finish: Finish) -> Ready:
    """An engine in this process."""
    from diffusionpose.inference.engine import LocalEngine

    estimator = how.make()
    engine = LocalEngine(estimator, finish)
    return Ready(engine, estimator.model.skeleton, estimator.model.device.type, estimator.batch_size)


@contextmanager
def ray_engine(
    how: EstimatorOptions, finish: Finish, workers: int | None, address: str | None
) -> Iterator[Ready]:
    """An engine over the workers of a Ray cluster, or of a Ray started here, for as long as the block lasts.

    Raises:
        InputError: no Ray, no such cluster, more workers than it has cores or GPUs, or a device by number.
    """
    from diffusionpose.inference.device import batch_size_on
    from diffusionpose.inference.ray_engine import RayEngine, connected, import_ray

    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be 1 or more")
    if how.device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device {how.device}: with --engine ray it is auto, cpu or cuda; Ray deals them out"
        )
    import_ray()
    checked = EstimatorOptions(
        how.weights, "cpu", how.options
    ).make()  # faults come to light before Ray starts
    with connected(address, workers) as cluster:
        device = ("cuda" if cluster.gpus else "cpu") if how.device == "auto" else how.device
        batch_size = how.options.get("batch_size") or batch_size_on(device)
        there = EstimatorOptions(_anywhere(how.weights), device, {**how.options, "batch_size": batch_size})
        engine = RayEngine(
            partial(EstimatorOptions.make, there), finish, workers=workers, gpu=device == "cuda"
        )
        yield Ready(engine, checked.model.skeleton, device, batch_size)


def _anywhere(weights: str | None) -> str | None:
    """Weights by a path that does not depend on the folder a process works in."""
    return os.path.abspath(weights) if weights and Path(weights).exists() else weights
