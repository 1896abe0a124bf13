"""Getting weights over a network that may be slow, blocked, or not there, in bounded time."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from diffusionpose.errors import InputError, atomically, install, needs_extra
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.networks import find_device
from diffusionpose.runtime.people import MAX_PERSONS, MIN_SCORE, SIMPLE, PersonDetector

REACH_SECONDS = 4.0  # a server that takes longer for a first answer counts as out of reach
STALL_SECONDS = 15.0  # and a download that brings nothing for so long as broken
Tell = Callable[[str], None]  # takes words for the user
OFFLINE = "HF_HUB_OFFLINE"  # the hub's own switch; here it stands for every download


def out_of_reach(url: str, seconds: float = REACH_SECONDS) -> str | None:
    """Why a server cannot be asked now, or None where it answers, be it with an error.

    Takes ``seconds`` at most, also where looking up the name hangs, which no timeout of a socket ends.
    """
    if os.environ.get(OFFLINE, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
        return f"{OFFLINE} is set"
    answers: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            answers.append(None)
        except urllib.error.HTTPError:
            answers.append(None)  # it is there
        except Exception as error:  # whatever sockets, TLS and proxies raise
            answers.append(str(getattr(error, "reason", error)) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)  # daemon: one that hangs shall not keep the program
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"no answer within {seconds:g} s"


def download(url: str, path: Path, sha256: str = "") -> None:
    """Bring a file, whole or not at all.

    Args:
        url: of the file.
        path: where to; its folder is made.
        sha256: how the checksum of the file must begin, in hexadecimal digits.

    Raises:
        OSError: the network or the disk fails, or the checksum is another.
    """

    def fill(part: Path) -> None:
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=STALL_SECONDS) as source, part.open("wb") as target:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
        if not digest.hexdigest().startswith(sha256):
            raise OSError(f"{url} came with another checksum than {sha256}...; try again")

    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, fill)


# What detector networks share: one picture or many, and which of the boxes they find are persons to pose

PERSON = "person"  # as COCO calls it, and with it all detectors here
# Boxes whose IoU is above are one person found twice. Measured: of 8,905 persons annotated in CrowdPose's and
# COCO's val, 34 (0.4 %) overlap so far with another, nearly all of them in crowds.
SAME_PERSON = 0.8
LEAST_SIDE = 1.0  # pixels; a box any thinner holds no body


class NetworkDetector(PersonDetector):
    """A network that finds persons.

    Attributes:
        batch_size: pictures that :meth:`detect` passes through the network together.
        min_score: boxes with a lower score are left out.
        max_persons: of the others, so many with the highest scores are kept.
    """

    _model: Any

    def __init__(self, min_score: float = MIN_SCORE, max_persons: int = MAX_PERSONS) -> None:
        self.min_score = min_score
        self.max_persons = max_persons

    def detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Persons of each picture, as of each alone; ``batch_size`` pictures at a time."""
        answers: list[Boxes] = []
        for first in range(0, len(images), self.batch_size):
            batch = images[first : first + self.batch_size]
            with torch.inference_mode():
                found = self._find(batch)
            answers += [
                self._persons(*boxes, image.shape[1], image.shape[0])
                for boxes, image in zip(found, batch, strict=True)
            ]
        return answers

    def identity(self) -> str:
        """Its class, and SHA-256 of its network's weights."""
        digest = hashlib.sha256()
        for name, values in self._model.state_dict().items():
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        return f"{type(self).__name__} {digest.hexdigest()}"

    @abstractmethod
    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """All boxes of the class "person": (n, 4) xyxy in image pixels and (n,) scores, for each picture."""

    def _persons(self, boxes: torch.Tensor, scores: torch.Tensor, width: int, height: int) -> Boxes:
        """The boxes to pose: sure enough, cut at the picture's edge, each person once, surest first."""
        boxes, scores = boxes.detach().float().cpu(), scores.detach().float().cpu()
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        good = (scores >= self.min_score) & ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE).all(dim=1)
        boxes, scores = boxes[good], scores[good]
        kept = nms(boxes, scores, SAME_PERSON)[: self.max_persons]
        return boxes[kept].numpy(), scores[kept].numpy()


