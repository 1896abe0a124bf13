"""Export to ONNX or OpenVINO: files that run without PyTorch.

Three forms, by the path that is asked for:

* ``FILE.onnx``: one graph, ``images`` -> ``heatmaps``: normalisation, network, Algorithm 2 with a fixed
number
  of steps and, if asked for, the flip test;
* ``FILE.xml``: the same as OpenVINO has it, weights in the ``.bin`` beside it;
* ``FOLDER``: two graphs, the loop of Algorithm 2 left to the caller: ``encoder.onnx``, ``images`` ->
``x_fea``,
  ``hm_T`` (lines 1 and 2), and ``step.onnx``, ``x_fea``, ``hm_t``, ``y_t`` -> ``heatmaps`` (lines 5 to 8). So
  any number of steps, and any start, can be had. A model without diffusion has the encoder alone, ``images``
  -> ``hm_T``. This is the form of the bundled models.

Outside are cutting crops, reading keypoints out of heatmaps, and going back to the picture; the metadata of
the files have every number that needs. docs/export.md describes them for users of other languages.

Every graph is compared with PyTorch on random crops by its own runtime before its file appears.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import diffusionpose
from diffusionpose.bundled import FOLDER
from diffusionpose.errors import InputError, atomically, make_writable, needs_extra
from diffusionpose.geometry import PADDING, flip_images
from diffusionpose.models.checkpoints import load_model, save_model
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.variants import DiffusionPoseVariant

METADATA_KEY = "diffusionpose"
ENCODER, STEP = "encoder.onnx", "step.onnx"
OPSET = 18  # the exporter's own; others are converted from it
OPSETS = (18, 23)  # what PyTorch's exporter converts to
LARGEST = 1_500_000_000  # bytes of weights from which the exporter writes a second file; ONNX ends at 2 GB
DECODE = "dark"
BATCH = "batch"  # name of the dimension

TOLERANCE = 1e-4  # of the heatmaps' height, which is their largest value
LEAST_HEIGHT = 0.1  # targets are 1 high; of heatmaps lower than this a share says nothing
BATCHES = (1, 8)
CELLS = (2, 4, 8, 16, 32, 64)  # across a random crop: coarse shapes strongest, as in photographs
MEAN, CONTRAST = 115, 55  # brightness of the random crops and its standard deviation, grey levels

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]  # inputs of a graph, in order -> its outputs


class ParityError(InputError):
    """An exported graph computes something else than PyTorch."""


@dataclass(frozen=True)
class Parity:
    """What a comparison found.

    Attributes:
        difference: the largest, as a share of the heatmaps' height; within ``TOLERANCE``.
        crops: how many were compared.
        ties: further crops in which two pixels share a heatmap's maximum up to rounding, so that a mask may
            land elsewhere in another library without a fault; they are left out.
    """

    difference: float
    crops: int
    ties: int = 0


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        path: of the file, or of the folder.
        files: all that were written.
        facts: their metadata.
        parity: how far they are from PyTorch.
    """

    path: Path
    files: list[Path]
    facts: dict[str, Any]
    parity: Parity


def export_model(
    model: PoseModel,
    path: str | Path,
    steps: int | None = None,
    flip: bool = False,
    opset: int = OPSET,
    half: bool = False,
) -> Exported:
    """Export a model; it is left as it is.

    Args:
        model: any of the zoo.
        path: FILE.onnx, FILE.xml, or a folder.
        steps: diffusion steps, unrolled in a single graph, the default of two graphs; None for the model's
            own number, 0 for the coarse heatmaps.
        flip: put the flip test inside a single graph; every run then costs twice as much.
        opset: version of ONNX's operators.
        half: store those weights of ONNX files as float16 that are float16 numbers, as those of the bundled
            models are: half the size, the same answers.

    Raises:
        InputError: an extra is not installed, options that do not fit, a model too large for one file, or a
            file that cannot be written.
        ParityError: a graph computes something else than PyTorch.
    """
    path = Path(path)
    folder = path.suffix == ""
    if path.suffix not in ("", ".onnx", ".xml") or (not folder and path.is_dir()):
        raise InputError(f"{path}: name an .onnx or .xml file, or a folder")
    if folder and flip:
        raise InputError(f"{path}: the flip test goes into a single file, not into a folder; leave it out")
    _check(model, steps, opset)
    if path.suffix == ".xml":
        _import_openvino()
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    facts = metadata(model, model.default_steps if steps is None else steps, flip)
    try:
        if folder:
            make_writable(path)
            return _export_folder(model, path, facts, opset, half)
        return _export_file(model, path, facts, opset, half)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); is the folder there, writable, not full?"
        ) from error


def _export_file(model: PoseModel, path: Path, facts: dict[str, Any], opset: int, half: bool) -> Exported:
    graph = SingleGraph(model, facts["steps"], facts["flip"])
    crops = [torch.from_numpy(random_crops(count, model.input_size, count)) for count in BATCHES]
    content = _traced(graph, [(images,) for images in crops], ["images"], ["heatmaps"], facts, opset, half)
    with _named(path):
        if path.suffix == ".xml":
            converted = _from_onnx(content)
            parity = compare(_run_openvino(converted), graph, [(images,) for images in crops], graph.ties)
            _save_openvino(converted, path, json.dumps(facts))
            return Exported(path, [path, path.with_suffix(".bin")], facts, parity)
        parity = compare(run_onnx(content), graph, [(images,) for images in crops], graph.ties)
    atomically(path, lambda part: part.write_bytes(content))
    return Exported(path, [path], facts, parity)


