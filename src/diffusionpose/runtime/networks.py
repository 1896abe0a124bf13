"""Pose networks as the estimator sees them: crops in, heatmaps out, whatever runs them.

=================== =============================================================== ========================
class               what it runs                                                    needs
=================== =============================================================== ========================
TwoGraphNetwork     FOLDER/encoder.onnx and step.onnx: any number of steps          onnxruntime
OneGraphNetwork     one .onnx file, or one .xml file of OpenVINO, its steps fixed   onnxruntime, or openvino
TorchNetwork        a PoseModel                                                     PyTorch
=================== =============================================================== ========================

``diffusionpose export`` writes the files. What a graph cannot show, such as its joints, is in its metadata:
JSON under the key ``diffusionpose`` (docs/export.md). Files come from anywhere, so both are checked.
"""

from __future__ import annotations

import ctypes
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diffusionpose.bundled import DEFAULT_MODEL, FOLDER, bundled_models
from diffusionpose.calibration import Calibration, find_calibration
from diffusionpose.errors import InputError, first_line, import_onnxruntime, install, needs_extra
from diffusionpose.geometry import Array, HeatmapCodec, Neighbours, Start, to_numpy
from diffusionpose.skeletons import Skeleton

if TYPE_CHECKING:
    from diffusionpose.models.pose_model import PoseModel

METADATA_KEY = "diffusionpose"
ENCODER, STEP = "encoder.onnx", "step.onnx"  # the files of a two-graph export
EXPORTED = (".onnx", ".xml")
LARGEST_SIDE, MOST_STEPS = 4096, 1000  # beyond, metadata are damaged rather than unusual
ERRORS_ONLY = 3  # onnxruntime's severity; below it tells of every optimisation it leaves out
CUDA = "CUDAExecutionProvider"
CGROUP = "/sys/fs/cgroup"
# microseconds of processor time that a control group may use, and in how many: of its two versions
QUOTAS = ((f"{CGROUP}/cpu.max",), (f"{CGROUP}/cpu/cpu.cfs_quota_us", f"{CGROUP}/cpu/cpu.cfs_period_us"))

Steps = int | Literal["auto"]  # of the diffusion; "auto": none for persons whose coarse heatmaps are sure


