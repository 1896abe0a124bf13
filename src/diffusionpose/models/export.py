"""Export to ONNX or OpenVINO: files that run without PyTorch.

Three forms, by the path that is asked for:

* ``FILE.onnx``: one graph, ``images`` -> ``heatmaps``: normalisation, network, Algorithm 2 with a fixed
  number of steps and, if asked for, the flip test;
* ``FILE.xml``: the same as OpenVINO has it, weights in the ``.bin`` beside it;
* ``FOLDER``: two graphs, the loop of Algorithm 2 left to the caller: ``encoder.onnx``, ``images`` ->
  ``x_fea``, ``hm_T`` (lines 1 and 2), and ``step.onnx``, ``x_fea``, ``hm_t``, ``y_t`` -> ``heatmaps``
  (lines 5 to 8). A model without diffusion has the encoder alone. The bundled models have this form.

Every graph is compared with PyTorch by its own runtime before its file appears. docs/export.md describes the
files for users of other languages.
"""

import copy
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import diffusionpose
from diffusionpose.bundled import FOLDER
from diffusionpose.errors import InputError, import_onnxruntime, needs_extra, write_file, write_together
from diffusionpose.geometry import PADDING, flip_images
from diffusionpose.models.checkpoints import METADATA_KEY, load_model, save_model
from diffusionpose.models.people_finder import Peaks, PeopleFinder
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.variants import DiffusionPoseVariant

ENCODER, STEP = "encoder.onnx", "step.onnx"
OPSET = 18  # version of ONNX's operators: the exporter's own, from which it converts to others
OPSETS = (18, 23)
LARGEST = 1_500_000_000  # bytes of weights from which the exporter writes a second file; ONNX ends at 2 GB

TOLERANCE = 1e-4  # of the heatmaps' height, which is their largest value
LEAST_HEIGHT = 0.1  # targets are 1 high; of heatmaps lower than this a share says nothing
BATCHES = (1, 8)  # crops that are compared
CELLS = (2, 4, 8, 16, 32, 64)  # across a random crop: coarse shapes strongest, as in photographs

Tensors = tuple[Tensor, ...]
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]  # inputs of a graph, in order -> its outputs
Ties = Callable[[Tensor], Tensor]


class ParityError(InputError):
    """An exported graph computes something else than PyTorch."""


class Parity(NamedTuple):
    """What a comparison found."""

    difference: float  # the largest, as a share of the heatmaps' height; within ``TOLERANCE``
    crops: int  # compared
    # Further crops that differ where two pixels share a heatmap's maximum up to rounding: a mask then lands
    # elsewhere in another library without a fault.
    ties: int


class Exported(NamedTuple):
    """What was exported."""

    path: Path  # of the file, or of the folder
    files: list[Path]  # all that were written
    facts: dict[str, Any]  # their metadata
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
    if model.needs_start:
        raise InputError(
            f"{model.config['name']}: refines poses, and exported files take pictures alone; give the "
            ".safetensors file to `diffusionpose refine`"
        )
    if model.sees_neighbours:
        raise InputError(
            f"{model.config['name']}: sees the other persons of a picture, and exported files one at a time; "
            "give the .safetensors file, or train it with --options neighbours=false"
        )
    _need_onnx()
    if path.suffix == ".xml":
        _import_openvino()
    if steps is not None and model.default_steps is None:
        raise InputError(f"steps: {model.config['name']} is no diffusion model and takes none; leave it out")
    if steps is not None and steps < 0:
        raise InputError(f"steps: {steps} must be 0 (the coarse heatmaps) or more")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise InputError(f"opset: {opset} is not one of {OPSETS[0]} to {OPSETS[1]}")
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > LARGEST:
        raise InputError(
            f"{model.config['name']}: {size / 1e9:.1f} GB of weights; one ONNX file holds {LARGEST / 1e9} GB"
        )
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    facts = metadata(model, model.default_steps if steps is None else steps, flip)
    contents, parities = {}, []
    for part in _parts(model, path, facts["steps"], flip):
        batch = [{0: torch.export.Dim("batch", min=1)} for _ in part.inputs]
        # the largest batch is traced: one crop alone would count as a constant
        names = (part.inputs, part.outputs)
        content = to_onnx(part.graph, part.examples[-1], batch, *names, facts, opset, half)
        converted, run = _openvino(content) if path.suffix == ".xml" else (None, run_onnx(content))
        try:
            parities.append(compare(run, part.graph, part.examples, part.ties))
        except ParityError as error:
            raise ParityError(f"{part.file}: not written: {error}") from error
        contents[part.file] = content
    if converted:
        _save_openvino(converted, path, json.dumps(facts))
        files = [path, path.with_suffix(".bin")]
    else:
        files = list(contents)
        write_together({file: contents[file] for file in reversed(files)})  # the encoder makes it a model
    _, crops, ties = parities[0]
    return Exported(path, files, facts, Parity(max(p.difference for p in parities), crops, ties))


