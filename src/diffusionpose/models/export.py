"""Does an exported graph compute what PyTorch computes?

Algorithm 2 goes from heatmaps to masks by their maxima. Where two pixels of a heatmap are equal up to
rounding, the maximum, and with it a whole disc of the mask, may land elsewhere in the next library, and
everything after it differs without a fault. So every step is compared alone, both sides starting from
the heatmaps that the graph made in the step before; there the maxima are the same, and nothing excuses
a difference. The whole is compared as well, and may differ only in crops where such a tie is found.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import diffusionpose
from diffusionpose.errors import InputError, atomically, needs_extra
from diffusionpose.geometry import PADDING, flip_images
from diffusionpose.models.exported import (
    HEATMAPS,
    IMAGES,
    METADATA_KEY,
    ExportedModel,
    Run,
    compiled,
    from_onnx,
    import_onnxruntime,
    import_openvino,
    open_onnx,
    save_openvino,
)
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.variants import DiffusionPoseVariant

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
        return self.model.trajectory(self.batch(images), self.steps)

    def next_step(self, images: Tensor, hm: Tensor, step: int) -> Tensor:
        """Lines 4 to 8 of Algorithm 2 for step number ``step``, from the heatmaps ``hm`` before it."""
        model, steps = self.model, self.steps
        assert isinstance(model, DiffusionPoseVariant)
        assert steps is not None
        x_fea, _ = model.encode(self.batch(images))
        y_t, _ = model.codec.decode(hm, "argmax")
        return model.step(x_fea, hm, y_t, hm.new_full(hm.shape[:1], 1 - step / steps))


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


# Export to ONNX or OpenVINO: a file that gives heatmaps from crops without PyTorch and without this package

OPSET = 18  # the exporter's own; others are converted from it
OPSETS = (18, 23)  # what PyTorch's exporter converts to
LARGEST = 1_500_000_000  # bytes of weights from which the exporter writes a second file; ONNX ends at 2 GB
DECODE = "dark"
BATCH = "batch"  # name of the dimension


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: of the file.
        facts: its metadata.
        parity: how far it is from PyTorch.
    """

    path: Path
    facts: dict[str, Any]
    parity: Parity