class Network:
    """A pose network."""

    name: str  # what to call it in messages: its file, or the name of the model
    skeleton: Skeleton  # names the heatmaps
    codec: HeatmapCodec  # size of the crops and the heatmaps, and their geometry
    steps: int | None  # diffusion steps it takes unless told otherwise; None for a network without diffusion
    any_steps = False  # whether it can take another number of steps
    takes_start = False  # whether the reverse process can begin at keypoints from elsewhere
    needs_start = False  # whether it cannot do without: a network that refines poses
    # whether ``heatmaps`` also takes ``neighbours``, and persons of a picture go together
    sees_neighbours = False
    encodes_once = False  # whether it has `encode` and `reverse`, in which `heatmaps` falls apart
    flip_inside = False  # whether it averages with the mirror image by itself, always
    device = "cpu"  # or "cuda", "cuda:1", ...
    calibration: Calibration | None = None  # what its heatmaps say of the keypoints; None if never fitted

    @property
    def batch_size(self) -> int:
        """Persons per pass that suit the device."""
        return batch_size_on(self.device)

    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """Heatmaps of crops, of every diffusion step; here what :meth:`encode` and :meth:`reverse` give.

        Args:
            images: (b, 3, H, W) RGB uint8, NumPy's or PyTorch's.
            steps: diffusion steps; None for ``self.steps``, 0 leaves the coarse heatmaps.
            start: keypoints in input pixels, drawn in the place of the coarse heatmaps.

        Returns:
            (b, j, h, w) float32 each: hm_T (coarse), .., hm_0, the answer last; only the answer where the
            network shows no other. PyTorch's tensors from a TorchNetwork, else NumPy's arrays.

        Raises:
            InputError: an answer of another shape than the network's metadata say.
        """
        self.check(steps=steps, start=start is not None)
        return self.reverse(*self.encode(images), steps, start)

    def encode(self, images: Array) -> tuple[Array, Array]:
        """x_fea and the coarse heatmaps of crops, once for any number of :meth:`reverse` processes."""
        raise NotImplementedError

    def reverse(
        self, x_fea: Array, coarse: Array, steps: int | None = None, start: Start | None = None
    ) -> list[Array]:
        """What :meth:`heatmaps` gives, of what :meth:`encode` gives."""
        raise NotImplementedError

    def check(
        self,
        flip: bool = True,
        steps: Steps | None = None,
        start: bool | None = None,
        hypotheses: int = 1,
    ) -> None:
        """See before any work whether the network can run so; if not, InputError says what to do.

        ``start`` says whether there are keypoints to start from, None that this is not known yet.
        """
        name, kept = self.name, self.steps
        exported = f"{name} was exported"
        if hypotheses > 1 and not self.encodes_once:
            why = "is no diffusion model" if kept is None else "holds its own start"
            raise InputError(
                f"hypotheses: {name} {why}, and has one answer; take 1, or a diffusion model exported into a "
                "folder or as .safetensors"
            )
        if self.needs_start and start is False:
            raise InputError(f"{name} refines poses: give it some by `diffusionpose refine`, or a start")
        if start and not self.takes_start and kept is None:
            raise InputError(f"start: {name} is no diffusion model and cannot start from keypoints")
        if start and not self.takes_start:
            cure = "give the .safetensors file it was made from, or its export into a folder"
            raise InputError(f"start: {exported} to start from its own coarse heatmaps; {cure}")
        if not flip and self.flip_inside:
            cure = "leave the flip test on, or export again without --flip"
            raise InputError(
                f"flip: {exported} with --flip and always averages with the mirror image; {cure}"
            )
        if steps is None or steps == kept:
            return
        if kept is None:
            raise InputError(f"steps: {name} is no diffusion model and takes none; leave it out")
        if not self.any_steps:
            raise InputError(f"steps: {exported} with --steps {kept}, and {steps} cannot be had of it")
        if start and steps == "auto":
            raise InputError(
                "steps: 'auto' judges the model's own coarse heatmaps; give a number with a start"
            )
        if steps != "auto" and not (isinstance(steps, Integral) and steps >= 0):
            raise InputError(f"steps: {steps} must be a whole number: 0 (the coarse heatmaps) or more")


def batch_size_on(device: str) -> int:
    """Persons per pass: 8 on a CPU, where larger batches outgrow its cache (measured), else 64."""
    return 8 if device == "cpu" else 64


# --- files: what their metadata say, and what runs them ---


@dataclass(frozen=True)
class GraphFacts:
    """What an exported file says of itself; ``steps`` of two graphs is the default."""

    model: str
    skeleton: Skeleton
    codec: HeatmapCodec
    steps: int | None
    flip: bool
    calibration: Calibration | None = field(default=None, compare=False)

    def check(self, path: Path, heatmaps: np.ndarray) -> np.ndarray:
        """The heatmaps themselves; InputError where their shape contradicts the metadata."""
        expected = (self.skeleton.num_joints, *self.codec.size[::-1])
        if heatmaps.shape[1:] != expected:
            found, stated = "x".join(map(str, heatmaps.shape)), "x".join(map(str, expected))
            raise InputError(
                f"{path}: its heatmaps are {found}, its metadata say bx{stated}; export it again"
            )
        return heatmaps


def read_facts(path: Path, text: str | None) -> GraphFacts:
    """Read and check a file's metadata, JSON as the runtime gives it; None where there is none."""
    if text is None:
        raise InputError(
            f"{path}: {path.suffix[1:].upper()} without this package's metadata, so its joints and sizes are "
            "unknown; give a file that `diffusionpose export` wrote"
        )
    try:
        facts = json.loads(text)
        skeleton = Skeleton.from_dict(facts["skeleton"])
        width, height = (_whole(side, 1, LARGEST_SIDE) for side in facts["input_size"])
        stride = _whole(facts["stride"], 1, min(width, height))
        steps = None if facts["steps"] is None else _whole(facts["steps"], 0, MOST_STEPS)
        unbiased, flip = facts["unbiased"], facts["flip"]
        if not (isinstance(unbiased, bool) and isinstance(flip, bool)):
            raise ValueError("unbiased and flip must be true or false")
        codec = HeatmapCodec((width, height), stride, unbiased)
        known = facts.get("calibration")
        calibration = None if known is None else Calibration.from_dict(known, skeleton, path)
        return GraphFacts(str(facts["model"]), skeleton, codec, steps, flip, calibration)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"{path}: its metadata are damaged, or not this package's ({error!r:.200}); "
            "copy the file again, or give one that `diffusionpose export` wrote"
        ) from error


