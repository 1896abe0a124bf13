"""Does an exported graph compute what PyTorch computes?

Algorithm 2 goes from heatmaps to masks by their maxima. Where two pixels of a heatmap are equal up to
rounding, the maximum, and with it a whole disc of the mask, may land elsewhere in the next library, and
everything after it differs without a fault. So every step is compared alone, both sides starting from
the heatmaps that the graph made in the step before; there the maxima are the same, and nothing excuses
a difference. The whole is compared as well, and may differ only in crops where such a tie is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from diffusionpose.errors import InputError
from diffusionpose.geometry.flips import flip_images
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.exported_model import Run
from diffusionpose.models.pose_model import PoseModel

TOLERANCE = 1e-4  # of the heatmaps' height, which is their largest value
LEAST_HEIGHT = 0.1  # targets are 1 high; of heatmaps lower than this a share says nothing
BATCHES = (1, 8)
CELLS = (2, 4, 8, 16, 32, 64)  # across a random crop: coarse shapes strongest, as in photographs
MEAN, CONTRAST = 115, 55  # brightness of the random crops and its standard deviation, grey levels


class ParityError(InputError):
    """An exported graph computes something else than PyTorch."""


@dataclass(frozen=True)
class Parity:
    """What a comparison found; every number within ``TOLERANCE``.

    Attributes:
        difference: the largest of any step alone, as a share of the heatmaps' height.
        end_to_end: the largest of the last heatmaps, over the crops without a tie.
        crops: how many were compared.
        ties: crops in which two pixels share a maximum up to rounding, and the two sides take another one.
    """

    difference: float
    end_to_end: float
    crops: int
    ties: int


class ExportedGraph(nn.Module):
    """What a file computes: the model with everything fixed that PyTorch's callers choose anew.

    Args:
        model: any pose model, in evaluation mode.
        steps: diffusion steps; None for a model that takes none.
        flip: average with the mirror image.
    """

    def __init__(self, model: PoseModel, steps: int | None, flip: bool) -> None:
        super().__init__()
        self.model = model
        self.steps = steps
        self.flip = flip

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(b, 3, H, W) RGB uint8 crops -> heatmaps (b, j, h, w), then those they came from.

        The others serve the comparison: of every step in turn, from the coarse ones on, for pictures and then
        mirror images where ``flip`` is set. The last step is left out where it is the first output already.
        """
        hm = self.trajectory(images)
        return (self.model.mean_of_mirrored(hm[-1]), *hm) if self.flip else (hm[-1], *hm[:-1])

    def batch(self, images: Tensor) -> Tensor:
        """What goes through the network: the crops, with ``flip`` their mirror images after them."""
        return torch.cat([images, flip_images(images)]) if self.flip else images

    def trajectory(self, images: Tensor) -> list[Tensor]:
        """The heatmaps of all steps."""
        if isinstance(self.model, DiffusionPose) and self.steps is not None:
            return self.model.denoise(self.batch(images), self.steps)
        return [self.model(self.batch(images))]

    def next_step(self, images: Tensor, hm: Tensor, step: int) -> Tensor:
        """Lines 4 to 8 of Algorithm 2 for step number ``step``, from the heatmaps ``hm`` before it."""
        model, steps = self.model, self.steps
        assert isinstance(model, DiffusionPose)
        assert steps is not None
        x_fea = model.encode(self.batch(images))
        y_t, _ = model.codec.decode(hm, "argmax")
        x_c = model.condition(x_fea, y_t, torch.ones_like(y_t[..., 0]))
        return model.decoder(hm, x_c, hm.new_full(hm.shape[:1], 1 - step / steps))