# torchvision's object detectors (BSD-3-Clause), trained on COCO

SUFFIXES = (".pth", ".pt", ".safetensors")
COCO_LABELS = "labels of COCO, 91 with the background"


def architectures() -> list[str]:
    """Names of torchvision's detectors whose trained weights know persons."""
    from torchvision import models

    return [
        name for name in models.list_models(models.detection) if PERSON in _weights(name).meta["categories"]
    ]


def architecture_of(path: Path) -> str | None:
    """The detector that a file of weights is of, told by the beginning of its name."""
    fitting = [name for name in architectures() if path.name.startswith(name)]
    return max(fitting, key=len, default=None)


def cached_weights(name: str) -> Path:
    """Where torchvision keeps the weights of a detector, whether they are there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_weights(name).url).name


def fetch(name: str, tell: Tell) -> Path:
    """The file with a detector's weights: from torchvision's cache, else downloaded into it, which is told.

    Raises:
        InputError: it is not in the cache and cannot be downloaded.
    """
    path, url = cached_weights(name), _weights(name).url
    if path.is_file():
        return path
    cure = f"download {url} elsewhere and give it to --detector, give --boxes FILE, or --detector whole"
    reason = out_of_reach(url)
    if reason is not None:
        raise InputError(f"detector {name}: not in {path.parent}, and {url}: {reason}; {cure}")
    megabytes = _weights(name).meta["_file_size"] * 1.048576  # torchvision gives MiB
    tell(f"downloading {name}, {megabytes:.0f} MB, for this and later times")
    try:
        download(url, path, sha256=path.stem.rpartition("-")[2])
    except OSError as error:
        raise InputError(f"detector {name}: {url} cannot be downloaded ({error}); {cure}") from error
    return path


class TorchvisionDetector(NetworkDetector):
    """One of torchvision's detectors, of which the class "person" is used.

    Pictures go through it one by one: it would pad those of a batch to one size, which changes what is
    found in them.

    Args:
        name: as torchvision names it, such as "fasterrcnn_mobilenet_v3_large_fpn".
        weights: a file with its state dict.
        device: as PyTorch names it, or "auto".
        min_score, max_persons: as of :class:`NetworkDetector`.

    Raises:
        InputError: no such detector, or a file that cannot be read or does not fit it.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path,
        device: str = "auto",
        *,
        min_score: float = MIN_SCORE,
        max_persons: int = MAX_PERSONS,
    ) -> None:
        super().__init__(min_score, max_persons)
        from torchvision import models

        if name not in architectures():
            raise InputError(f"detector {name!r}: not one of torchvision's: {', '.join(architectures())}")
        categories = _weights(name).meta["categories"]
        self._label = categories.index(PERSON)
        self._model = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
        try:
            self._model.load_state_dict(_read(Path(weights)))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(
                f"{weights}: does not fit torchvision's {name} with the {COCO_LABELS} "
                f"({str(error).splitlines()[0]}); is the name of the file that of the detector?"
            ) from error
        self.device = find_device(device)
        self._model.to(self.device).eval()

    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        answers = []
        for image in images:
            pixels = (
                torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1).float() / 255
            )
            (found,) = self._model([pixels])
            persons = found["labels"] == self._label
            answers.append((found["boxes"][persons], found["scores"][persons]))
        return answers


def _weights(name: str) -> Any:
    from torchvision import models

    return models.get_model_weights(name).DEFAULT


