"""Pose networks as the estimator sees them: crops in, heatmaps out, whatever runs them.

=================== ===================================================================== ==============
class               what it runs                                                          needs
=================== ===================================================================== ==============
TwoGraphNetwork     FOLDER/encoder.onnx and step.onnx: any number of diffusion steps      onnxruntime
OnnxNetwork         one .onnx file, its steps fixed                                       onnxruntime
OpenVinoNetwork     one .xml file, its steps fixed                                        openvino
TorchNetwork        a PoseModel                                                           PyTorch
=================== ===================================================================== ==============

``diffusionpose export`` writes the files. What a file cannot show by itself, such as its joints, is in its
metadata: JSON under the key ``diffusionpose`` (docs/export.md). They come from anywhere, so they are checked
here.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.bundled import DEFAULT_MODEL, FOLDER, bundled_models
from diffusionpose.errors import InputError, needs_extra
from diffusionpose.geometry import Array, HeatmapCodec, Start, to_numpy
from diffusionpose.skeletons import Skeleton

if TYPE_CHECKING:
    from diffusionpose.models.pose_model import PoseModel

METADATA_KEY = "diffusionpose"
ENCODER, STEP = "encoder.onnx", "step.onnx"  # the files of a two-graph export
EXPORTED = (".onnx", ".xml")
LARGEST_SIDE, MOST_JOINTS, MOST_STEPS = 4096, 1000, 1000  # beyond, metadata are damaged rather than unusual
ERRORS_ONLY = 3  # onnxruntime's severity; below it tells of every optimisation it leaves out
CUDA = "CUDAExecutionProvider"


class Network(ABC):
    """A pose network.

    Attributes:
        name: what to call it in messages: its file, or the name of the model.
        skeleton: names the heatmaps.
        codec: size of the crops and the heatmaps, and their geometry.
        steps: diffusion steps it takes unless told otherwise; None for a network without diffusion.
        any_steps: whether it can take another number of steps.
        takes_start: whether the reverse process can begin at keypoints from elsewhere.
        flip_inside: whether it averages with the mirror image by itself, always.
        device: "cpu", "cuda", "cuda:1", ...
        batch_size: persons per pass that suit the device.
    """

    def __init__(
        self,
        name: str,
        skeleton: Skeleton,
        codec: HeatmapCodec,
        *,
        steps: int | None,
        any_steps: bool = False,
        takes_start: bool = False,
        flip_inside: bool = False,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.skeleton = skeleton
        self.codec = codec
        self.steps = steps
        self.any_steps = any_steps
        self.takes_start = takes_start
        self.flip_inside = flip_inside
        self.device = device
        self.batch_size = batch_size_on(device)

    @abstractmethod
    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """Heatmaps of crops, of every diffusion step.

        Args:
            images: (b, 3, H, W) RGB uint8, NumPy's or PyTorch's.
            steps: diffusion steps; None for ``self.steps``. 0 leaves the coarse heatmaps.
            start: keypoints in input pixels, drawn in the place of the coarse heatmaps.

        Returns:
            (b, j, h, w) float32 each: hm_T (coarse), .., hm_0, the answer last. One entry where the network
            shows nothing but the answer. PyTorch's tensors on their device from a TorchNetwork, else NumPy's
            arrays.

        Raises:
            InputError: an answer of another shape than the network's metadata say.
        """

    def check(self, flip: bool = True, steps: int | None = None, start: bool = False) -> None:
        """See before any work whether the network can run so.

        Args:
            flip: average with the mirror image.
            steps: as of :meth:`heatmaps`.
            start: whether there will be keypoints to start from.

        Raises:
            InputError: it cannot; the message says what to do.
        """
        if start and self.steps is None:
            raise InputError(
                f"start: {self.name} is no diffusion model and cannot start from keypoints; "
                "take a diffusion model"
            )
        if start and not self.takes_start:
            raise InputError(
                f"start: {self.name} was exported to start from its own coarse heatmaps; "
                "give the .safetensors file it was made from, or its export into a folder"
            )
        if not flip and self.flip_inside:
            raise InputError(
                f"flip: {self.name} was exported with --flip and always averages with the mirror image; "
                "leave the flip test on, or export again without --flip"
            )
        if steps is None or steps == self.steps:
            return
        if self.steps is None:
            raise InputError(f"steps: {self.name} is no diffusion model and takes none; leave it out")
        if not self.any_steps:
            raise InputError(
                f"steps: {self.name} was exported with --steps {self.steps}, and {steps} cannot be had of "
                "it; "
                "leave the option out"
            )
        if steps < 0:
            raise InputError(f"steps: {steps} must be 0 (the coarse heatmaps) or more")

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the crops, pixels."""
        return self.codec.input_size

    @property
    def unbiased(self) -> bool:
        """Whether crops must be cut in UDP geometry."""
        return self.codec.unbiased


