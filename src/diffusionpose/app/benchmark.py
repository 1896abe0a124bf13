"""``diffusionpose benchmark``: how fast everything is on this machine, each as a ratio within one run."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from tyro.conf import arg

from diffusionpose.app.options import Device, Output, Weights, make_folder, say
from diffusionpose.bundled import DEFAULT_MODEL, PORTRAIT, bundled_models
from diffusionpose.errors import InputError, write_file
from diffusionpose.json_files import write_json

if TYPE_CHECKING:
    from diffusionpose.runtime.networks import TwoGraphNetwork

Part = Literal["networks", "pictures", "start", "training", "loader", "evaluation", "peers"]
BATCHES = (1, 8)  # crops
MATRIX = 768  # rows and columns of the matrices that the arithmetic is measured with
TRAINED = 16  # persons of a training step
PERSONS = 11_000  # of 5,000 pictures of COCO val2017
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


class Row(NamedTuple):
    """One measurement."""

    what: str  # was measured
    value: float  # the median of the rounds
    unit: str
    ratio: float | None = None  # to the part's yardstick in the same run; None for the yardstick itself
    note: str = ""  # what the ratio is of


@dataclass(frozen=True)
class BenchmarkCommand:
    """Measure the speed of everything on this machine.

    Contestants of a part take turns, so that a machine that is busy for a while is so for all of them; each
    has the median of its rounds, and the ratios are what can be compared between machines. Writes
    OUTPUT/benchmark.json and OUTPUT/benchmark.md.
    """

    output: Output
    parts: tuple[Part, ...] = get_args(Part)
    """What to measure; without PyTorch, training, loader, evaluation and peers are left out."""
    images: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: one portrait)")] = None
    """Pictures for the part of that name."""
    weights: Weights = None
    device: Device = "auto"
    rounds: int = 10
    """How often each contestant runs."""

    def run(self) -> int:
        """Measure, print and write; 0 if every part could be measured."""
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds}: must be 1 or more")
        make_folder(self.output)
        machine = describe_machine()
        print("  ".join(f"{name}: {value}" for name, value in machine.items()))
        rows: list[dict[str, Any]] = []
        for part in self.parts:
            if part in ("training", "loader", "evaluation", "peers") and find_spec("torch") is None:
                say(f"{part}: left out, needs PyTorch (the extra 'train')")
                continue
            found = [{"part": part, **row._asdict()} for row in MEASURES[part](self)]
            print("\n".join(map(_line, found)), flush=True)
            rows += found
            self._write(machine, rows)  # a run that is cut short leaves what it has
        print(f"{self.output / 'benchmark.json'}, {self.output / 'benchmark.md'}")
        return 0

    def _write(self, machine: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
        content = {"machine": machine, "rounds": self.rounds, "rows": rows}
        write_json(self.output / "benchmark.json", content)
        facts = ", ".join(f"{name} {value}" for name, value in machine.items())
        table = [
            facts,
            "",
            "| part | | value | | ratio | |",
            "|---|---|---|---|---|---|",
            *map(_line, rows),
            "",
        ]
        write_file(self.output / "benchmark.md", "\n".join(table).encode())


def _line(row: dict[str, Any]) -> str:
    cells = {
        **row,
        "value": f"{row['value']:.4g}",
        "ratio": "" if row["ratio"] is None else f"{row['ratio']:.2f}",
    }
    return f"| {' | '.join(cells.values())} |"


def describe_machine() -> dict[str, Any]:
    """Processor, its features that matter here, threads in use, versions."""
    from diffusionpose.runtime.networks import cpu_threads

    listed = Path("/proc/cpuinfo")  # of Linux
    text = listed.read_text() if listed.exists() else ""
    lines = dict(re.findall(r"^(model name|flags)\s*: (.*)$", text, re.MULTILINE))
    flags = lines.get("flags", "").split()
    facts = {
        "cpu": lines.get("model name", platform.processor() or platform.machine()),
        "features": " ".join(flag for flag in CPU_FEATURES if flag in flags) or "unknown",
        "threads": cpu_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if find_spec("torch") is not None:
        import torch

        facts["torch"] = torch.__version__
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
    return facts


def take_turns(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds that each contestant takes: the median of its rounds after one to warm up, all interleaved."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


# --- the parts ---


def _networks(command: BenchmarkCommand) -> list[Row]:
    """The network alone by every engine at hand, beside the machine's rate of matrix multiplication."""
    from diffusionpose.runtime.networks import TorchNetwork, TwoGraphNetwork, cpu_threads, load_network

    default = load_network(command.weights, command.device)
    engines: dict[str, Callable[[np.ndarray], object]] = {
        f"default ({type(default).__name__})": default.heatmaps
    }
    if isinstance(default, TwoGraphNetwork) and default.any_steps and find_spec("openvino") is not None:
        engines["OpenVINO float32"] = _openvino(default)
    adds, bundled = 0, (command.weights or DEFAULT_MODEL) in bundled_models()
    if find_spec("torch") is not None and (bundled or isinstance(default, TorchNetwork)):
        import torch

        from diffusionpose.models.checkpoints import load_model
        from diffusionpose.models.costs import count_multiply_adds

        torch.set_num_threads(cpu_threads())
        network = default
        if not isinstance(network, TorchNetwork):
            network = TorchNetwork(load_model(command.weights or DEFAULT_MODEL), command.device)
        adds, kind = count_multiply_adds(network.model), network.model.device.type

        def timed(images: np.ndarray, bf16: bool = False) -> None:
            with torch.autocast(kind, torch.bfloat16, enabled=bf16):
                network.heatmaps(images)[-1].cpu()

        engines["PyTorch float32"] = timed
        engines["PyTorch bfloat16"] = partial(timed, bf16=True)
    matrix = np.random.default_rng(0).random((MATRIX, MATRIX), np.float32)
    rows, (width, height) = [], default.codec.input_size
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 255, (batch, 3, height, width), np.uint8)
        contestants: dict[str, Callable[[], object]] = {"matrix": lambda: matrix @ matrix}
        contestants |= {label: partial(run, images) for label, run in engines.items()}
        seconds = take_turns(contestants, command.rounds)
        rate = MATRIX**3 / seconds.pop("matrix")
        rows.append(Row(f"float32 matrix product beside {batch}", 2e-9 * rate, "GFLOP/s"))
        first = next(iter(seconds.values()))
        for label, value in seconds.items():
            note = "times the default's speed"
            note += f"; {adds * batch / value / rate:.0%} of the matrix product's rate" if adds else ""
            what = f"{label}, {batch} a pass"
            rows.append(Row(what, 1000 * value / batch, "ms/crop", first / value, note))
    return rows