def _read(path: Path) -> dict[str, torch.Tensor]:
    """A state dict; nothing in the file can run."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except Exception as error:  # a damaged or foreign file raises anything
        reason = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"{path}: not a state dict that can be read ({reason[0]}); download it again"
        ) from error


# RT-DETR, D-FINE and other object detectors of the transformers library (Apache-2.0)

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")  # of a detector, here and on the hub
GPU_BATCH = 8


class TransformersDetector(NetworkDetector):
    """An object detector in the format of transformers, of which the class "person" is used.

    Args:
        folder: holds config.json, preprocessor_config.json and model.safetensors.
        device: as PyTorch names it, or "auto".
        min_score, max_persons: as of :class:`NetworkDetector`.
        name: what to call it in errors; None for the folder's own.

    Raises:
        InputError: transformers is not installed, a file is missing or damaged, the model is no object
            detector, its weights are not whole, or it knows no class "person".
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "auto",
        *,
        min_score: float = MIN_SCORE,
        max_persons: int = MAX_PERSONS,
        name: str | None = None,
    ) -> None:
        super().__init__(min_score, max_persons)
        folder, name = Path(folder), name or str(folder)
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise InputError(
                f"detector {name}: {folder} holds no {', '.join(missing)}; give a "
                "folder that transformers' save_pretrained wrote for a detector and its image processor"
            )
        self._processor, self._model = _load(folder, name)
        self._labels = _person_labels(self._model.config.id2label, name)
        self.device = find_device(device)
        self._model.to(self.device).eval()
        size = dict(self._processor.size)
        # pictures of one size need no padding, without which one of a batch is found as it is alone
        alike = {"height", "width"} <= size.keys() and not getattr(self._processor, "do_pad", False)
        self.batch_size = GPU_BATCH if alike and self.device.type != "cpu" else 1

    def _find(self, images: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        # named, as a picture three pixels high could be taken for one with its channels first
        inputs = self._processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
        outputs = self._model(**inputs.to(self.device))
        sizes = [image.shape[:2] for image in images]
        found = self._processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        answers = []
        for one in found:
            persons = torch.isin(one["labels"], torch.tensor(self._labels, device=one["labels"].device))
            answers.append((one["boxes"][persons], one["scores"][persons]))
        return answers


def in_hub_cache(repository: str) -> Path | None:
    """The folder of a hub repository in the local cache, if all files of a detector are there."""
    from huggingface_hub import hf_hub_download

    try:
        files = [hf_hub_download(repository, file, local_files_only=True) for file in FILES]
    except Exception:  # LocalEntryNotFoundError, or a name that cannot be a repository's
        return None
    return Path(files[0]).parent


def fetch_transformers_models(repository: str, megabytes: int | None, tell: Tell) -> Path:
    """The folder of a hub repository: from the local cache, else downloaded into it, which is told.

    Args:
        repository: its id.
        megabytes: of the download, if known.
        tell: is told of the download.

    Raises:
        InputError: it is not in the cache, and the hub cannot be reached or does not give it.
    """
    cached = in_hub_cache(repository)
    if cached is not None:
        return cached
    from huggingface_hub import constants, hf_hub_download

    cure = "give --boxes FILE, a folder with a detector, or --detector whole"
    reason = out_of_reach(constants.ENDPOINT)
    if reason is not None:
        raise InputError(
            f"detector {repository}: not in the local cache, and {constants.ENDPOINT}: {reason}; {cure}"
        )
    size = "" if megabytes is None else f"{megabytes} MB, "
    tell(f"downloading {repository}, {size}for this and later times")
    try:
        files = [hf_hub_download(repository, file) for file in FILES]
    except Exception as error:  # whatever the network, the hub or the disk may raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"detector {repository}: not to be had from the hub ({lines[0]}); {cure}") from error
    return Path(files[0]).parent


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    """Image processor and model from a folder."""
    with needs_extra("detect", f"detector {name}: needs transformers"):
        from transformers import AutoImageProcessor, AutoModelForObjectDetection
    try:
        with _quiet():
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            model, facts = AutoModelForObjectDetection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # a damaged file, or a model of another kind, raises anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"detector {name}: {folder} holds no object detector that can be used ({lines[0]})"
        ) from error
    lacking = sorted(facts["missing_keys"]) + sorted(str(key) for key in facts["mismatched_keys"])
    if lacking:
        raise InputError(
            f"detector {name}: {folder / FILES[2]} lacks {len(lacking)} weights of the model "
            f"({lacking[0]}, ...); give the file of a trained detector"
        )
    return processor, model.float()  # files of half precision stay so, and pictures come as float32