def random_crops(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(count, 3, h, w) uint8 pictures with shapes of all sizes, the coarse ones strongest as in photos."""
    generator = np.random.default_rng(seed)
    crops = np.zeros((count, size[1], size[0], 3), np.float32)
    for crop in crops:
        for cells in CELLS:
            shapes = generator.standard_normal((cells, cells, 3)).astype(np.float32)
            crop += cv2.resize(shapes, size, interpolation=cv2.INTER_CUBIC) / cells**0.5
    crops = MEAN + CONTRAST * (crops - crops.mean()) / crops.std()
    return np.ascontiguousarray(crops.clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2))


@torch.no_grad()
def compare(graph: ExportedGraph, file: Run, steps: Run, tolerance: float = TOLERANCE) -> Parity:
    """Compare an exported file with PyTorch on random crops, one alone and eight together.

    Args:
        graph: what was exported, on the CPU.
        file: runs the file: crops (b, 3, H, W) uint8 -> its outputs, heatmaps (b, j, h, w) first.
        steps: runs the same graph with all outputs of :class:`ExportedGraph`.
        tolerance: of the heatmaps' height.

    Raises:
        ParityError: they differ by more.
    """
    differences, ends, ties = [0.0], [0.0], 0
    for seed, count in enumerate(BATCHES):
        crops = random_crops(count, graph.model.input_size, seed)
        images = torch.from_numpy(crops)
        expected = graph.trajectory(images)
        made = [torch.from_numpy(np.asarray(output)) for output in steps(crops)]
        differences += [_checked(*pair, tolerance) for pair in _steps_alone(graph, images, made, expected[0])]
        heatmaps = torch.from_numpy(np.asarray(file(crops)[0]))
        last = graph.model.mean_of_mirrored(expected[-1]) if graph.flip else expected[-1]
        for index in range(count):
            rows = [index, index + count] if graph.flip else [index]
            ours, theirs = ([hm[rows] for hm in side] for side in (_trajectory(graph, made), expected))
            if _has_tie(ours, theirs, tolerance):
                _checked(f"the file and its steps, crop {index}", heatmaps[index], made[0][index], tolerance)
                ties += 1
            else:
                ends.append(_checked(f"crop {index} of {count}", heatmaps[index], last[index], tolerance))
    return Parity(max(differences), max(ends), sum(BATCHES), ties)


def _trajectory(graph: ExportedGraph, made: list[Tensor]) -> list[Tensor]:
    """The heatmaps of all steps among the outputs of :class:`ExportedGraph`."""
    return made[1:] if graph.flip else [*made[1:], made[0]]


def _steps_alone(
    graph: ExportedGraph, images: Tensor, made: list[Tensor], first: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, the graph's heatmaps and PyTorch's: of the beginning, of each step alone, of the flip test."""
    hm = _trajectory(graph, made)
    yield "the first heatmaps", hm[0], first
    for step, (before, after) in enumerate(pairwise(hm)):
        yield f"step {step + 1} alone", after, graph.next_step(images, before, step)
    if graph.flip:
        yield "the flip test", made[0], graph.model.mean_of_mirrored(hm[-1])


def _checked(name: str, heatmaps: Tensor, expected: Tensor, tolerance: float) -> float:
    """Their difference.

    Raises:
        ParityError: another shape, or a difference above the tolerance.
    """
    if heatmaps.shape != expected.shape:
        raise ParityError(
            f"the graph differs from PyTorch: {name} have shape {tuple(heatmaps.shape)}, "
            f"not {tuple(expected.shape)}"
        )
    difference = _difference(heatmaps, expected)
    if not difference <= tolerance:
        raise ParityError(
            f"the graph differs from PyTorch: {name} by {difference:.1e} of the heatmaps' height, "
            f"{tolerance:.0e} is allowed"
        )
    return difference


def _has_tie(made: list[Tensor], expected: list[Tensor], tolerance: float) -> bool:
    """Whether there is a step whose maxima lie elsewhere although its heatmaps, and all before, agree."""
    for ours, theirs in zip(made[:-1], expected[:-1], strict=True):
        if not _difference(ours, theirs) <= tolerance:
            return False
        if not torch.equal(ours.flatten(2).argmax(2), theirs.flatten(2).argmax(2)):
            return True
    return False


def _difference(heatmaps: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the height; NaN where there is one."""
    height = max(LEAST_HEIGHT, float(expected.abs().max()))
    return float((heatmaps - expected).abs().max()) / height