def _openvino(network: TwoGraphNetwork) -> Callable[[np.ndarray], object]:
    """The two graphs of a network by OpenVINO, with one step."""
    import openvino

    from diffusionpose.runtime.networks import ENCODER, STEP, openvino_settings

    core, settings = openvino.Core(), openvino_settings()
    encoder, step = (core.compile_model(network.folder / file, "CPU", settings) for file in (ENCODER, STEP))

    def run(images: np.ndarray) -> object:
        x_fea, hm_t = encoder([images]).values()
        y_t, _ = network.codec.decode(hm_t, "argmax")
        t = [np.ones(len(images), np.float32)]  # for a decoder that sees it
        return step([x_fea, hm_t, y_t, *t][: len(step.inputs)])

    return run


def _pictures(command: BenchmarkCommand) -> list[Row]:
    """From files to drawings: where the time goes one after the other, and what overlapping leaves of it."""
    import cv2

    from diffusionpose.runtime.drawing import draw_poses
    from diffusionpose.runtime.estimator import LocalEngine, PictureTask, PoseEstimator, Request
    from diffusionpose.runtime.images import list_pictures, read_image

    estimator = PoseEstimator.from_pretrained(command.weights, command.device)
    network, detector, run = estimator.network, estimator.detector, estimator.network.heatmaps
    files = [PORTRAIT] * 8 if command.images is None else list_pictures([command.images])[0]
    if not files:
        raise InputError(f"{command.images}: no pictures in this folder; name another")
    took = dict.fromkeys(("read", "find people", "network", "cut and decode", "draw", "write"), 0.0)
    seen: list[tuple[Any, ...]] = []  # by the network

    def lap(stage: str, work: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        made = work(*given)
        took[stage] += time.perf_counter() - began
        return made

    def watched(*given: Any) -> Any:
        seen.append(given)
        return lap("network", run, *given)

    estimator(files[0])  # warms up
    network.heatmaps = watched  # type: ignore[assignment,method-assign]
    with tempfile.TemporaryDirectory() as folder:

        def save(picture: np.ndarray) -> None:
            cv2.imwrite(f"{folder}/drawn.png", picture[:, :, ::-1])

        for file in files:
            image = lap("read", read_image, file)
            request = Request(image, *lap("find people", detector, image))
            ((_, poses),) = lap("cut and decode", lambda found: list(estimator.stream([found])), request)
            lap("write", save, lap("draw", draw_poses, image, poses))
        network.heatmaps = run  # type: ignore[method-assign]
        took["cut and decode"] -= took["network"]
        engine = LocalEngine(estimator, lambda request, poses: save(draw_poses(request.image, poses)))

        def everything() -> None:
            for _ in engine.run([[PictureTask(file) for file in files]]):
                pass

        def networks() -> None:
            for file in files:
                detector(read_image(file))
            for given in seen:
                run(*given)

        seconds = take_turns({"everything": everything, "networks": networks}, max(1, command.rounds // 5))
    apart, together = sum(took.values()), seconds["everything"]
    # the second contestant reads its pictures, too, so as not to hold them all
    share = 1 - (seconds["networks"] - took["read"]) / together
    rows = [
        Row(stage, 1000 * value / len(files), "ms/picture", value / apart, "of all, in turn")
        for stage, value in took.items()
    ]
    note = "of the time is not the two networks'"
    return [
        *rows,
        Row("everything, overlapping", len(files) / together, "pictures/s", share, note),
    ]


def _start(command: BenchmarkCommand) -> list[Row]:
    """One photograph by the command line, from a cold start."""
    cpu, wall = [], []
    for _ in range(min(command.rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "diffusionpose", "predict", str(PORTRAIT), "--output", folder]
            before, began = os.times(), time.perf_counter()
            subprocess.run(line, check=True, capture_output=True)
            wall.append(time.perf_counter() - began)
            after = os.times()
            cpu.append(sum(after[2:4]) - sum(before[2:4]))  # of children
    kinds = {"processor": cpu, "clock": wall}
    return [
        Row(f"diffusionpose predict of a photograph, {kind}", statistics.median(spent), "s")
        for kind, spent in kinds.items()
    ]


def _training(command: BenchmarkCommand) -> list[Row]:
    """Training steps in 32 bits and bf16, and the share of the machine's arithmetic that they use."""
    import torch

    from diffusionpose.models.checkpoints import load_model
    from diffusionpose.models.costs import count_multiply_adds
    from diffusionpose.runtime.networks import cpu_threads, find_device

    torch.set_num_threads(cpu_threads())
    device, generator = find_device(command.device), torch.Generator().manual_seed(0)
    model = load_model(command.weights or DEFAULT_MODEL).to(device).train()
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    width, height = model.input_size
    images = torch.randint(0, 255, (TRAINED, 3, height, width), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(TRAINED, model.skeleton.num_joints, 2, generator=generator) * width
    images, keypoints = images.to(device), keypoints.to(device)
    visible = torch.ones(keypoints.shape[:2], device=device)
    noise = {name: value.to(device) for name, value in model.draw_noise(TRAINED, generator).items()}
    matrix = torch.rand(MATRIX, MATRIX, device=device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def step(bf16: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model.loss(images, keypoints, visible, noise=noise)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        wait()

    def product() -> None:
        for _ in range(10):
            matrix @ matrix
        wait()

    contestants: dict[str, Callable[[], object]] = {"float32": partial(step, False)}
    contestants |= {"bfloat16": lambda: step(True), "matrix": product}
    seconds = take_turns(contestants, max(1, command.rounds // 3))
    rate = 10 * MATRIX**3 / seconds.pop("matrix")
    work = 3 * TRAINED * count_multiply_adds(model)  # forward, and twice that backward
    return [
        Row(f"steps of {TRAINED} persons, {kind}", TRAINED / value, "persons/s",
            work / value / rate, "of the float32 matrix product's rate")
        for kind, value in seconds.items()
    ]  # fmt: skip


def _loader(command: BenchmarkCommand) -> list[Row]:
    """Augmented crops for training, cut from pictures and from the packed persons of the same."""
    from diffusionpose.data.annotations import read_annotations
    from diffusionpose.data.augmentation import Augmentation
    from diffusionpose.data.dataset import PersonDataset
    from diffusionpose.data.pack import PackOptions, pack_persons
    from diffusionpose.data.synthetic import write_synthetic

    contestants: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures, labels = write_synthetic(folder, 8, size=(640, 480))
        truth = read_annotations(labels)

        def add(name: str, images: Path, file: Path) -> None:
            people = read_annotations(file)
            data = PersonDataset(people, images, (192, 256), augmentation=Augmentation())
            contestants[name] = lambda: [data[index] for index in range(len(data))]

        add("pictures of 640x480", pictures, labels)
        for name, quality in (("packed, raw", None), ("packed, JPEG 95", 95)):
            place = Path(folder, name)
            pack_persons(truth, pictures, place, PackOptions(jpeg=quality))
            add(name, place, place / "annotations.json")
        seconds = take_turns(contestants, command.rounds)
    first = next(iter(seconds.values()))
    return [
        Row(f"augmented crops, {name}", len(truth.labelled().persons) / value, "persons/s",
            first / value, "times the speed of pictures, on one core")
        for name, value in seconds.items()
    ]  # fmt: skip


def _evaluation(command: BenchmarkCommand) -> list[Row]:
    """OKS AP of so many poses as COCO val2017 has, and pycocotools beside it where it is installed."""
    from diffusionpose.evaluation.metrics import coco_evaluation

    random = np.random.default_rng(0)
    truth = random.random((PERSONS, 17, 2)) * 200 + random.random((PERSONS, 1, 2)) * 300
    found = truth + random.normal(0, 5, truth.shape)
    start, size = truth.min(1), np.ptp(truth, 1)

    def rows(points: np.ndarray, **more: Any) -> list[dict[str, Any]]:
        keypoints = np.pad(points, ((0, 0), (0, 0), (0, 1)), constant_values=2).reshape(PERSONS, -1).tolist()
        return [{"image_id": n % 5000 + 1, "keypoints": each, **more} for n, each in enumerate(keypoints)]

    persons = rows(truth, iscrowd=0, num_keypoints=17)
    for person, corner, (width, height) in zip(persons, start.tolist(), size.tolist(), strict=True):
        person |= {"area": 0.53 * width * height, "bbox": [*corner, width, height]}
    poses = rows(found, score=0.9)

    def ours() -> None:
        coco_evaluation(5000, persons, poses, iouType="keypoints").run()

    def slow() -> None:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            known = COCO()
            known.dataset = {
                "images": [{"id": number} for number in range(1, 5001)],
                "annotations": [{"id": n, "category_id": 1, **one} for n, one in enumerate(persons, start=1)],
                "categories": [{"id": 1}],
            }
            known.createIndex()
            results = known.loadRes([{"category_id": 1, **one} for one in poses])
            evaluation = COCOeval(known, results, "keypoints")
            for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
                step()

    contestants: dict[str, Callable[[], object]] = {"faster-coco-eval": ours}
    if find_spec("pycocotools") is not None:
        contestants["pycocotools"] = slow
    seconds = take_turns(contestants, 1)
    return [
        Row(f"{PERSONS:,} poses in 5,000 pictures, {name}", value, "s",
            seconds["faster-coco-eval"] / value, "times the speed of faster-coco-eval, which evaluate uses")
        for name, value in seconds.items()
    ]  # fmt: skip


def _peers(command: BenchmarkCommand) -> list[Row]:
    """Other networks of the field beside the default one, random weights, PyTorch in float32."""
    import timm
    import torch
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    from diffusionpose.runtime.networks import cpu_threads, find_device, load_network

    torch.set_num_threads(cpu_threads())
    device = find_device(command.device)
    ours = load_network(command.weights, command.device)
    width, height = ours.codec.input_size
    crop = np.zeros((1, 3, height, width), np.uint8)
    contestants: dict[str, Callable[[], object]] = {"the default network": lambda: ours.heatmaps(crop)}

    def add(name: str, model: Any, height: int, width: int) -> None:
        model, images = model.to(device).eval(), torch.zeros(1, 3, height, width, device=device)

        @torch.no_grad()
        def run() -> None:
            model(images)
            if device.type == "cuda":
                torch.cuda.synchronize()

        contestants[f"{name}, {height}x{width}"] = run

    hrnet = timm.create_model("hrnet_w32", pretrained=False, features_only=True)
    add("HRNet-W32's backbone (timm)", hrnet, 256, 192)
    if find_spec("transformers") is not None:
        from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

        backbone = VitPoseBackboneConfig()
        backbone.set_output_features_output_indices(out_indices=[12], out_features=None)
        vit = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone))
        add("VitPose-B (transformers)", vit, 256, 192)
    rcnn = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    add("keypoint R-CNN (torchvision)", rcnn, 480, 640)
    seconds = take_turns(contestants, max(1, command.rounds // 3))
    first = seconds["the default network"]
    return [
        Row(f"{name}, one crop", 1000 * value, "ms", value / first, "times as long as the default")
        for name, value in seconds.items()
    ]


MEASURES: dict[Part, Callable[[BenchmarkCommand], list[Row]]] = {
    "networks": _networks,
    "pictures": _pictures,
    "start": _start,
    "training": _training,
    "loader": _loader,
    "evaluation": _evaluation,
    "peers": _peers,
}