def _whole(value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is no whole number from {least} to {most}")
    return value


def open_session(file: Path | bytes, device: str = "cpu") -> Any:
    """onnxruntime's session of a file or of its bytes, on "cpu" or "cuda" (a warning where it has no CUDA).

    Raises:
        InputError: no onnxruntime, or a file that it cannot read.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = ERRORS_ONLY
    # threads that wait for work by spinning take the CPU from those that read and write pictures
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    kind, _, index = device.partition(":")
    if kind == "cuda" and cuda_provider():
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
        raise InputError(
            f"{name}: onnxruntime cannot read it, perhaps cut short ({first_line(error)}); copy it again"
        ) from error


def _open_graph(path: Path, device: str) -> tuple[Any, GraphFacts, str]:
    """The session of an exported file, what the file says of itself, and where the session runs."""
    session = open_session(path, device)
    facts = read_facts(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
    return session, facts, device if CUDA in session.get_providers() else "cpu"


def _run(path: Path, session: Any, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph; InputError where it is another than its metadata say, or memory is short."""
    try:
        return session.run(None, values)
    except Exception as error:  # onnxruntime's own errors share no base class
        raise InputError(
            f"{path}: onnxruntime cannot run it ({first_line(error)}); export it again, or take a smaller "
            "batch if memory is short"
        ) from error


class OneGraphNetwork(Network):
    """One exported graph, ``images`` -> ``heatmaps``, of :func:`onnx_network` or :func:`openvino_network`."""

    def __init__(
        self, path: Path, facts: GraphFacts, run: Callable[[np.ndarray], np.ndarray], device: str = "cpu"
    ) -> None:
        self.name, self.skeleton, self.codec = str(path), facts.skeleton, facts.codec
        self.steps, self.flip_inside, self.device = facts.steps, facts.flip, device
        self.calibration = find_calibration(path, self.skeleton) or facts.calibration
        self._path, self._facts, self._run = path, facts, run

    def heatmaps(self, images: Array, steps: int | None = None, start: Start | None = None) -> list[Array]:
        """As of :class:`Network`: the answer alone."""
        self.check(steps=steps, start=start is not None)
        return [self._facts.check(self._path, self._run(np.ascontiguousarray(to_numpy(images))))]


def onnx_network(path: Path, device: str = "cpu") -> OneGraphNetwork:
    """The network of one .onnx file; InputError where it is damaged, or contradicts its metadata."""
    session, facts, place = _open_graph(path, device)
    return OneGraphNetwork(path, facts, lambda images: _run(path, session, {"images": images})[0], place)


def openvino_network(path: Path, device: str = "cpu") -> OneGraphNetwork:
    """The network of an .xml file and the .bin beside it, by OpenVINO on the CPU; else InputError."""
    with needs_extra("openvino", "OpenVINO files need openvino"):
        import openvino
    if device != "cpu":
        warnings.warn(f"OpenVINO files run on the CPU here, not on {device}", stacklevel=2)
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(f"{path}: its weights, {weights.name}, are not beside it; copy both files")
    try:
        core = openvino.Core()
        graph = core.read_model(path)
        text = graph.get_rt_info([METADATA_KEY]).astype(str) if graph.has_rt_info([METADATA_KEY]) else None
        compiled = core.compile_model(graph, "CPU", openvino_settings())
    except Exception as error:  # openvino's own errors share no base class; their last line is the reason
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"{path}: OpenVINO cannot read it, perhaps cut short ({reason}); copy it and {weights.name} again"
        ) from error
    facts = read_facts(path, text)
    return OneGraphNetwork(path, facts, lambda images: np.asarray(next(iter(compiled(images).values()))))


def openvino_settings() -> dict[str, Any]:
    """float32 in any case: on CPUs that have bfloat16, OpenVINO takes that by itself."""
    return {"INFERENCE_NUM_THREADS": cpu_threads(), "INFERENCE_PRECISION_HINT": "f32"}


