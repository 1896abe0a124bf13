"""Models on the Hugging Face hub, or in a folder laid out as there: weights, config.json, a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import diffusionpose
from diffusionpose.bundled import DEFAULT_MODEL, FOLDER, bundled_models
from diffusionpose.errors import InputError, atomically, make_writable
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.zoo import create_model
from diffusionpose.skeletons import Skeleton

if TYPE_CHECKING:
    from diffusionpose.models.pose_model import PoseModel

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FIRST_ANSWER = 10.0  # seconds that the hub has for its first answer; later requests are repeated for minutes
UNKNOWN_LICENCE = "unknown"  # as the hub calls it
CITATION = """@article{qiu2023diffusionpose,
  title   = {Learning Structure-Guided Diffusion Model for 2D Human Pose Estimation},
  author  = {Qiu, Zhongwei and Yang, Qiansheng and Wang, Jian and Wang, Xiyu and Xu, Chang and Fu, Dongmei and
             Yao, Kun and Han, Junyu and Ding, Errui and Wang, Jingdong},
  journal = {arXiv preprint arXiv:2306.17074},
  year    = {2023}
}"""


def save_folder(
    model: PoseModel,
    folder: str | Path,
    metrics: Mapping[str, float] | None = None,
    licence: str = UNKNOWN_LICENCE,
    name: str | None = None,
) -> None:
    """Write ``model.safetensors``, ``config.json`` and a model card ``README.md`` into a folder.

    The weights are float32 as they are, and hold the configuration as well; config.json is for people and for
    the hub, which counts downloads by it.

    Args:
        model: made by ``create_model`` or loaded from weights.
        folder: made where it is not there; these three files in it are replaced.
        metrics: results by name, for the card's table.
        licence: of the weights, as the hub names it ("apache-2.0", "cc-by-4.0", "other", ...).
        name: by which the card loads the model: a hub id; the folder where there is none.

    Raises:
        InputError: the model has no weights (an exported file), or the folder cannot be written to.
    """

    folder = Path(folder)
    if not model.config or next(model.parameters(), None) is None:
        raise InputError("this model has no weights to save; take the one it was exported from")
    config = {"library": "diffusionpose", "version": diffusionpose.__version__, **model.config}
    card = model_card(model, name or str(folder), metrics or {}, licence)
    try:
        make_writable(folder)
        for file, text in ((CONFIG, json.dumps(config, indent=2) + "\n"), (CARD, card)):
            _write(folder / file, text)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}); name another folder") from error
    save_model(model, folder / WEIGHTS)


def _write(path: Path, text: str) -> None:
    atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def push(
    model: PoseModel, repository: str, private: bool = False, token: str | None = None, **card: Any
) -> str:
    """Upload what :func:`save_folder` writes to a hub repository, which is made where there is none.

    Args:
        model: as of :func:`save_folder`.
        repository: its id, ``name/model``.
        private: whether a new repository is to be private.
        token: with the right to write; None takes the one of ``hf auth login``.
        card: metrics and licence of :func:`save_folder`.

    Returns:
        The address of the commit.

    Raises:
        InputError: no id, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    if repository.count("/") != 1:
        raise InputError(f"{repository}: is no id of a hub repository; give name/model")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_folder(model, folder, name=repository, **card)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=f"Upload of {model.config['name']}"
            )
        except Exception as error:  # whatever the network or the hub may raise
            raise InputError(
                f"{repository}: could not be uploaded ({_reason(error)}); log in by `hf auth login` with a "
                "token that may write there"
            ) from error
    return str(commit.commit_url)