def bundle(weights: str | Path, name: str) -> Exported:
    """Put a model into the package: NAME.safetensors with float16 kernels, and its two graphs in NAME/.

    ``python -m diffusionpose.models.export WEIGHTS NAME``, in a clone.
    """
    path = FOLDER / f"{name}.safetensors"
    save_model(load_model(weights), path, half=True)
    return export_model(load_model(path), FOLDER / name, half=True)


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
        "decode": "dark",
        "calibration": model.config.get("calibration"),
    }


# --- graphs ---


class Part(NamedTuple):
    """A file to be written: its graph, batches of examples, and the names of what goes in and comes out."""

    file: Path
    graph: nn.Module
    examples: list[Tensors]
    inputs: list[str]
    outputs: list[str]
    ties: Ties | None = None


def _parts(model: PoseModel, path: Path, steps: int | None, flip: bool) -> list[Part]:
    crops = [torch.from_numpy(random_crops(count, model.input_size, count)) for count in BATCHES]
    images: list[Tensors] = [(batch,) for batch in crops]
    if path.suffix or not isinstance(model, DiffusionPoseVariant):
        graph = SingleGraph(model, steps, flip)
        file, output = (path, "heatmaps") if path.suffix else (path / ENCODER, "hm_T")
        return [Part(file, graph, images, ["images"], [output], graph.ties)]
    encoder, step = Method(model, model.encode), Method(model, model.step)
    # the inputs of a step are PyTorch's own, so that no tie matters
    between = [_step_inputs(model, batch) for batch in crops]
    return [
        Part(path / ENCODER, encoder, images, ["images"], ["x_fea", "hm_T"]),
        Part(path / STEP, step, between, ["x_fea", "hm_t", "y_t", "t"][: len(between[0])], ["heatmaps"]),
    ]


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


