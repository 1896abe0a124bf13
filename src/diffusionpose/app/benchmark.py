"""``diffusionpose benchmark``: how fast everything is on this machine, each as a ratio within one run."""

from __future__ import annotations

import json
import os
import platform
import resource
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

if TYPE_CHECKING:
    from diffusionpose.runtime.networks import TwoGraphNetwork

Part = Literal["networks", "pictures", "start", "training", "loader", "evaluation", "peers"]
BATCHES = (1, 8)  # crops
MATRIX = 768  # rows and columns of the matrices that the arithmetic is measured with
TRAINED = 16  # persons of a training step
PERSONS = 11_000  # of 5,000 pictures of COCO val2017
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


class Row(NamedTuple):
    """One measurement.

    Attributes:
        part: of the benchmark.
        what: was measured.
        value, unit: the median of the rounds.
        ratio: to the part's yardstick in the same run; None for the yardstick of another unit.
        note: what the ratio is to, or why there is no value.
    """

    part: str
    what: str
    value: float
    unit: str
    ratio: float | None = None
    note: str = ""


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
        rows: list[Row] = []
        for part in self.parts:
            if part in ("training", "loader", "evaluation", "peers") and find_spec("torch") is None:
                say(f"{part}: left out, needs PyTorch (the extra 'train')")
                continue
            found = MEASURES[part](self)
            for row in found:
                print(_line(row), flush=True)
            rows += found
            self._write(machine, rows)  # a run that is cut short leaves what it has
        print(f"{self.output / 'benchmark.json'}, {self.output / 'benchmark.md'}")
        return 0

    def _write(self, machine: dict[str, Any], rows: Sequence[Row]) -> None:
        content = {"machine": machine, "rounds": self.rounds, "rows": [row._asdict() for row in rows]}
        write_file(self.output / "benchmark.json", f"{json.dumps(content, indent=1)}\n".encode())
        table = ["| part | | value | | ratio | |", "|---|---|---|---|---|---|"]
        table += [
            f"| {row.part} | {row.what} | {row.value:.4g} | {row.unit} | "
            f"{'' if row.ratio is None else f'{row.ratio:.2f}'} | {row.note} |"
            for row in rows
        ]
        facts = ", ".join(f"{name} {value}" for name, value in machine.items())
        write_file(self.output / "benchmark.md", "\n".join([facts, "", *table, ""]).encode())


def describe_machine() -> dict[str, Any]:
    """Processor, its features that matter here, threads in use, versions."""
    from diffusionpose.runtime.networks import cpu_threads

    try:
        lines = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if ":" in line
        )
    except OSError:  # not Linux
        lines = {}
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
    adds, bundled = None, (command.weights or DEFAULT_MODEL) in bundled_models()
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
        rows.append(Row("networks", f"float32 matrix product beside {batch}", 2e-9 * rate, "GFLOP/s"))
        first = next(iter(seconds.values()))
        for label, value in seconds.items():
            share = (
                "" if adds is None else f"; {adds * batch / value / rate:.0%} of the matrix product's rate"
            )
            each = 1000 * value / batch
            rows.append(Row("networks", f"{label}, {batch} a pass", each, "ms/crop", first / value,
                            f"times the default's speed{share}"))  # fmt: skip
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
    """From files to drawings: how many a second, and where the time goes when nothing overlaps."""
    import cv2

    from diffusionpose.geometry import Crop
    from diffusionpose.runtime.drawing import draw_poses
    from diffusionpose.runtime.estimator import LocalEngine, PictureTask, PoseEstimator, heatmap_steps
    from diffusionpose.runtime.images import list_pictures, read_image

    estimator = PoseEstimator.from_pretrained(command.weights, command.device)
    network, codec = estimator.network, estimator.network.codec
    files = [PORTRAIT] * 8 if command.images is None else list_pictures([command.images])[0]
    if not files:
        raise InputError(f"{command.images}: no pictures in this folder; name another")
    took = dict.fromkeys(("read", "find people", "cut", "network", "decode", "draw", "write"), 0.0)
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        took[stage] += now - clock
        clock = now

    with tempfile.TemporaryDirectory() as folder:

        def save(picture: np.ndarray) -> None:
            cv2.imwrite(f"{folder}/drawn.png", picture[:, :, ::-1])

        estimator(files[0])  # opens the finder, warms up
        clock = time.perf_counter()
        for file in files:
            image = read_image(file)
            lap("read")
            boxes, scores = estimator.detector(image)
            lap("find people")
            poses = []
            for first in range(0, len(boxes), estimator.batch_size):
                part = boxes[first : first + estimator.batch_size]
                crops = Crop.from_boxes(part, codec.input_size, unbiased=codec.unbiased)
                cut = np.stack([crops.cut(image, index) for index in range(len(part))]).transpose(0, 3, 1, 2)
                lap("cut")
                maps = heatmap_steps(network, np.ascontiguousarray(cut))[-1]
                lap("network")
                keypoints, sure = codec.decode(maps, "dark")
                keypoints = crops.heatmap_to_image(np.asarray(keypoints), codec.size)
                poses += [
                    estimator.pose(*each)
                    for each in zip(keypoints, np.asarray(sure), part, scores[first:], strict=False)
                ]
                lap("decode")
            drawn = draw_poses(image, poses)
            lap("draw")
            save(drawn)
            lap("write")
        apart = sum(took.values())
        began = time.perf_counter()
        engine = LocalEngine(estimator, lambda request, poses: save(draw_poses(request.image, poses)))
        for _ in engine.run([[PictureTask(file) for file in files]]):
            pass
        together = time.perf_counter() - began
    rows = [
        Row(
            "pictures", stage, 1000 * seconds / len(files), "ms/picture", seconds / apart, "share of the time"
        )
        for stage, seconds in took.items()
    ]
    nets = took["network"] + took["find people"]
    note = "share of the time that the two networks alone take"
    everything = Row(
        "pictures", "everything, overlapping", len(files) / together, "pictures/s", nets / together, note
    )
    return [*rows, everything]


