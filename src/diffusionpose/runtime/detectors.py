"""Person detectors of other projects (extra ``detect``): torchvision's, and those in transformers' format.

PyTorch and the libraries are imported when a detector is made.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.errors import InputError, first_line, install, needs_extra
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.networks import find_device
from diffusionpose.runtime.people import MAX_PERSONS, MIN_SCORE, SIMPLE, PersonDetector, suppress_overlaps

if TYPE_CHECKING:
    import torch

# Short name -> hub repository and its download in MB. AP on COCO val2017, all classes, by their papers:
HUB = {
    "dfine": ("ustc-community/dfine-small-coco", 42),  # 48.5 with 25 GFLOPs a picture
    "rtdetr": ("PekingU/rtdetr_v2_r18vd", 81),  # 48.1 with 60 GFLOPs
}
TORCHVISION = {"fasterrcnn": "fasterrcnn_mobilenet_v3_large_fpn"}  # 32.8 with 4.5 GFLOPs (torchvision)
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")  # of a detector, here and on the hub
PERSON = "person"  # as COCO calls it, and with it all detectors here
# Boxes whose IoU is above are one person found twice. Measured: of 8,905 persons annotated in CrowdPose's and
# COCO's val, 34 (0.4 %) overlap so far with another, nearly all of them in crowds.
SAME_PERSON = 0.8
LEAST_SIDE = 1.0  # pixels; a box any thinner holds no body
REACH_SECONDS = 4.0  # a server that takes longer for a first answer counts as out of reach
OFFLINE = "HF_HUB_OFFLINE"  # the hub's own switch; here it stands for every download
Tell = Callable[[str], None]  # takes words for the user


class NetworkDetector(PersonDetector):
    """A network of PyTorch that finds persons, ``max_persons`` of those with ``min_score`` or more."""

    _model: Any

    def __init__(self, min_score: float = MIN_SCORE, max_persons: int = MAX_PERSONS) -> None:
        self.min_score = min_score
        self.max_persons = max_persons

    def __call__(self, image: np.ndarray) -> Boxes:
        """Those that are sure enough, cut at the picture's edge, each person once, surest first."""
        import torch

        with torch.inference_mode():
            boxes, scores = self._find(image)
        height, width = image.shape[:2]
        found = boxes.float().cpu().numpy().clip(0, np.array([width, height] * 2, np.float32))
        sure = scores.float().cpu().numpy()
        good = (sure >= self.min_score) & (found[:, 2:] - found[:, :2] >= LEAST_SIDE).all(axis=1)
        found, sure = found[good], sure[good]
        kept = suppress_overlaps(found, sure, SAME_PERSON)[: self.max_persons]
        return found[kept], sure[kept]

    def identity(self) -> str:
        """Its class, and SHA-256 of its network's weights."""
        digest = hashlib.sha256()
        for name, values in self._model.state_dict().items():
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        return f"{type(self).__name__} {digest.hexdigest()}"

    @abstractmethod
    def _find(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """All boxes of the class "person": (n, 4) xyxy in image pixels, and (n,) scores."""


class TorchvisionDetector(NetworkDetector):
    """One of torchvision's detectors (BSD-3-Clause), of which the class "person" is used.

    Its weights come from torchvision's cache, or are downloaded into it, which ``tell`` is told. ``name`` is
    torchvision's, such as "fasterrcnn_mobilenet_v3_large_fpn"; ``device`` and ``options`` as of
    :func:`load_detector`. InputError where the weights cannot be had.
    """

    def __init__(self, name: str, device: str, *, tell: Tell, **options: Any) -> None:
        super().__init__(**options)
        import torch
        from torchvision import models

        weights = models.get_model_weights(name).DEFAULT
        url, categories = weights.url, weights.meta["categories"]
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        cure = f"download it elsewhere into {path.parent}, give --boxes FILE, or --detector whole"
        if not path.is_file():
            if reason := out_of_reach(url):
                raise InputError(f"detector {name}: no {path}, and {url}: {reason}; {cure}")
            megabytes = weights.meta["_file_size"] * 1.048576  # torchvision gives MiB
            tell(f"downloading {name}, {megabytes:.0f} MB, for this and later times")
        self._label = categories.index(PERSON)
        self._model = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
        try:
            state = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
            self._model.load_state_dict(state)
        except Exception as error:  # the network, the disk, another checksum, or a damaged file in the cache
            raise InputError(
                f"detector {name}: {path} cannot be had ({first_line(error)}); {cure}"
            ) from error
        self.device = find_device(device)
        self._model.to(self.device).eval()

    def _find(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        from torchvision.transforms.functional import to_tensor

        (found,) = self._model([to_tensor(image).to(self.device)])
        persons = found["labels"] == self._label
        return found["boxes"][persons], found["scores"][persons]


class TransformersDetector(NetworkDetector):
    """An object detector in the format of transformers (RT-DETR, D-FINE, ...): its class "person".

    Args:
        folder: holds ``FILES``.
        device, options: as of :func:`load_detector`.
        name: what to call it in errors; None for the folder's own.

    Raises:
        InputError: transformers is not installed, a file is missing or damaged, the model is no object
            detector, its weights are not whole, or it knows no class "person".
    """

    def __init__(
        self, folder: str | Path, device: str = "auto", *, name: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        folder, name = Path(folder), name or str(folder)
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise InputError(
                f"detector {name}: {folder} holds no {', '.join(missing)}; give a "
                "folder that transformers' save_pretrained wrote for a detector and its image processor"
            )
        self._processor, self._model = _load(folder, name)
        classes = self._model.config.id2label
        self._labels = [int(number) for number, label in classes.items() if str(label).lower() == PERSON]
        if not self._labels:
            some = ", ".join(str(label) for label in list(classes.values())[:5])
            raise InputError(
                f'detector {name}: none of its {len(classes)} classes is "{PERSON}" (it knows {some}, ...); '
                "give a detector that was trained on persons, or correct id2label in its config.json"
            )
        self.device = find_device(device)
        self._model.to(self.device).eval()

    def _find(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        # named, as a picture three pixels high could be taken for one with its channels first
        inputs = self._processor(images=[image], return_tensors="pt", input_data_format="channels_last")
        outputs = self._model(**inputs.to(self.device))
        (found,) = self._processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[image.shape[:2]]
        )
        persons = torch.isin(found["labels"], torch.tensor(self._labels, device=found["labels"].device))
        return found["boxes"][persons], found["scores"][persons]


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
        raise InputError(
            f"detector {name}: {folder} holds no object detector that can be used ({first_line(error)})"
        ) from error
    lacking = sorted(facts["missing_keys"]) + sorted(str(key) for key in facts["mismatched_keys"])
    if lacking:
        raise InputError(
            f"detector {name}: {folder / FILES[2]} lacks {len(lacking)} weights of the model "
            f"({lacking[0]}, ...); give the file of a trained detector"
        )
    return processor, model.float()  # files of half precision stay so, and pictures come as float32


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


# --- which detector a name stands for, and its weights ---


def load_detector(name: str, device: str, *, tell: Tell, **options: Any) -> PersonDetector:
    """A detector network of torchvision or transformers; InputError says how it can be had.

    Weights are taken from the caches of the hub and of torchvision; those that are not there are downloaded,
    which ``tell`` is told, and kept there. ``HF_HUB_OFFLINE=1`` in the environment forbids it.

    Args:
        name: "rtdetr", "dfine" or "fasterrcnn"; a detector of torchvision by its own name; a folder with a
            detector in the format of transformers, or the id of such a repository on the hub.
        device: as PyTorch names it, or "auto" (a GPU where there is one).
        tell: takes words for the user.
        options: of :class:`NetworkDetector`.
    """
    with needs_extra("detect", f"detector {name}: needs PyTorch"):
        import torchvision  # noqa: F401
    path = Path(name).expanduser()
    if path.is_dir():
        return TransformersDetector(path, device, **options)
    architecture = TORCHVISION.get(name, name)
    if architecture in architectures():
        return TorchvisionDetector(architecture, device, tell=tell, **options)
    repository, size = HUB.get(name, (name, None))
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InputError(
            f"--detector {name}: no such detector, folder or file; give {', '.join(SIMPLE)}, "
            f"{', '.join((*HUB, *TORCHVISION))}, a name of torchvision's, a folder, or a hub id like "
            f"{HUB['rtdetr'][0]}"
        )
    if find_spec("transformers") is None:
        raise InputError(f"detector {name}: needs transformers; install it: {install('detect')}")
    folder = fetch_transformers_model(repository, size, tell)
    return TransformersDetector(folder, device, name=name, **options)


def architectures() -> list[str]:
    """Names of torchvision's detectors whose trained weights know persons."""
    from torchvision import models

    return [
        name
        for name in models.list_models(models.detection)
        if PERSON in models.get_model_weights(name).DEFAULT.meta["categories"]
    ]


def fetch_transformers_model(repository: str, megabytes: int | None, tell: Tell) -> Path:
    """The folder of a hub repository: from the local cache, else downloaded into it, which is told."""
    from huggingface_hub import constants, hf_hub_download

    try:
        files = [hf_hub_download(repository, file, local_files_only=True) for file in FILES]
        return Path(files[0]).parent
    except Exception:  # LocalEntryNotFoundError, or a name that cannot be a repository's
        reason = out_of_reach(constants.ENDPOINT)
    cure = "give --boxes FILE, a folder with a detector, or --detector whole"
    if reason is not None:
        raise InputError(
            f"detector {repository}: not in the local cache, and {constants.ENDPOINT}: {reason}; {cure}"
        )
    size = "" if megabytes is None else f"{megabytes} MB, "
    tell(f"downloading {repository}, {size}for this and later times")
    try:
        files = [hf_hub_download(repository, file) for file in FILES]
        return Path(files[0]).parent
    except Exception as error:  # whatever the network, the hub or the disk may raise
        raise InputError(
            f"detector {repository}: not to be had from the hub ({first_line(error)}); {cure}"
        ) from error


def out_of_reach(url: str) -> str | None:
    """Why a server cannot be asked now, or None where it answers, be it with an error."""
    if os.environ.get(OFFLINE, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
        return f"{OFFLINE} is set"
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except Exception as error:  # whatever sockets, TLS and proxies raise
        return str(getattr(error, "reason", error)) or type(error).__name__
    return None