def export_model(
    model: PoseModel, path: str | Path, steps: int | None = None, flip: bool = False, opset: int = OPSET
) -> Exported:
    """Write a model as ONNX or, from the ONNX graph, as OpenVINO, as the ending of ``path`` says.

    By its own runtime it is compared with PyTorch on random crops (``models/export.py``); it appears whole
    and compared, or not at all. ``images`` (b, 3, H, W) uint8 RGB go in, ``heatmaps`` (b, j, h, w) come out.

    Args:
        model: any of the zoo; it is left as it is.
        path: of the .onnx or .xml file; the latter gets its weights into a .bin beside it.
        steps: diffusion steps, unrolled; None for one, 0 for the coarse heatmaps.
        flip: put the flip test inside; every run then costs twice as much.
        opset: version of ONNX's operators.

    Raises:
        InputError: an extra is not installed, steps for a model that takes none, an opset that cannot be had,
            a model too large for one file, another ending, or a file that cannot be written.
        ParityError: the graph computes something else than PyTorch.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: name an {' or '.join(FORMATS)} file")
    if path.suffix == OPENVINO:
        import_openvino()
    _check(model, steps, opset)
    steps = model.default_steps if steps is None else steps
    graph = ExportedGraph(copy.deepcopy(model).cpu().eval().requires_grad_(False), steps, flip)
    facts, program = metadata(graph), _traced(graph, opset)
    _describe(program.model, facts)
    try:
        return Exported(path, facts, FORMATS[path.suffix](program, graph, path))
    except InputError as error:
        raise type(error)(f"{path}: not written: {error}") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); is the folder there, writable, not full?"
        ) from error


def _write_onnx(program: Any, graph: ExportedGraph, path: Path) -> Parity:
    """Write the file beside its place, compare it with PyTorch, and only then move it there."""
    everything = open_onnx(_heatmaps_and_steps(program))
    parity: list[Parity] = []

    def write(temporary: Path) -> None:
        program.save(temporary, external_data=False)
        parity.append(compare(graph, open_onnx(temporary), everything))

    atomically(path, write)
    return parity[0]


def _write_openvino(program: Any, graph: ExportedGraph, path: Path) -> Parity:
    """Convert, compare with PyTorch, and only then write both files."""
    everything = compiled(from_onnx(_heatmaps_and_steps(program)))
    model = from_onnx(program.model_proto.SerializeToString())
    parity = compare(graph, compiled(model), everything)
    save_openvino(model, path, program.model.metadata_props[METADATA_KEY])
    return parity


def _heatmaps_and_steps(program: Any) -> bytes:
    """The graph with the outputs of the steps, which only the comparison needs; then they are taken out."""
    content: bytes = program.model_proto.SerializeToString()
    del program.model.graph.outputs[1:]
    return content


OPENVINO = ".xml"
FORMATS = {".onnx": _write_onnx, OPENVINO: _write_openvino}


def metadata(graph: ExportedGraph) -> dict[str, Any]:
    """What a file says of itself: JSON of everything that its user must know (docs/export.md)."""
    model = graph.model
    return {
        "version": diffusionpose.__version__,
        "model": model.config["name"],
        "options": model.config["options"],
        "skeleton": model.skeleton.to_dict(),
        "flip_order": list(model.skeleton.flip_order),
        "input_size": list(model.input_size),
        "heatmap_size": list(model.heatmap_size),
        "stride": model.codec.stride,
        "unbiased": model.unbiased,
        "box_padding": PADDING,
        "heatmap_sigma": model.codec.sigma,
        "steps": graph.steps,
        "flip": graph.flip,
        "decode": DECODE,
    }


def _check(model: PoseModel, steps: int | None, opset: int) -> None:
    """InputError where an export cannot even begin."""
    import_onnxruntime()
    with needs_extra("export", "the export needs onnx and onnxscript"):
        import onnx  # noqa: F401  # the exporter needs both, and would say so late
        import onnxscript  # noqa: F401
    if isinstance(model, ExportedModel):
        raise InputError(f"{model.path}: is exported already; give the .safetensors file it was made from")
    model.check_options(steps=steps)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise InputError(f"opset: {opset} is not one of {OPSETS[0]} to {OPSETS[1]}")
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > LARGEST:
        raise InputError(
            f"{model.config['name']}: {size / 1e9:.1f} GB of weights; "
            f"one ONNX file holds {LARGEST / 1e9} GB at most"
        )


def _traced(graph: ExportedGraph, opset: int) -> Any:
    """PyTorch's ONNXProgram of the graph, its batch of any size."""
    images = torch.from_numpy(random_crops(2, graph.model.input_size))  # one alone would count as a constant
    with torch.no_grad(), _quiet():
        exported = torch.export.export(
            graph, (images,), dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},), strict=False
        )
        count = len(exported.graph_signature.user_outputs)
        names = [HEATMAPS, *(f"{HEATMAPS}_{index}" for index in range(count - 1))]
        program = torch.onnx.export(
            exported,
            dynamo=True,
            dynamic_shapes=({0: BATCH},),
            opset_version=opset,
            input_names=[IMAGES],
            output_names=names,
            verbose=False,
        )
    assert program is not None
    if (made := program.model.opset_imports[""]) != opset:
        raise InputError(f"opset: PyTorch could not convert this model to {opset}; it is {made}")
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporter about itself; whether the graph is right is measured afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _describe(model: Any, facts: dict[str, Any]) -> None:
    """Put the metadata in, and take out where on this machine each node was traced from."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props[METADATA_KEY] = json.dumps(facts)
    model.producer_name, model.producer_version = "diffusionpose", diffusionpose.__version__
    model.graph.name = facts["model"]