def batch_size_on(device: str) -> int:
    """Persons per pass: 8 on a CPU, where larger batches outgrow its cache (measured), else 64."""
    return 8 if device == "cpu" else 64


# --- files: what their metadata say, and what runs them ---


@dataclass(frozen=True)
class GraphFacts:
    """What an exported file says of itself.

    Attributes:
        model: the name of the model that was exported.
        skeleton, codec: as of :class:`Network`.
        steps: diffusion steps inside, or, of two graphs, the default; None without diffusion.
        flip: whether the flip test is inside.
    """

    model: str
    skeleton: Skeleton
    codec: HeatmapCodec
    steps: int | None
    flip: bool


def read_facts(path: Path, text: str | None) -> GraphFacts:
    """Read and check a file's metadata.

    Args:
        path: of the file, for messages.
        text: JSON, as the runtime gives it; None where there is none.

    Raises:
        InputError: they are not this package's, or damaged.
    """
    if text is None:
        raise InputError(
            f"{path}: {path.suffix[1:].upper()} without this package's metadata, so its joints and sizes are "
            "unknown; give a file that `diffusionpose export` wrote"
        )
    try:
        facts = json.loads(text)
        skeleton = Skeleton.from_dict(facts["skeleton"])
        if skeleton.num_joints > MOST_JOINTS or not all(map(math.isfinite, skeleton.sigmas)):
            raise ValueError("skeleton: too many joints, or a sigma that is not finite")
        width, height = (_whole(side, "input_size", LARGEST_SIDE, 1) for side in facts["input_size"])
        stride = _whole(facts["stride"], "stride", min(width, height), 1)
        steps = None if facts["steps"] is None else _whole(facts["steps"], "steps", MOST_STEPS)
        codec = HeatmapCodec((width, height), stride, _flag(facts["unbiased"], "unbiased"))
        return GraphFacts(str(facts["model"]), skeleton, codec, steps, _flag(facts["flip"], "flip"))
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: its metadata are damaged, or not this package's ({reason:.200}); "
            "copy the file again, or give one that `diffusionpose export` wrote"
        ) from error


def _whole(value: Any, name: str, most: int, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name}: {value!r:.40} is no whole number from {least} to {most}")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r:.40} is neither true nor false")
    return value


def _check_shape(path: Path, what: str, shape: Sequence[Any], expected: Sequence[int | None]) -> None:
    """InputError where a graph's shape contradicts its metadata; names and None stand for any size."""
    fits = len(shape) == len(expected) and all(
        want is None or not isinstance(size, int) or size == want
        for size, want in zip(shape, expected, strict=True)
    )
    if not fits:
        shown = "x".join("b" if want is None else str(want) for want in expected)
        raise InputError(
            f"{path}: its {what} are {'x'.join(map(str, shape))}, its metadata say {shown}; export it again"
        )


def open_session(file: Path | bytes, device: str = "cpu") -> Any:
    """onnxruntime's session of a file or of its bytes.

    Args:
        file: the file, or its content.
        device: "cpu", or "cuda" (where onnxruntime has no CUDA provider: a warning, and the CPU).

    Raises:
        InputError: no onnxruntime, or a file that it cannot read.
    """
    with needs_extra("export", "ONNX files need onnxruntime"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = ERRORS_ONLY
    # threads that wait for work by spinning take the CPU from those that read and write pictures
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    kind, _, index = device.partition(":")
    if kind == "cuda" and CUDA in onnxruntime.get_available_providers():
        providers.insert(0, (CUDA, {"device_id": int(index or 0)}))
    elif kind != "cpu":
        warnings.warn(
            f"onnxruntime has no provider for {device} here: ONNX files run on the CPU", stacklevel=2
        )
    try:
        content = file if isinstance(file, bytes) else str(file)
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's own errors share no base class
        name = file if isinstance(file, Path) else "the exported graph"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{name}: onnxruntime cannot read it, perhaps cut short ({reason}); copy it again"
        ) from error


def session_device(session: Any, device: str) -> str:
    """Where a session runs that was to run on ``device``."""
    return device if CUDA in session.get_providers() else "cpu"