def _start(command: BenchmarkCommand) -> list[Row]:
    """One photograph by the command line, from a cold start."""
    cpu, wall = [], []
    for _ in range(min(command.rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "diffusionpose", "predict", str(PORTRAIT), "--output", folder]
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(line, check=True, capture_output=True)
            wall.append(time.perf_counter() - began)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    note = "one photograph from a cold start"
    return [
        Row("start", "diffusionpose predict, processor", statistics.median(cpu), "s", None, note),
        Row("start", "diffusionpose predict, clock", statistics.median(wall), "s", None, note),
    ]


def _training(command: BenchmarkCommand) -> list[Row]:
    """Training steps in 32 bits and bf16, and the share of the machine's arithmetic that they use."""
    import torch

    from diffusionpose.models.checkpoints import load_model
    from diffusionpose.models.costs import count_multiply_adds
    from diffusionpose.runtime.networks import cpu_threads, find_device

    torch.set_num_threads(cpu_threads())
    device = find_device(command.device)
    model = load_model(command.weights or DEFAULT_MODEL).to(device).train()
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    width, height = model.input_size
    generator = torch.Generator().manual_seed(0)
    shape = (TRAINED, 3, height, width)
    images = torch.randint(0, 255, shape, dtype=torch.uint8, generator=generator).to(device)
    keypoints = torch.rand(TRAINED, model.skeleton.num_joints, 2, generator=generator).to(device) * width
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

    seconds = take_turns(
        {"float32": lambda: step(False), "bfloat16": lambda: step(True), "matrix": product},
        max(1, command.rounds // 3),
    )
    rate = 10 * MATRIX**3 / seconds.pop("matrix")
    work = 3 * TRAINED * count_multiply_adds(model)  # forward, and twice that backward
    return [
        Row("training", f"steps of {TRAINED} persons, {kind}", TRAINED / value, "persons/s",
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

    with tempfile.TemporaryDirectory() as folder:
        images, file = write_synthetic(folder, 8, size=(640, 480))
        places = {"pictures of 640x480": (images, file)}
        for name, quality in (("packed, raw", None), ("packed, JPEG 95", 95)):
            place = Path(folder) / name
            pack_persons(read_annotations(file), images, place, PackOptions(jpeg=quality))
            places[name] = (place, place / "annotations.json")
        sets = {
            name: PersonDataset(read_annotations(file), images, (192, 256), augmentation=Augmentation())
            for name, (images, file) in places.items()
        }

        def read_all(data: PersonDataset) -> None:
            for index in range(len(data)):
                data[index]

        contestants: dict[str, Callable[[], object]] = {
            name: partial(read_all, data) for name, data in sets.items()
        }
        seconds = take_turns(contestants, command.rounds)
    pictures = next(iter(seconds.values()))
    persons = len(next(iter(sets.values())))
    return [
        Row("loader", f"augmented crops, {name}", persons / value, "persons/s", pictures / value,
            "times the speed of pictures, on one core")
        for name, value in seconds.items()
    ]  # fmt: skip


def _evaluation(command: BenchmarkCommand) -> list[Row]:
    """OKS AP of so many poses as COCO val2017 has, and pycocotools beside it where it is installed."""
    from faster_coco_eval import COCO, COCOeval_faster

    random = np.random.default_rng(0)
    truth = random.random((PERSONS, 17, 2)) * 200 + random.random((PERSONS, 1, 2)) * 300
    corners = np.concatenate([truth.min(1), truth.max(1)], axis=1)
    found = truth + random.normal(0, 5, truth.shape)
    twos, ones = np.full((PERSONS, 17, 1), 2.0), np.ones((PERSONS, 17, 1))
    annotations, results = [], []
    for number in range(PERSONS):
        x0, y0, x1, y1 = corners[number].tolist()
        image = number % 5000
        annotations.append({
            "id": number + 1, "image_id": image, "category_id": 1, "iscrowd": 0,
            "area": 0.53 * (x1 - x0) * (y1 - y0),
            "bbox": [x0, y0, x1 - x0, y1 - y0], "num_keypoints": 17,
            "keypoints": np.concatenate([truth[number], twos[number]], 1).ravel().tolist(),
        })  # fmt: skip
        keypoints = np.concatenate([found[number], ones[number]], 1).ravel().tolist()
        results.append({"image_id": image, "category_id": 1, "score": 0.9, "keypoints": keypoints})
    content = {
        "images": [{"id": image} for image in range(5000)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }

    def score(coco: Any, evaluator: Any) -> float:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            known = coco()
            known.dataset = json.loads(json.dumps(content))
            known.createIndex()
            evaluation = evaluator(known, known.loadRes(json.loads(json.dumps(results))), "keypoints")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    contestants: dict[str, Callable[[], object]] = {"faster-coco-eval": lambda: score(COCO, COCOeval_faster)}
    if find_spec("pycocotools") is not None:
        from pycocotools.coco import COCO as SlowCOCO
        from pycocotools.cocoeval import COCOeval

        contestants["pycocotools"] = lambda: score(SlowCOCO, COCOeval)
    seconds = take_turns(contestants, 1)
    ours = seconds["faster-coco-eval"]
    note = "times the speed of faster-coco-eval, which evaluate uses"
    what = f"{PERSONS:,} poses in 5,000 pictures"
    return [
        Row("evaluation", f"{what}, {name}", value, "s", ours / value, note)
        for name, value in seconds.items()
    ]


def _peers(command: BenchmarkCommand) -> list[Row]:
    """Other networks of the field beside the default one, random weights, PyTorch in float32."""
    import torch

    from diffusionpose.runtime.networks import cpu_threads, find_device, load_network

    torch.set_num_threads(cpu_threads())
    device = find_device(command.device)
    ours = load_network(command.weights, command.device)
    width, height = ours.codec.input_size
    crop = np.zeros((1, 3, height, width), np.uint8)
    contestants: dict[str, Callable[[], object]] = {"the default network": lambda: ours.heatmaps(crop)}
    if find_spec("timm") is not None:
        import timm

        hrnet = timm.create_model("hrnet_w32", pretrained=False, features_only=True)
        contestants["HRNet-W32's backbone (timm), 256x192"] = _forward(hrnet, (1, 3, 256, 192), device)
    if find_spec("transformers") is not None:
        from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

        backbone = VitPoseBackboneConfig()
        backbone.set_output_features_output_indices(out_indices=[12], out_features=None)
        vit = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone))
        contestants["VitPose-B (transformers), 256x192"] = _forward(vit, (1, 3, 256, 192), device)
    if find_spec("torchvision") is not None:
        from torchvision.models.detection import keypointrcnn_resnet50_fpn

        rcnn = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        contestants["keypoint R-CNN (torchvision), 640x480"] = _forward(rcnn, (1, 3, 480, 640), device)
    seconds = take_turns(contestants, max(1, command.rounds // 3))
    first = seconds["the default network"]
    note = "times as long as the default network"
    return [
        Row("peers", name, 1000 * value, "ms", value / first, note if value != first else "one crop")
        for name, value in seconds.items()
    ]


def _forward(model: Any, shape: tuple[int, ...], device: Any) -> Callable[[], object]:
    import torch

    model = model.to(device).eval()
    images = torch.zeros(shape, device=device)

    def run() -> None:
        with torch.inference_mode():
            model(images)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:6.2f}  "
    return f"{row.part:10}  {row.what:46}  {row.value:9.4g} {row.unit:12}{ratio}{row.note}"


MEASURES: dict[Part, Callable[[BenchmarkCommand], list[Row]]] = {
    "networks": _networks,
    "pictures": _pictures,
    "start": _start,
    "training": _training,
    "loader": _loader,
    "evaluation": _evaluation,
    "peers": _peers,
}
