"""Person detectors in the format of transformers: D-FINE, RT-DETR and others (extra ``detect``).

PyTorch and transformers are imported when a detector is made.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffusionpose.errors import InputError, first_line, needs_extra
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.networks import find_device
from diffusionpose.runtime.people import MAX_PERSONS, MIN_SCORE, SIMPLE, PersonDetector, suppress_overlaps

# Short name -> hub repository and its download in MB. AP on COCO val2017, all classes, by their papers:
HUB = {
    "dfine": ("ustc-community/dfine-small-coco", 42),  # 48.5 with 25 GFLOPs a picture
    "rtdetr": ("PekingU/rtdetr_v2_r18vd", 81),  # 48.1 with 60 GFLOPs
}
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")  # of a detector, here and on the hub
PERSON = "person"  # as COCO calls it, and with it all detectors here
# Boxes whose IoU is above are one person found twice. Measured: of 8,905 persons annotated in CrowdPose's and
# COCO's val, 34 (0.4 %) overlap so far with another, nearly all of them in crowds.
SAME_PERSON = 0.8
LEAST_SIDE = 1.0  # pixels; a box any thinner holds no body
Tell = Callable[[str], None]  # takes words for the user


class TransformersDetector(PersonDetector):
    """An object detector in the format of transformers (RT-DETR, D-FINE, ...): its class "person".

    Args:
        folder: holds ``FILES``.
        device: as PyTorch names it, or "auto" (a GPU where there is one).
        name: what to call it in errors; None for the folder's own.
        min_score: of a box to be kept.
        max_persons: so many at most in a picture, the surest.

    Raises:
        InputError: transformers is not installed, a file is missing or damaged, the model is no object
            detector, its weights are not whole, or it knows no class "person".
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "auto",
        *,
        name: str | None = None,
        min_score: float = MIN_SCORE,
        max_persons: int = MAX_PERSONS,
    ) -> None:
        self.min_score, self.max_persons = min_score, max_persons
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

    def __call__(self, image: np.ndarray) -> Boxes:
        """Those that are sure enough, cut at the picture's edge, each person once, surest first."""
        boxes, scores = self._find(image)
        height, width = image.shape[:2]
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
        good = (scores >= self.min_score) & (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1)
        boxes, scores = boxes[good], scores[good]
        kept = suppress_overlaps(boxes, scores, SAME_PERSON)[: self.max_persons]
        return boxes[kept], scores[kept]

    def identity(self) -> str:
        """Its class, and SHA-256 of its network's weights."""
        digest = hashlib.sha256()
        for name, values in self._model.state_dict().items():
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        return f"{type(self).__name__} {digest.hexdigest()}"

    def _find(self, image: np.ndarray) -> Boxes:
        """All boxes of the class "person": (n, 4) xyxy in image pixels, and (n,) scores."""
        import torch

        # named, as a picture three pixels high could be taken for one with its channels first
        inputs = self._processor(images=[image], return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            outputs = self._model(**inputs.to(self.device))
        (found,) = self._processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[image.shape[:2]]
        )
        labels, boxes, scores = (found[name].cpu().numpy() for name in ("labels", "boxes", "scores"))
        persons = np.isin(labels, self._labels)
        return boxes[persons], scores[persons]


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


def load_detector(name: str, device: str, *, tell: Tell, **options: Any) -> PersonDetector:
    """The detector that a name stands for; InputError says how it can be had.

    Args:
        name: "rtdetr" or "dfine"; a folder with a detector in the format of transformers, or the id of such
            a repository on the hub.
        device, options: of :class:`TransformersDetector`.
        tell: is told of a download.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return TransformersDetector(path, device, **options)
    repository, megabytes = HUB.get(name, (name, None))
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InputError(
            f"--detector {name}: no such detector, folder or file; give {', '.join((*SIMPLE, *HUB))}, a "
            f"folder, or a hub id like {HUB['rtdetr'][0]}"
        )
    with needs_extra("detect", f"detector {name}: needs transformers"):
        import transformers  # noqa: F401  # before anything is downloaded
    return TransformersDetector(_fetch(repository, megabytes, tell), device, name=name, **options)


def _fetch(repository: str, megabytes: int | None, tell: Tell) -> Path:
    """The folder of a hub repository: from the local cache, else downloaded into it, which is told."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def folder(local: bool) -> Path:
        first, *_ = [hf_hub_download(repository, file, local_files_only=local) for file in FILES]
        return Path(first).parent

    try:
        return folder(local=True)
    except (LocalEntryNotFoundError, HFValidationError):
        size = "" if megabytes is None else f"{megabytes} MB, "
        tell(f"downloading {repository}, {size}for this and later times")
    try:
        return folder(local=False)
    except Exception as error:  # whatever the network, the hub or the disk may raise
        raise InputError(
            f"detector {repository}: not in the local cache, nor to be had from the hub "
            f"({first_line(error)}); give --boxes FILE, a folder with a detector, or --detector whole"
        ) from error
