"""Export to ONNX or OpenVINO: a file that gives heatmaps from crops without PyTorch and without this package.

Inside the graph: normalisation, the network, Algorithm 2 with a fixed number of steps and, if asked for, the
flip test. Outside: cutting crops, reading keypoints out of heatmaps, going back to the picture; the file's
metadata has every number they need. docs/export.md is the description for those who use such a file.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import diffusionpose
from diffusionpose.errors import InputError
from diffusionpose.extras import needs_extra
from diffusionpose.files import atomically
from diffusionpose.geometry.crops import PADDING
from diffusionpose.inference.parity import ExportedGraph, Parity, compare, random_crops
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.exported_model import HEATMAPS, IMAGES, METADATA_KEY, ExportedModel
from diffusionpose.models.onnx_model import import_onnxruntime, open_onnx
from diffusionpose.models.openvino_model import compiled, from_onnx, import_openvino, save_openvino
from diffusionpose.models.pose_model import PoseModel

OPSET = 18  # the exporter's own; others are converted from it
OPSETS = (18, 23)  # what PyTorch's exporter converts to
STEPS = 1  # the paper's advice
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

    By its own runtime it is compared with PyTorch on random crops (``inference/parity.py``); it appears whole
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
    if isinstance(model, DiffusionPose) and steps is None:
        steps = STEPS
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