class TwoGraphNetwork(Network):
    """Algorithm 2 in two exported graphs, the loop outside: any number of steps, and any start.

    ``encoder.onnx``: images (b, 3, H, W) uint8 -> x_fea and hm_T (lines 1 and 2); of a model without
    diffusion only hm_T, its answer. ``step.onnx``: x_fea, hm_t and y_t (b, j, 2) in heatmap pixels, for a
    decoder that sees it t / T (b,) as well -> the heatmaps of the next step (lines 5 to 8).

    Raises:
        InputError: no onnxruntime, or a file that is missing, damaged, not this package's, or contradicts the
            other.
    """

    def __init__(self, folder: Path, device: str = "cpu", name: str | None = None) -> None:
        self._encoder, facts, self.device = _open_graph(folder / ENCODER, device)
        self.name, self.skeleton, self.codec = name or str(folder), facts.skeleton, facts.codec
        self.steps = facts.steps
        self.calibration = find_calibration(folder, self.skeleton) or facts.calibration
        self.any_steps = self.takes_start = self.encodes_once = facts.steps is not None
        self.folder, self._facts, path = folder, facts, folder / STEP
        if not self.any_steps:
            return
        if not path.is_file():
            raise InputError(f"{path}: no such file, but {ENCODER} beside it needs it; copy both")
        self._step, others, _ = _open_graph(path, device)
        if others != facts:
            raise InputError(f"{path}: belongs to another model than {ENCODER} beside it; copy both again")
        self._sees_t = "t" in [entry.name for entry in self._step.get_inputs()]

    def encode(self, images: Array) -> tuple[Array, Array]:
        """As of :class:`Network`."""
        path, crops = self.folder / ENCODER, np.ascontiguousarray(to_numpy(images))
        *feature, coarse = _run(path, self._encoder, {"images": crops})
        self._facts.check(path, coarse)
        return feature[0] if feature else coarse, coarse

    def reverse(
        self, x_fea: Array, coarse: Array, steps: int | None = None, start: Start | None = None
    ) -> list[Array]:
        """As of :class:`Network` (lines 3 to 8)."""
        if self.steps is None:
            return [coarse]

        def step(hm_t: np.ndarray, y_t: np.ndarray, t: float) -> np.ndarray:
            values = {"x_fea": x_fea, "hm_t": hm_t, "y_t": y_t}
            if self._sees_t:
                values["t"] = np.full(len(x_fea), t, np.float32)
            (heatmaps,) = _run(self.folder / STEP, self._step, values)
            return self._facts.check(self.folder / STEP, heatmaps)

        return self.codec.reverse(coarse, self.steps if steps is None else steps, start, step)


# --- PyTorch ---


class TorchNetwork(Network):
    """A PoseModel, put on a device (None: where it is) and into evaluation mode.

    ``name`` is what messages call it; None for the name of the model. InputError where the device is not
    there.
    """

    def __init__(self, model: PoseModel, device: str | None = "auto", name: str | None = None) -> None:
        import torch

        place = model.device if device is None else find_device(device)
        if device is not None:
            # measured: convolutions on a CPU are 15 to 30 % faster with channels last
            layout = torch.channels_last if place.type == "cpu" else torch.preserve_format
            model = model.to(device=place, memory_format=layout).eval()  # type: ignore[call-overload]
        self.model, self.device = model, str(place)
        self.name = name or str(model.config.get("name", "the model"))
        self.skeleton, self.codec = model.skeleton, model.codec
        self.steps, self.any_steps = model.default_steps, model.default_steps is not None
        self.takes_start, self.needs_start = model.takes_start, model.needs_start
        self.sees_neighbours = model.sees_neighbours
        self._process: Any = model  # where it has `encode` and `reverse`
        self.encodes_once = self.any_steps and hasattr(model, "reverse")
        if (known := model.config.get("calibration")) is not None:
            self.calibration = Calibration.from_dict(known, self.skeleton, self.name)

    def heatmaps(
        self,
        images: Array,
        steps: int | None = None,
        start: Start | None = None,
        neighbours: Neighbours | None = None,
    ) -> list[Array]:
        """As of :class:`Network`, as tensors on the device: those of all steps."""
        if self.encodes_once:
            return super().heatmaps(images, steps, start)
        self.check(steps=steps, start=start is not None)
        with self._ready() as place:
            among = {}
            if neighbours is not None:
                picture, shares = _tensor(neighbours.picture, place), _tensor(neighbours.place, place)
                among = {"neighbours": Neighbours(picture, shares)}
            maps = self.model.trajectory(_tensor(images, place), steps, _start_on(start, place), **among)
            return [heatmaps.float() for heatmaps in maps]

    def encode(self, images: Array) -> tuple[Array, Array]:
        """As of :class:`Network`."""
        with self._ready() as place:
            features: tuple[Array, Array] = self._process.encode(_tensor(images, place))
            return features

    def reverse(
        self, x_fea: Array, coarse: Array, steps: int | None = None, start: Start | None = None
    ) -> list[Array]:
        """As of :class:`Network`."""
        with self._ready() as place:
            maps = self._process.reverse(x_fea, coarse, steps, _start_on(start, place))
            return [heatmaps.float() for heatmaps in maps]

    @contextmanager
    def _ready(self) -> Iterator[Any]:
        """The model's device, while the model is in evaluation mode and nothing is kept for gradients."""
        import torch

        training = self.model.training
        try:
            with torch.no_grad():
                self.model.eval()
                yield self.model.device
        finally:
            self.model.train(training)