def session_facts(path: Path, session: Any) -> GraphFacts:
    """The metadata of an open .onnx file; errors as of :func:`read_facts`."""
    return read_facts(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))


def _check_graph(path: Path, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """InputError where a graph's inputs or outputs have other names."""
    names = [entry.name for entry in session.get_inputs()], [entry.name for entry in session.get_outputs()]
    if names != (list(inputs), list(outputs)):
        raise InputError(
            f"{path}: a graph from {names[0]} to {names[1]}, not from {list(inputs)} to {list(outputs)}; "
            "give a file that `diffusionpose export` wrote"
        )


class OnnxNetwork(Network):
    """One exported graph, by onnxruntime: ``images`` -> ``heatmaps``.

    Args:
        path: of the .onnx file.
        device: as of :func:`open_session`.

    Raises:
        InputError: no onnxruntime, or a file that is damaged, not this package's, or contradicts itself.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._session = open_session(path, device)
        facts = session_facts(path, self._session)
        _check_graph(path, self._session, ["images"], ["heatmaps"])
        (images,), (heatmaps,) = self._session.get_inputs(), self._session.get_outputs()
        (width, height), (w, h) = facts.codec.input_size, facts.codec.size
        _check_shape(path, "images", images.shape, (None, 3, height, width))
        _check_shape(path, "heatmaps", heatmaps.shape, (None, facts.skeleton.num_joints, h, w))
        super().__init__(
            str(path),
            facts.skeleton,
            facts.codec,
            steps=facts.steps,
            flip_inside=facts.flip,
            device=session_device(self._session, device),
        )
        self._path = path

    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """As of :class:`Network`: the answer alone."""
        self.check(steps=steps, start=start is not None)
        images = np.ascontiguousarray(to_numpy(images))
        (heatmaps,) = self._session.run(None, {"images": images})
        return [_answer(self._path, heatmaps, len(images), self)]


class OpenVinoNetwork(Network):
    """One exported graph, by OpenVINO on the CPU in float32.

    Args:
        path: of the .xml file; its weights are in the .bin beside it.
        device: "cpu"; anything else gives a warning.

    Raises:
        InputError: no openvino, or a file that is damaged, not this package's, or without its .bin.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        with needs_extra("openvino", "OpenVINO files need openvino"):
            import openvino
        if device != "cpu":
            warnings.warn(f"OpenVINO files run on the CPU here, not on {device}", stacklevel=2)
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise InputError(f"{path}: its weights, {weights.name}, are not beside it; copy both files")
        try:
            graph = openvino.Core().read_model(path)
            text = (
                graph.get_rt_info([METADATA_KEY]).astype(str) if graph.has_rt_info([METADATA_KEY]) else None
            )
            # f32: on CPUs that have bfloat16, OpenVINO takes that by itself
            settings = {"INFERENCE_NUM_THREADS": cpu_threads(), "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled = openvino.Core().compile_model(graph, "CPU", settings)
        except Exception as error:  # openvino's own errors share no base class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise InputError(
                f"{path}: OpenVINO cannot read it, perhaps cut short ({reason}); copy it and {weights.name} "
                "again"
            ) from error
        facts = read_facts(path, text)
        super().__init__(str(path), facts.skeleton, facts.codec, steps=facts.steps, flip_inside=facts.flip)
        self._path = path

    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """As of :class:`Network`: the answer alone."""
        self.check(steps=steps, start=start is not None)
        images = np.ascontiguousarray(to_numpy(images))
        heatmaps = next(iter(self._compiled(images).values()))
        return [_answer(self._path, np.asarray(heatmaps), len(images), self)]


class TwoGraphNetwork(Network):
    """Algorithm 2 in two exported graphs, the loop outside: any number of steps, and any start.

    ``encoder.onnx``: images (b, 3, H, W) uint8 -> x_fea and hm_T (lines 1 and 2); of a model without
    diffusion only hm_T, its answer. ``step.onnx``: x_fea, hm_t and y_t (b, j, 2) in heatmap pixels, for a
    decoder that sees it t / T (b,) as well -> the heatmaps of the next step (lines 5 to 8).

    Args:
        folder: with both files.
        device: as of :func:`open_session`.

    Raises:
        InputError: no onnxruntime, or a file that is missing, damaged, not this package's, or contradicts the
            other.
    """

    def __init__(self, folder: Path, device: str = "cpu", name: str | None = None) -> None:
        path = folder / ENCODER
        self._encoder = open_session(path, device)
        facts = session_facts(path, self._encoder)
        diffusion = facts.steps is not None
        _check_graph(path, self._encoder, ["images"], ["x_fea", "hm_T"] if diffusion else ["hm_T"])
        (width, height), (w, h) = facts.codec.input_size, facts.codec.size
        _check_shape(path, "images", self._encoder.get_inputs()[0].shape, (None, 3, height, width))
        maps = (None, facts.skeleton.num_joints, h, w)
        _check_shape(path, "heatmaps", self._encoder.get_outputs()[-1].shape, maps)
        super().__init__(
            name or str(folder),
            facts.skeleton,
            facts.codec,
            steps=facts.steps,
            any_steps=diffusion,
            takes_start=diffusion,
            device=session_device(self._encoder, device),
        )
        self._folder = folder
        if diffusion:
            self._open_step(folder / STEP, device, facts)

    def _open_step(self, path: Path, device: str, facts: GraphFacts) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file, but {ENCODER} beside it needs it; copy both")
        self._step = open_session(path, device)
        if session_facts(path, self._step) != facts:
            raise InputError(f"{path}: belongs to another model than {ENCODER} beside it; copy both again")
        inputs = {entry.name: entry.shape for entry in self._step.get_inputs()}
        self._sees_t = "t" in inputs
        names = ["x_fea", "hm_t", "y_t", *(["t"] if self._sees_t else [])]
        _check_graph(path, self._step, names, ["heatmaps"])
        feature = self._encoder.get_outputs()[0].shape
        _check_shape(path, "features", inputs["x_fea"], [None, *feature[1:]])
        w, h = facts.codec.size
        maps = (None, facts.skeleton.num_joints, h, w)
        _check_shape(path, "heatmaps", inputs["hm_t"], maps)
        _check_shape(path, "heatmaps", self._step.get_outputs()[0].shape, maps)

    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """As of :class:`Network`: those of all steps."""
        self.check(steps=steps, start=start is not None)
        images = np.ascontiguousarray(to_numpy(images))
        *feature, coarse = self._encoder.run(None, {"images": images})
        hm = [_answer(self._folder / ENCODER, coarse, len(images), self)]
        if self.steps is None:
            return hm
        y_t, steps = None, self.steps if steps is None else steps
        if start is not None:
            hm[0], y_t = self.codec.begin(hm[0], start)
        for step in range(steps):
            if y_t is None:
                y_t, _ = self.codec.decode(hm[-1], "argmax")
            values = {"x_fea": feature[0], "hm_t": hm[-1], "y_t": y_t}
            if self._sees_t:
                values["t"] = np.full(len(images), 1 - step / steps, np.float32)
            (heatmaps,) = self._step.run(None, values)
            hm.append(_answer(self._folder / STEP, heatmaps, len(images), self))
            y_t = None
        return hm


def _answer(path: Path, heatmaps: np.ndarray, count: int, network: Network) -> np.ndarray:
    """Heatmaps as they came out of a graph; InputError where they have another shape than metadata say."""
    w, h = network.codec.size
    _check_shape(path, "heatmaps", heatmaps.shape, (count, network.skeleton.num_joints, h, w))
    return heatmaps


# --- PyTorch ---


class TorchNetwork(Network):
    """A PoseModel, put on a device and into evaluation mode.

    Args:
        model: any model of the zoo.
        device: "auto" (a GPU where there is one), or as PyTorch names it; None leaves the model where it is.
        name: what to call it in messages; None for the name of the model.

    Raises:
        InputError: a device that is not there.
    """

    def __init__(self, model: PoseModel, device: str | None = "auto", name: str | None = None) -> None:
        import torch

        place = model.device if device is None else find_device(device)
        if device is not None:
            # measured: convolutions on a CPU are 15 to 30 % faster with channels last
            layout = torch.channels_last if place.type == "cpu" else torch.preserve_format
            model = model.to(device=place, memory_format=layout).eval()  # type: ignore[call-overload]
        self.model = model
        super().__init__(
            name or str(model.config.get("name", "the model")),
            model.skeleton,
            model.codec,
            steps=model.default_steps,
            any_steps=model.default_steps is not None,
            takes_start=model.takes_start,
            device=str(place),
        )

    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """As of :class:`Network`, as tensors on the device: those of all steps."""
        import torch

        self.check(steps=steps, start=start is not None)
        place = self.model.device
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.ascontiguousarray(images))
        if start is not None:
            start = Start(torch.as_tensor(start.keypoints), torch.as_tensor(start.scores)).to(place)
        training = self.model.training
        try:
            with torch.no_grad():
                self.model.eval()
                maps = self.model.trajectory(images.to(place), self.steps if steps is None else steps, start)
                return [heatmaps.float() for heatmaps in maps]
        finally:
            self.model.train(training)