def _person_labels(classes: dict[int, str], name: str) -> list[int]:
    """Numbers of the class "person"."""
    labels = [int(number) for number, label in classes.items() if str(label).lower() == PERSON]
    if not labels:
        some = ", ".join(str(label) for label in list(classes.values())[:5])
        raise InputError(
            f'detector {name}: none of its {len(classes)} classes is "{PERSON}" (it knows {some}, ...); '
            "give a detector that was trained on persons, or correct id2label in its config.json"
        )
    return labels


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bars and warnings: what matters is checked and raised here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# Which detector a name stands for

# Short name -> hub repository and its download in MB. AP on COCO val2017, all classes, by their papers:
HUB = {
    "dfine": ("ustc-community/dfine-small-coco", 42),  # 48.5 with 25 GFLOPs a picture
    "rtdetr": ("PekingU/rtdetr_v2_r18vd", 81),  # 48.1 with 60 GFLOPs
}
TORCHVISION = {"fasterrcnn": "fasterrcnn_mobilenet_v3_large_fpn"}  # 32.8 with 4.5 GFLOPs (torchvision)
KNOWN = (*HUB, *TORCHVISION)


def load_detector(
    name: str,
    device: str = "auto",
    *,
    min_score: float = MIN_SCORE,
    max_persons: int = MAX_PERSONS,
    tell: Tell | None = None,
) -> PersonDetector:
    """A detector network of torchvision or transformers.

    Weights are taken from the caches of the hub and of torchvision; those that are not there are downloaded,
    and kept there. ``HF_HUB_OFFLINE=1`` in the environment forbids it.

    Args:
        name: "rtdetr", "dfine" or "fasterrcnn"; a detector of torchvision by its own name, or a file with its
            weights whose name begins with that (as torchvision names them); a folder with a detector in the
            format of transformers, or the id of such a repository on the hub.
        device: as PyTorch names it, or "auto" (a GPU where there is one).
        min_score: of the box, from which on a person counts as found.
        max_persons: so many at most in a picture, those with the highest scores.
        tell: is told, in words for the user, of a download; None for the log.

    Raises:
        InputError: a name that stands for nothing, or a detector that cannot be had; how it can is said.
    """
    options: dict[str, Any] = {"device": device, "min_score": min_score, "max_persons": max_persons}
    return _named(name, options, tell or logging.getLogger(__name__).warning)


def _has_transformers() -> bool:
    return find_spec("transformers") is not None


def _named(name: str, options: dict[str, Any], tell: Tell) -> NetworkDetector:
    """The network that a name stands for."""
    path = Path(name).expanduser()
    if path.is_dir():
        return TransformersDetector(path, **options)
    if path.suffix in SUFFIXES:
        return _from_file(path, options)
    architecture = TORCHVISION.get(name, name)
    if architecture in architectures():
        return TorchvisionDetector(architecture, fetch(architecture, tell), **options)
    repository, size = HUB.get(name, (name, None))
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InputError(
            f"--detector {name}: no such detector, folder or file; give {', '.join(SIMPLE)}, "
            f"{', '.join(KNOWN)}, a name of torchvision's, a folder, or a hub id like {HUB['rtdetr'][0]}"
        )
    if not _has_transformers():
        raise InputError(f"detector {name}: needs transformers; install it: {install('detect')}")
    return TransformersDetector(fetch_transformers_models(repository, size, tell), **options, name=name)


def _from_file(path: Path, options: dict[str, Any]) -> NetworkDetector:
    """A detector of torchvision with the weights of a file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    architecture = architecture_of(path)
    if architecture is None:
        known = ", ".join(architectures())
        raise InputError(
            f"{path}: its name does not begin with that of a detector of torchvision; rename it ({known})"
        )
    return TorchvisionDetector(architecture, path, **options)