def _tensor(array: Array, place: Any) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array).to(place)


def _start_on(start: Start | None, place: Any) -> Start | None:
    if start is None:
        return None
    fixed = None if start.fixed is None else _tensor(start.fixed, place)
    return Start(_tensor(start.keypoints, place), _tensor(start.scores, place), fixed)


def find_device(name: str) -> Any:
    """The torch.device of a name, "auto" a GPU where there is one; InputError where it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch without that backend raises either
        raise InputError(f"device {name!r}: {first_line(error)}; use 'auto' or 'cpu'") from error


# --- which one ---


def load_network(weights: str | Path | None = None, device: str = "auto") -> Network:
    """A trained network.

    Bundled models and exported files run without PyTorch. On a machine with a GPU, a bundled model runs by
    onnxruntime's CUDA provider or, where only PyTorch can use the GPU, by PyTorch.

    Args:
        weights: None for the default bundled model, the name of a bundled model, an .onnx or .xml file or a
            folder of `diffusionpose export`; or what needs PyTorch: a .safetensors file, a run folder (its
            best checkpoint, else its newest), the id of a hub repository.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps", ...

    Raises:
        InputError: no such weights, a damaged file, a device that is not there, or a package that is not
            installed.
    """
    weights = DEFAULT_MODEL if weights is None else str(weights)
    path = Path(weights)
    if weights in bundled_models():
        return _bundled(weights, device)
    folder = path.parent if path.name in (ENCODER, STEP) else path
    if (folder / ENCODER).is_file():
        return TwoGraphNetwork(folder, exported_device(device))
    if path.suffix not in EXPORTED:
        return _torch_network(weights, device)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.suffix == ".xml":
        return openvino_network(path, "cpu" if device == "auto" else device)
    return onnx_network(path, exported_device(device))


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
        what = f"{weights}: no such file, folder or bundled model (bundled: {known})"
        raise InputError(f"{what}; an id of the hub needs PyTorch: {install('train')}")
    with needs_extra("train", f"{weights}: these weights need PyTorch"):
        from diffusionpose.models.checkpoints import load_model
    return TorchNetwork(load_model(weights), device, weights)


def exported_device(device: str) -> str:
    """Where an exported file is to run: "auto" is the GPU where onnxruntime can use one."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps", "xpu") or (index and not index.isdigit()):
        raise InputError(f"device {device!r}: no such device; use 'auto' or 'cpu'")
    if kind == "auto":
        return "cuda" if cuda_provider() and gpu_available() else "cpu"
    return device


def cuda_provider() -> bool:
    """Whether this onnxruntime is built for CUDA (onnxruntime-gpu)."""
    return CUDA in import_onnxruntime().get_available_providers()


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


def cpu_threads(otherwise: int | None = None) -> int:
    """Threads for a network on the CPU: OMP_NUM_THREADS, else ``otherwise``, else one a core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else otherwise or cores()


def cores() -> int:
    """Processors that this process is bound to, and no more than its control group (a container's) grants."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in QUOTAS:
        try:
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            return max(1, min(bound, int(quota) // int(period))) if int(quota) > 0 else bound  # -1: no limit
        except (OSError, ValueError):  # not this version of control groups, or "max": no limit
            continue
    return bound