def _export_folder(model: PoseModel, path: Path, facts: dict[str, Any], opset: int, half: bool) -> Exported:
    """Both graphs, compared one by one: the inputs of a step are PyTorch's own, so that no tie matters."""
    crops = [torch.from_numpy(random_crops(count, model.input_size, count)) for count in BATCHES]
    inputs: list[tuple[Tensor, ...]] = [(images,) for images in crops]
    graphs: dict[str, tuple[nn.Module, list[tuple[Tensor, ...]], list[str], list[str]]]
    if not isinstance(model, DiffusionPose):
        graphs = {ENCODER: (SingleGraph(model, None, False), inputs, ["images"], ["hm_T"])}
    else:
        encoder, step = EncoderGraph(model), StepGraph(model)
        between = [step.inputs(*encoder(images)) for images in crops]
        graphs = {
            ENCODER: (encoder, inputs, ["images"], ["x_fea", "hm_T"]),
            STEP: (step, between, step.names, ["heatmaps"]),
        }
    contents: dict[Path, bytes] = {}
    differences = []
    for name, (graph, examples, names, outputs) in graphs.items():
        contents[path / name] = content = _traced(graph, examples, names, outputs, facts, opset, half)
        with _named(path / name):
            differences.append(compare(run_onnx(content), graph, examples).difference)
    for file, content in reversed(contents.items()):  # the encoder last: it makes the folder a model
        atomically(file, lambda part, content=content: part.write_bytes(content))  # type: ignore[misc]
    return Exported(path, list(contents), facts, Parity(max(differences), sum(BATCHES)))


def bundle(weights: str | Path, name: str) -> Exported:
    """Put a model into the package: NAME.safetensors with float16 kernels, and its two graphs in NAME/.

    ``python -m diffusionpose.models.export WEIGHTS NAME``, in a clone.
    """
    path = FOLDER / f"{name}.safetensors"
    save_model(load_model(weights), path, half=True)
    return export_model(load_model(path), FOLDER / name, half=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the block begin with the file that is not written for them."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{path}: not written: {error}") from error


# --- graphs ---


class SingleGraph(nn.Module):
    """A model with everything fixed that PyTorch's callers choose anew.

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

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) RGB uint8 crops -> heatmaps (b, j, h, w)."""
        last = self._trajectory(images)[-1]
        return self.model.codec.mean_of_mirrored(last, self.model.skeleton.flip_order) if self.flip else last

    def ties(self, images: Tensor) -> Tensor:
        """(b,) crops in which a heatmap before the last one has its maximum twice, up to rounding."""
        found = torch.zeros(len(images), dtype=torch.bool)
        for hm in self._trajectory(images)[:-1]:
            height = max(LEAST_HEIGHT, float(hm.abs().max()))
            near = hm.flatten(2) >= hm.amax((2, 3))[..., None] - 2 * TOLERANCE * height
            tied = (near.sum(2) > 1).any(1)
            found |= tied[: len(images)] | tied[-len(images) :]  # with the flip test the mirror images follow
        return found

    def _trajectory(self, images: Tensor) -> list[Tensor]:
        both = torch.cat([images, flip_images(images)]) if self.flip else images
        return self.model.trajectory(both, self.steps)