class Method(nn.Module):
    """A method of a model as a graph of its own: lines 1 and 2, or 5 to 8, of Algorithm 2."""

    def __init__(self, model: DiffusionPoseVariant, method: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.forward = model, method


def _step_inputs(model: DiffusionPoseVariant, images: Tensor) -> Tensors:
    """What the step takes first, x_fea, hm_t, y_t, and t / T only where the decoder sees it."""
    x_fea, hm_t = model.encode(images)
    y_t, _ = model.codec.decode(hm_t, "argmax")
    return (x_fea, hm_t, y_t, *([torch.ones(len(hm_t))] if model.time_input else []))


def _need_onnx() -> None:
    with needs_extra("export", "the export needs onnx and onnxscript"):
        import onnx  # noqa: F401  # the exporter needs both, and would say so late
        import onnxscript  # noqa: F401


def to_onnx(
    graph: nn.Module,
    example: Tensors,
    dynamic: Sequence[dict[int, Any]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    facts: dict[str, Any],
    opset: int = OPSET,
    half: bool = False,
) -> bytes:
    """An ONNX file of a graph in evaluation mode, traced with the example.

    Args:
        dynamic: of each input, axes of any size and their ``torch.export.Dim``.
        inputs, outputs: their names.
        facts: the metadata; "model" names the graph.
        opset, half: as of :func:`export_model`.
    """
    with torch.no_grad(), _quiet():
        exported = torch.export.export(graph, example, dynamic_shapes=tuple(dynamic), strict=False)
        program: Any = torch.onnx.export(
            exported,
            dynamo=True,
            dynamic_shapes=tuple({axis: dim.__name__ for axis, dim in each.items()} for each in dynamic),
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    model = program.model
    if (made := model.opset_imports[""]) != opset:
        raise InputError(f"opset: PyTorch could not convert this model to {opset}; it is {made}")
    for node in model.graph.all_nodes():  # where on this machine it was traced from is nobody's business
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props[METADATA_KEY] = json.dumps(facts)
    model.producer_name, model.producer_version = "diffusionpose", diffusionpose.__version__
    model.graph.name = facts["model"]
    proto = program.model_proto
    if half:
        _halve(proto.graph)
    content: bytes = proto.SerializeToString()
    return content


def _halve(graph: Any) -> None:
    """Store weights that are float16 numbers as such, and cast them back inside the graph.

    onnxruntime does the casts once, when it opens the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 16:
            continue
        name, narrow = tensor.name, values.astype(np.float16)
        if np.array_equal(narrow.astype(np.float32), values):
            tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporter about itself; whether the graph is right is measured afterwards."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


# --- comparison with PyTorch ---


def random_crops(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(count, 3, h, w) uint8 pictures with shapes of all sizes, the coarse ones strongest as in photos."""
    generator = np.random.default_rng(seed)
    crops = np.zeros((count, size[1], size[0], 3), np.float32)
    for crop in crops:
        for cells in CELLS:
            shapes = generator.standard_normal((cells, cells, 3)).astype(np.float32)
            crop += cv2.resize(shapes, size, interpolation=cv2.INTER_CUBIC) / cells**0.5
    crops = 115 + 55 * (crops - crops.mean()) / crops.std()
    return np.ascontiguousarray(crops.clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2))


@torch.no_grad()
def compare(run: Run, graph: nn.Module, examples: Sequence[Tensors], ties: Ties | None = None) -> Parity:
    """Compare an exported graph with PyTorch, on the CPU, on batches of examples.

    ``ties`` tells of the first input (b, ..) the rows (b,) that may differ without a fault.

    Raises:
        ParityError: others differ by more than ``TOLERANCE``, or all do.
    """
    worst, crops, left_out = 0.0, 0, 0
    for example in examples:
        made = run([np.ascontiguousarray(tensor.numpy()) for tensor in example])
        outputs = graph(*example)
        apart = torch.zeros(len(example[0]))  # of each row, a share of the heatmaps' height
        for ours, expected in zip(made, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
            if ours.shape != tuple(expected.shape):
                raise ParityError(
                    f"the graph differs from PyTorch: shape {ours.shape}, not {tuple(expected.shape)}"
                )
            height = max(LEAST_HEIGHT, float(expected.abs().max()))
            difference = (torch.from_numpy(np.asarray(ours)) - expected).abs().flatten(1).amax(1)
            apart = torch.maximum(apart, difference / height)
        alike = apart <= TOLERANCE  # not so for NaN
        if not alike.all() and (ties is None or not (alike | ties(example[0]) & apart.isfinite()).all()):
            raise ParityError(
                f"the graph differs from PyTorch by {float(apart.max()):.1e} of the heatmaps' height, "
                f"{TOLERANCE:.0e} is allowed"
            )
        crops, left_out = crops + int(alike.sum()), left_out + int((~alike).sum())
        worst = max(worst, float(apart[alike].amax()) if alike.any() else 0.0)
    if not crops:
        raise ParityError("the graph cannot be compared with PyTorch: all heatmaps have their maximum twice")
    return Parity(worst, crops, left_out)


# --- runtimes ---


def run_onnx(content: bytes) -> Run:
    """What runs an ONNX file, on the CPU by onnxruntime."""
    onnxruntime = import_onnxruntime()
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


def _openvino(content: bytes) -> tuple[Any, Run]:
    """OpenVINO's model of an ONNX file, and what runs it on the CPU, in float32 in any case."""
    openvino = _import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(content)
        model = openvino.convert_model(file)
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(model, "CPU", settings)
    return model, lambda inputs: [np.asarray(output) for output in network(list(inputs)).values()]


def _save_openvino(model: Any, path: Path, facts: str) -> None:
    """Write a model as float32: its .bin first, then the .xml, which makes it one."""
    model.set_rt_info(facts, [METADATA_KEY])
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        _import_openvino().save_model(model, written, compress_to_fp16=False)
        files = written.with_suffix(".bin"), written
        write_together({path.with_name(file.name): partial(shutil.copyfile, file) for file in files})


# --- the people finder ---


@torch.no_grad()
def export_people_finder(finder: PeopleFinder, path: str | Path) -> float:
    """Write the people finder as ONNX with float16 weights; the largest difference of a score from PyTorch's.

    ``images`` (1, 3, H, W) float32 in [-1, 1], sides in multiples of 32, go in; ``scores`` (1, h, w) and
    ``boxes`` (1, 4, h, w) come out, as of :class:`Peaks`.

    Raises:
        InputError: an extra is missing, the file cannot be written, or it computes something else.
    """
    _need_onnx()
    path = Path(path)
    rounded = copy.deepcopy(finder).cpu().float().eval().requires_grad_(False)
    rounded = rounded.to(memory_format=torch.contiguous_format)
    for weight in rounded.parameters():
        weight.copy_(weight.half().float())
    rows, columns = (torch.export.Dim(name, min=1, max=1024) for name in ("rows", "columns"))
    sides = {2: 32 * rows, 3: 32 * columns}
    facts = {"version": diffusionpose.__version__, "model": "people_finder"}
    outputs = ["scores", "boxes"]
    content = to_onnx(
        Peaks(rounded), (torch.zeros(1, 3, 128, 96),), [sides], ["images"], outputs, facts, half=True
    )
    run, generator, worst = run_onnx(content), torch.Generator().manual_seed(0), 0.0
    for size in ((96, 160), (320, 256), (32, 32)):
        coarse = torch.rand((1, 3, size[0] // 16, size[1] // 16), generator=generator) * 2 - 1
        images = F.interpolate(coarse, size=size, mode="bicubic").clamp(-1, 1)
        logits, boxes = rounded(images)
        scores, ours = run([images.numpy()])
        # where two neighbours are as high as each other, rounding decides which of them is the peak
        difference = float(np.abs(scores - logits.sigmoid().numpy())[scores > 0].max(initial=0))
        apart = float(np.abs(ours - boxes.numpy()).max())
        if not (difference <= TOLERANCE and apart <= 0.05):
            raise ParityError(
                f"{path}: not written: the graph differs from PyTorch by {difference:.1e} in a score and "
                f"{apart:.1e} pixels in a box"
            )
        worst = max(worst, difference)
    write_file(path, content)
    return worst


if __name__ == "__main__":
    bundle(*sys.argv[1:])
