"""What finds the poses of many pictures: an engine in this process, or one over a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusionpose.app.identity import fingerprint
from diffusionpose.app.output import say
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.app.predict import PredictCommand
    from diffusionpose.app.video import VideoCommand
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
        detector: which one it is, None where boxes are given.
    """

    engine: Engine
    skeleton: Skeleton
    device: str
    batch_size: int
    detector: str | None


@dataclass(frozen=True)
class EstimatorOptions:
    """All that an estimator is made of; it travels to other machines, where the estimator is made.

    Attributes:
        weights, device: as of ``PoseEstimator.from_pretrained``.
        options: its others, but the detector.
        detector, box_score: name and least score, as of ``make_detector``; no name where boxes are given.
        same_as: which detector it must turn out to be; None for whatever the name stands for here.
    """

    weights: str | None
    device: str
    options: dict[str, Any]
    detector: str | None = None
    box_score: float = 0.0
    same_as: str | None = None

    @classmethod
    def of(cls, command: PredictCommand | VideoCommand) -> EstimatorOptions:
        """Those of a command; its detector is left out where it is given boxes."""
        options = {name: getattr(command, name) for name in ("steps", "decode", "flip", "batch_size")}
        detector = None if command.boxes else command.detector
        return cls(command.weights, command.device, options, detector, command.box_score)

    def make(self, tell: Callable[[str], None] = lambda message: None) -> PoseEstimator:
        """The estimator; ``tell`` is told which detector is taken.

        Raises:
            InputError: as ``PoseEstimator.from_pretrained`` and ``make_detector``, or another detector.
        """
        from diffusionpose.inference.detection.choice import make_detector
        from diffusionpose.inference.estimator import PoseEstimator
        from diffusionpose.models.weights import load_model

        options, model = dict(self.options), load_model(self.weights)
        if self.detector is not None:
            detector = make_detector(
                self.detector, self.device, min_score=self.box_score, tell=tell, model=model
            )
            if self.same_as not in (None, fingerprint(detector)):
                raise InputError(
                    f"--detector {self.detector}: is another one in a worker than here; "
                    "name one whose weights all machines have"
                )
            options["detector"] = detector
        return PoseEstimator(model, device=self.device, **options)


def local_engine(how: EstimatorOptions, finish: Finish) -> Ready:
    """An engine in this process."""
    from diffusionpose.inference.engine import LocalEngine

    estimator = how.make(say)
    engine, model = LocalEngine(estimator, finish), estimator.model
    detector = None if how.detector is None else fingerprint(estimator.detector)
    return Ready(engine, model.skeleton, model.device.type, estimator.batch_size, detector)


@contextmanager
def ray_engine(
    how: EstimatorOptions, finish: Finish, workers: int | None, address: str | None
) -> Iterator[Ready]:
    """An engine over the workers of a Ray cluster, or of a Ray started here, for as long as the block lasts.

    Raises:
        InputError: no Ray, no such cluster, more workers than it has cores or GPUs, or a device by number.
    """
    from diffusionpose.inference.detection.choice import AUTO, WHOLE, ZOOM
    from diffusionpose.inference.detection.zoom import PoseZoom
    from diffusionpose.inference.detectors import WholeImage
    from diffusionpose.inference.device import batch_size_on
    from diffusionpose.inference.ray_engine import RayEngine, connected, import_ray

    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be 1 or more")
    if how.device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--device {how.device}: --engine ray takes auto, cpu or cuda, and Ray deals them out"
        )
    import_ray()
    here = replace(how, device="cpu").make(say)  # faults come to light before Ray starts
    detector = None if how.detector is None else fingerprint(here.detector)
    fallbacks = {WholeImage: WHOLE, PoseZoom: ZOOM}  # what "auto" took here is taken everywhere
    name = fallbacks.get(type(here.detector), how.detector) if detector else how.detector
    if name not in (AUTO, *fallbacks.values()):  # which stand for themselves, whatever files are called so
        name = _anywhere(name)
    how = replace(how, weights=_anywhere(how.weights), detector=name, same_as=detector)
    with connected(address, workers) as cluster:
        device = ("cuda" if cluster.gpus else "cpu") if how.device == "auto" else how.device
        batch_size = how.options.get("batch_size") or batch_size_on(device)
        there = replace(how, device=device, options={**how.options, "batch_size": batch_size})
        make = partial(EstimatorOptions.make, there)
        engine = RayEngine(cluster, make, finish, workers=workers, gpu=device == "cuda")
        yield Ready(engine, here.model.skeleton, device, batch_size, detector)


def _anywhere(given: str | None) -> str | None:
    """A file or folder by a path that does not depend on where a process works; a name as it is."""
    return os.path.abspath(given) if given and Path(given).exists() else given