class EncoderGraph(nn.Module):
    """Lines 1 and 2 of Algorithm 2: crops -> x_fea, hm_T."""

    def __init__(self, model: DiffusionPose) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, H, W) RGB uint8 -> x_fea (b, c, h, w), hm_T (b, j, h, w)."""
        return self.model.encode(images)


class StepGraph(nn.Module):
    """Lines 5 to 8 of Algorithm 2."""

    def __init__(self, model: DiffusionPose) -> None:
        super().__init__()
        self.model = model
        self.sees_t = isinstance(model, DiffusionPoseVariant) and model.time_input
        self.names = ["x_fea", "hm_t", "y_t", *(["t"] if self.sees_t else [])]

    def inputs(self, x_fea: Tensor, hm_t: Tensor) -> tuple[Tensor, ...]:
        """What :meth:`forward` takes, for the first step of two."""
        y_t, _ = self.model.codec.decode(hm_t, "argmax")
        return (x_fea, hm_t, y_t, *([torch.ones(len(hm_t))] if self.sees_t else []))

    def forward(self, x_fea: Tensor, hm_t: Tensor, y_t: Tensor, t: Tensor | None = None) -> Tensor:
        """x_fea (b, c, h, w), hm_t (b, j, h, w), y_t (b, j, 2), t / T (b,) -> (b, j, h, w)."""
        return self.model.step(x_fea, hm_t, y_t, *([t] if self.sees_t else []))


def metadata(model: PoseModel, steps: int | None, flip: bool) -> dict[str, Any]:
    """What a file says of itself: everything that its user must know (docs/export.md)."""
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
        "steps": steps,
        "flip": flip,
        "decode": DECODE,
    }


def _check(model: PoseModel, steps: int | None, opset: int) -> None:
    """InputError where an export cannot even begin."""
    with needs_extra("export", "the export needs onnx and onnxscript"):
        import onnx  # noqa: F401  # the exporter needs both, and would say so late
        import onnxscript  # noqa: F401
    model.check_steps(steps)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise InputError(f"opset: {opset} is not one of {OPSETS[0]} to {OPSETS[1]}")
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > LARGEST:
        raise InputError(
            f"{model.config['name']}: {size / 1e9:.1f} GB of weights; "
            f"one ONNX file holds {LARGEST / 1e9} GB at most"
        )


def _traced(
    graph: nn.Module,
    examples: Sequence[tuple[Tensor, ...]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    facts: dict[str, Any],
    opset: int,
    half: bool,
) -> bytes:
    """An ONNX file of a graph, its batch of any size.

    Args:
        graph: with tensors of equal batch size as inputs.
        examples: of its inputs; the largest batch is traced (one alone would count as a constant).
        inputs, outputs: their names.
        facts: the metadata.
        opset, half: as of :func:`export_model`.
    """
    example = max(examples, key=lambda tensors: len(tensors[0]))
    shapes = tuple({0: torch.export.Dim(BATCH, min=1)} for _ in example)
    with torch.no_grad(), _quiet():
        exported = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
        program: Any = torch.onnx.export(
            exported,
            dynamo=True,
            dynamic_shapes=tuple({0: BATCH} for _ in example),
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    if (made := program.model.opset_imports[""]) != opset:
        raise InputError(f"opset: PyTorch could not convert this model to {opset}; it is {made}")
    _describe(program.model, facts)
    proto = program.model_proto
    if half:
        _halve(proto)
    content: bytes = proto.SerializeToString()
    return content


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


def _halve(proto: Any) -> None:
    """Store kernels and matrices that are float16 numbers as such, and cast them back inside the graph.

    onnxruntime does the casts once, when it opens the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        narrow = values.astype(np.float16)
        if np.array_equal(narrow.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


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


# --- comparison with PyTorch ---


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
def compare(
    run: Run,
    graph: nn.Module,
    examples: Sequence[tuple[Tensor, ...]],
    ties: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare an exported graph with PyTorch.

    Args:
        run: runs the exported graph.
        graph: what was exported, on the CPU.
        examples: inputs, one batch each.
        ties: of the first input (b, ..), the rows (b,) that are not to be compared.
        tolerance: of the height of an output.

    Raises:
        ParityError: they differ by more, or nothing could be compared.
    """
    worst, crops, left_out = 0.0, 0, 0
    for example in examples:
        made = run([np.ascontiguousarray(tensor.numpy()) for tensor in example])
        outputs = graph(*example)
        kept = torch.ones(len(example[0]), dtype=torch.bool) if ties is None else ~ties(example[0])
        crops, left_out = crops + int(kept.sum()), left_out + int((~kept).sum())
        for ours, expected in zip(made, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
            if ours.shape != tuple(expected.shape):
                raise ParityError(
                    f"the graph differs from PyTorch: shape {ours.shape}, not {tuple(expected.shape)}"
                )
            height = max(LEAST_HEIGHT, float(expected.abs().max()))
            apart = (torch.from_numpy(np.asarray(ours)) - expected)[kept].abs() / height
            difference = float(apart.max()) if len(apart) else 0.0
            if not difference <= tolerance:
                raise ParityError(
                    f"the graph differs from PyTorch by {difference:.1e} of the heatmaps' height, "
                    f"{tolerance:.0e} is allowed"
                )
            worst = max(worst, difference)
    if not crops:
        raise ParityError("the graph cannot be compared with PyTorch: all heatmaps have their maximum twice")
    return Parity(worst, crops, left_out)


# --- runtimes ---


def run_onnx(content: bytes) -> Run:
    """What runs an ONNX file, on the CPU by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _import_openvino() -> Any:
    with needs_extra("openvino", "OpenVINO files need openvino"):
        import openvino
    return openvino


def _from_onnx(content: bytes) -> Any:
    """OpenVINO's model of an ONNX file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(content)
        return _import_openvino().convert_model(file)


def _run_openvino(model: Any) -> Run:
    """What runs an OpenVINO model on the CPU in float32, also where that has bfloat16."""
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    network = _import_openvino().Core().compile_model(model, "CPU", settings)
    return lambda inputs: [np.asarray(output) for output in network(list(inputs)).values()]


def _save_openvino(model: Any, path: Path, facts: str) -> None:
    """Write a model as float32: its .bin first, then the .xml, which makes it one, each in one stroke."""
    model.set_rt_info(facts, [METADATA_KEY])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        written = Path(folder) / path.name
        _import_openvino().save_model(model, written, compress_to_fp16=False)
        for file in (written.with_suffix(".bin"), written):
            os.replace(file, path.with_name(file.name))


if __name__ == "__main__":
    bundle(*sys.argv[1:])