def find_device(name: str) -> Any:
    """The torch.device of a name; "auto" is a GPU where there is one.

    Raises:
        InputError: it is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch without that backend raises either
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r}: {reason}; use 'auto' or 'cpu'") from error


# --- which one ---


def load_network(
    weights: str | Path | None = None, device: str = "auto", skeleton: Skeleton | None = None
) -> Network:
    """A trained network.

    Bundled models and exported files run without PyTorch. On a machine with a GPU, a bundled model runs by
    onnxruntime's CUDA provider or, where only PyTorch can use the GPU, by PyTorch.

    Args:
        weights: None for the default bundled model, the name of a bundled model, an .onnx or .xml file or a
            folder of `diffusionpose export`; or what needs PyTorch: a .safetensors file, a run folder (its
            best checkpoint, else its newest), the id of a hub repository.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps", ...
        skeleton: when given, the joints it must have.

    Raises:
        InputError: no such weights, a damaged file, another skeleton, a device that is not there, or a
        package
            that is not installed; the message names the file and the cure.
    """
    network = _load(DEFAULT_MODEL if weights is None else str(weights), device)
    if skeleton is not None and network.skeleton.joints != skeleton.joints:
        raise InputError(
            f"{network.name}: made for the {network.skeleton.num_joints} joints of "
            f"{network.skeleton.name!r}, "
            f"not for the {skeleton.num_joints} of {skeleton.name!r}; give weights of this skeleton"
        )
    return network


def _load(weights: str, device: str) -> Network:
    path = Path(weights)
    if weights in bundled_models():
        return _bundled(weights, device)
    if (path / ENCODER).is_file():
        return TwoGraphNetwork(path, exported_device(device))
    if path.name in (ENCODER, STEP) and (path.parent / ENCODER).is_file():
        return TwoGraphNetwork(path.parent, exported_device(device))
    if path.suffix in EXPORTED:
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
        if path.suffix == ".xml":
            return OpenVinoNetwork(path, "cpu" if device == "auto" else device)
        return OnnxNetwork(path, exported_device(device))
    return _torch_network(weights, device)


def _bundled(name: str, device: str) -> Network:
    """By onnxruntime where it can use the device, else by PyTorch."""
    folder, kind = FOLDER / name, device.partition(":")[0]
    if kind == "auto":
        kind = device = "cuda" if gpu_available() and (cuda_provider() or torch_installed()) else "cpu"
    if folder.is_dir() and (kind == "cpu" or (kind == "cuda" and cuda_provider())):
        return TwoGraphNetwork(folder, device, name)
    return _torch_network(name, device)


def _torch_network(weights: str, device: str) -> Network:
    """What only PyTorch runs; the one way from here to the models."""
    if not torch_installed() and not Path(weights).exists() and weights not in bundled_models():
        known = ", ".join(bundled_models()) or "none"
        raise InputError(f"{weights}: no such file, folder or bundled model (bundled: {known})")
    with needs_extra("train", f"{weights}: these weights need PyTorch"):
        from diffusionpose.models.checkpoints import load_model
    return TorchNetwork(load_model(weights), device, weights)


def exported_device(device: str) -> str:
    """Where an exported file is to run: "auto" is the GPU where onnxruntime can use one.

    Raises:
        InputError: no device is called so.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps", "xpu") or (index and not index.isdigit()):
        raise InputError(f"device {device!r}: no such device; use 'auto' or 'cpu'")
    if kind == "auto":
        return "cuda" if cuda_provider() and gpu_available() else "cpu"
    return device


def cuda_provider() -> bool:
    """Whether this onnxruntime is built for CUDA (onnxruntime-gpu)."""
    import onnxruntime

    return CUDA in onnxruntime.get_available_providers()


def torch_installed() -> bool:
    """Whether PyTorch could be imported; asked without importing it."""
    try:
        return find_spec("torch") is not None
    except ImportError:
        return False


def gpu_available() -> bool:
    """Whether the CUDA driver is there and knows a GPU; asked without PyTorch."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def cpu_threads() -> int:
    """Threads for a network on the CPU: OMP_NUM_THREADS, else one for each core that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