def download(repository: str) -> Path:
    """The weights of a hub repository, from the cache where the hub cannot be reached.

    Raises:
        InputError: no such repository or file, or no way to the hub and nothing in the cache; after
            ``FIRST_ANSWER`` seconds at most.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # asked once and first: the download itself would go on asking for minutes where there is no network
        get_hf_file_metadata(hf_hub_url(repository, WEIGHTS), timeout=FIRST_ANSWER)
        return Path(hf_hub_download(repository, WEIGHTS))
    except Exception as error:  # whatever the network, the hub or the cache may raise
        answered = isinstance(error, (HfHubHTTPError, ValueError))
        cached = None if answered else try_to_load_from_cache(repository, WEIGHTS)
        if isinstance(cached, str):
            return Path(cached)
        raise InputError(
            f"{repository}: neither a file here nor to be had from the hub ({_reason(error)}); "
            "check the name and the network, and for a private one `hf auth login`"
        ) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0]}" if lines else "")


def model_card(model: PoseModel, name: str, metrics: Mapping[str, float], licence: str) -> str:
    """The text of a model card: front matter for the hub, what the model is, and how to use it."""
    skeleton, config = model.skeleton, model.config
    (width, height), (w, h) = model.input_size, model.heatmap_size
    options = {key: value for key, value in config["options"].items() if key != "input_size"}
    parts = [
        _front_matter(licence),
        f"# {name.rstrip('/').rpartition('/')[2]}\n",
        "2D human pose estimation with [DiffusionPose](https://arxiv.org/abs/2306.17074): "
        f"`{config['name']}`.\n",
        "| | |",
        "|---|---|",
        f"| input | one person's crop, {width}x{height} (width x height), RGB |",
        f"| heatmaps | {w}x{h}, {'unbiased' if model.unbiased else 'biased'} geometry |",
        f"| joints | {skeleton.num_joints} ({skeleton.name}): {', '.join(skeleton.joints)} |",
        f"| options | {json.dumps(options) if options else 'the defaults'} |",
        f"| parameters | {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M |\n",
        "```python\nfrom diffusionpose import PoseEstimator\n",
        f'estimator = PoseEstimator.from_pretrained("{name}")',
        'poses = estimator("photo.jpg", boxes=[[x0, y0, x1, y1]])  # one Pose for each box\n```\n',
    ]
    if metrics:
        parts += ["## Metrics\n", "| metric | value |", "|---|---|"]
        parts += [f"| {metric} | {value:.4g} |" for metric, value in metrics.items()]
        parts.append("")
    told = "not stated" if licence == UNKNOWN_LICENCE else licence
    parts += [f"## Licence\n\nOf the weights: {told}.\n", f"## Citation\n\n```bibtex\n{CITATION}\n```"]
    return "\n".join(parts) + "\n"


def _front_matter(licence: str) -> str:
    """What the hub reads: JSON strings are YAML as well, so that no licence can break the rest."""
    return (
        f"---\nlicense: {json.dumps(licence)}\nlibrary_name: diffusionpose\n"
        "pipeline_tag: keypoint-detection\ntags:\n- pose-estimation\n- diffusion\n---\n"
    )


# Checkpoints: a safetensors file whose metadata tells how to make the model again

METADATA_KEY = "diffusionpose"
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"}
EXPORTED = (".onnx", ".xml")
FILES = (".safetensors", *EXPORTED)  # a name that ends so is no repository of the hub
RUN_FILES = ("best.safetensors", WEIGHTS)  # of a run folder, the first that is there


def save_model(model: PoseModel, path: str | Path, half: bool = False, **facts: Any) -> None:
    """Write a model that :func:`load_model` reads back.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        model: made by ``create_model``.
        path: of the .safetensors file.
        half: store matrices and kernels as float16; norms and biases stay float32.
        facts: anything JSON can hold, kept in the metadata (such as the epoch).

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    tensors = {name: _stored(value, half) for name, value in model.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps({**model.config, "facts": facts})}
    write_safetensors(path, tensors, metadata)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; InputError where it cannot be written."""
    try:
        atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}); is the folder there, writable, not full?"
        ) from error


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() and value.ndim >= 4 else value


def load_model(
    weights: str | Path | None = None, device: str | torch.device = "cpu", skeleton: Skeleton | None = None
) -> PoseModel:
    """A trained model, in evaluation mode.

    Args:
        weights: None for the bundled model, the name of a bundled model, a .safetensors file, a run folder
            (its best checkpoint, else its newest), or the id of a hub repository.
        device: where to put it.
        skeleton: when given, the joints the model must have.

    Raises:
        InputError: no such weights, a file cut short, a pickle, an exported file (``load_network`` takes
            those), or another skeleton; the message names the file and the cure.
    """
    path = find_weights(weights)
    if path.suffix in EXPORTED:
        raise InputError(
            f"{path}: an exported file has no weights to train on, and is no PyTorch model; "
            "give the .safetensors file it was made from"
        )
    config, tensors = _read(path)
    _check_joints(path, config, skeleton)
    try:
        model = create_model(config["name"], Skeleton.from_dict(config["skeleton"]), **config["options"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, InputError) as error:
        raise InputError(f"{path}: does not fit the model its metadata names ({error})") from error
    return model.to(device).eval()


def _check_joints(path: Path, config: dict[str, Any], skeleton: Skeleton | None) -> None:
    """InputError where weights are not of the joints that are wanted."""
    if skeleton is not None and tuple(config["skeleton"]["joints"]) != skeleton.joints:
        raise InputError(
            f"{path}: made for the {len(config['skeleton']['joints'])} joints of "
            f"{config['skeleton']['name']!r}, not for the {skeleton.num_joints} of {skeleton.name!r}; "
            "give weights of this skeleton"
        )


def find_weights(weights: str | Path | None) -> Path:
    """The file that ``weights`` of :func:`load_model` stands for: .safetensors, or exported if named."""
    name = DEFAULT_MODEL if weights is None else str(weights)
    if name in bundled_models():
        return FOLDER / f"{name}.safetensors"
    path = Path(name)
    if path.is_dir():
        for file in RUN_FILES:
            if (path / file).is_file():
                return path / file
        raise InputError(f"{path}: holds none of {', '.join(RUN_FILES)}; has the run finished an epoch?")
    if path.suffix in PICKLES:
        raise InputError(
            f"{path}: a pickle, which can run code when it is opened, is not loaded; "
            "give a .safetensors file or a run folder (`diffusionpose import-weights` makes one of a file of "
            "another project)"
        )
    if path.is_file():
        return path
    if name.count("/") == 1 and path.suffix not in FILES and not name.startswith((".", "/", "~")):
        return download(name)
    known = ", ".join(bundled_models()) or "none"
    raise InputError(f"{name}: no such file, run folder or bundled model (bundled: {known})")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and weights of a checkpoint, float16 widened to float32."""
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file, perhaps cut short ({error}); copy it again"
        ) from error
    if METADATA_KEY not in metadata and {"mean", "std"} <= metadata.keys():
        raise InputError(f"{path}: weights of an encoder alone; give them to --encoder-weights of a training")
    try:
        config = json.loads(metadata[METADATA_KEY])
        config["skeleton"]["joints"], config["name"], config["options"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: safetensors without this package's metadata, so the model is unknown; "
            "give a file that save_model wrote, or make one by `diffusionpose import-weights`"
        ) from error
    return config, {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
