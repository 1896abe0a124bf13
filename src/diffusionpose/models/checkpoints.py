"""Trained models: files of weights, folders and repositories of the Hugging Face hub.

A checkpoint is a safetensors file whose metadata tell how to make the model again. It may come from anywhere:
what its metadata name is checked against ``zoo.OPTIONS`` and against the shapes in the file before anything
is built, and loading it reaches neither the network nor another file.
"""

import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import Tensor

import diffusionpose
from diffusionpose.bundled import DEFAULT_MODEL, FOLDER, bundled_models
from diffusionpose.calibration import find_calibration
from diffusionpose.errors import InputError, write_file
from diffusionpose.json_files import write_json
from diffusionpose.models.imports.convert import import_vitpose
from diffusionpose.models.imports.reading import read_config
from diffusionpose.models.pose_model import PoseModel
from diffusionpose.models.weight_files import read_safetensors, write_safetensors
from diffusionpose.models.zoo import check_options, create_model
from diffusionpose.skeletons import Skeleton

METADATA_KEY = "diffusionpose"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar"}
EXPORTED = {".onnx", ".xml"}
RUN_FILES = ("best.safetensors", WEIGHTS)  # of a run folder, the first that is there


def load_model(
    weights: str | Path | None = None, device: str | torch.device = "cpu", skeleton: Skeleton | None = None
) -> PoseModel:
    """A trained model, in evaluation mode.

    Args:
        weights: None for the default bundled model, the name of a bundled model, a .safetensors file, a run
            folder (its best checkpoint, else its newest), the id of a hub repository, or a folder or hub id
            of transformers' ViTPose.
        device: where to put it.
        skeleton: when given, the joints the model must have.

    Raises:
        InputError: no such weights, a file cut short or damaged, a pickle, an exported file, or another
            skeleton; the message names the file and the cure.
    """
    path = find_weights(weights)
    if path.suffix in EXPORTED:
        raise InputError(
            f"{path}: an exported file has no weights to train on, and is no PyTorch model; "
            "give the .safetensors file it was made from"
        )
    tensors, facts = read_safetensors(path)
    if METADATA_KEY in facts:
        model = _rebuild(path, facts[METADATA_KEY], tensors)
        if (fitted := find_calibration(path, model.skeleton)) is not None:
            model.config["calibration"] = fitted.to_dict()
    elif read_config(path).get("model_type") == "vitpose":
        model = import_vitpose(path, skeleton)
    elif {"mean", "std"} <= facts.keys():
        raise InputError(f"{path}: weights of an encoder alone; give them to --encoder-weights of a training")
    else:
        raise InputError(
            f"{path}: safetensors without this package's metadata, so the model is unknown; "
            "give a file that save_model wrote, or make one by `diffusionpose import-weights`"
        )
    if skeleton is not None and model.skeleton.joints != skeleton.joints:
        raise InputError(
            f"{path}: made for the {model.skeleton.num_joints} joints of {model.skeleton.name!r}, "
            f"not for the {skeleton.num_joints} of {skeleton.name!r}; give weights of this skeleton"
        )
    return model.to(device).eval()


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
            f"{path}: a pickle, which can run code when it is opened, is not loaded; give a .safetensors "
            "file or a run folder (`diffusionpose import-weights` makes one of a file of another project)"
        )
    if path.is_file():
        return path
    like_a_path = name.startswith((".", "/", "~")) or path.suffix in {".safetensors", *EXPORTED}
    if name.count("/") == 1 and not like_a_path:
        return download(name)
    known = ", ".join(bundled_models()) or "none"
    raise InputError(f"{name}: no such file, run folder or bundled model (bundled: {known})")


def _rebuild(path: Path, text: str, tensors: dict[str, Tensor]) -> PoseModel:
    """The model that metadata describe, with the weights of the file."""
    try:
        config = json.loads(text)
        name, options = config["name"], config["options"]
        skeleton = Skeleton.from_dict(config["skeleton"])
        check_options(name, options)
        with torch.device("meta"):  # shapes without numbers: what does not fit costs no memory
            expected = create_model(name, skeleton, **options).state_dict()
    except Exception as error:  # whatever damaged metadata may bring about
        raise InputError(
            f"{path}: its metadata are damaged, or of another version of this package ({error!r:.300}); "
            "copy the file again"
        ) from error
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if wrong := sorted(key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key)):
        raise InputError(
            f"{path}: does not fit the model its metadata names, {name}: {len(wrong)} weights are missing, "
            f"too many or of another shape, first {wrong[0]}; copy the file again"
        )
    model = create_model(name, skeleton, **options)
    model.load_state_dict(tensors)
    if "calibration" in config:
        model.config["calibration"] = config["calibration"]
    return model


def save_model(model: PoseModel, path: str | Path, half: bool = False, **facts: Any) -> None:
    """Write a model that :func:`load_model` reads back, whole or not at all.

    Args:
        model: made by ``create_model``.
        path: of the .safetensors file.
        half: store matrices and kernels as float16; norms and biases stay float32.
        facts: anything JSON can hold, kept in the metadata (such as the epoch).

    Raises:
        InputError: the file cannot be written.
    """
    tensors = {
        name: value.half() if half and value.is_floating_point() and value.ndim >= 4 else value
        for name, value in model.state_dict().items()
    }
    write_safetensors(Path(path), tensors, {METADATA_KEY: json.dumps({**model.config, "facts": facts})})


# --- folders and repositories of the hub: weights, config.json, a model card ---

FIRST_ANSWER = 10.0  # seconds that the hub has for its first answer; later requests are repeated for minutes
UNKNOWN_LICENCE = "unknown"  # as the hub calls it


def save_pretrained(
    model: PoseModel,
    folder: str | Path,
    metrics: Mapping[str, float] | None = None,
    licence: str = UNKNOWN_LICENCE,
    name: str | None = None,
) -> None:
    """Write ``model.safetensors``, ``config.json`` and a model card ``README.md`` into a folder.

    The weights hold the configuration as well; config.json is for people and for the hub, which counts
    downloads by it.

    Args:
        model: made by ``create_model`` or loaded from weights.
        folder: made where it is not there; these three files in it are replaced.
        metrics: results by name, for the card's table.
        licence: of the weights, as the hub names it ("apache-2.0", "cc-by-4.0", "other", ...).
        name: by which the card loads the model: a hub id; the folder where there is none.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = Path(folder)
    config = {"library": "diffusionpose", "version": diffusionpose.__version__, **model.config}
    card = _card(model, name or str(folder), metrics or {}, licence)
    write_json(folder / CONFIG, config)
    write_file(folder / CARD, card.encode())
    save_model(model, folder / WEIGHTS)


def push_to_hub(
    model: PoseModel, repository: str, private: bool = False, token: str | None = None, **card: Any
) -> str:
    """Upload what :func:`save_pretrained` writes to a hub repository; the address of the commit.

    Args:
        model, card: as of :func:`save_pretrained`: metrics and licence.
        repository: its id, ``name/model``; it is made where there is none.
        private: whether a new repository is to be private.
        token: with the right to write; None takes the one of ``hf auth login``.

    Raises:
        InputError: no id, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    if repository.count("/") != 1:
        raise InputError(f"{repository}: is no id of a hub repository; give name/model")
    api, message = HfApi(token=token), f"Upload of {model.config['name']}"
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, name=repository, **card)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        except Exception as error:  # whatever the network or the hub may raise
            raise InputError(
                f"{repository}: could not be uploaded ({_reason(error)}); log in by `hf auth login` with a "
                "token that may write there"
            ) from error
    return str(commit.commit_url)


def download(repository: str) -> Path:
    """The weights of a hub repository, its config.json beside them; from the cache where there is no network.

    Raises:
        InputError: no such repository or file, or no way to the hub and nothing in the cache; after
            ``FIRST_ANSWER`` seconds at most.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        # asked once and first: the download itself would go on asking for minutes where there is no network
        get_hf_file_metadata(hf_hub_url(repository, WEIGHTS), timeout=FIRST_ANSWER)
        with suppress(EntryNotFoundError):  # only weights of other projects need it
            hf_hub_download(repository, CONFIG)
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
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _card(model: PoseModel, name: str, metrics: Mapping[str, float], licence: str) -> str:
    """The text of a model card: front matter for the hub, what the model is, and how to use it."""
    skeleton = model.skeleton
    options = {key: value for key, value in model.config["options"].items() if key != "input_size"}
    rows = "".join(f"| {metric} | {value:.4g} |\n" for metric, value in metrics.items())
    return Template(Path(__file__).with_name("card.md").read_text("utf-8")).substitute(
        quoted_licence=json.dumps(licence),  # also YAML's, so that no licence can break the rest
        title=name.rstrip("/").rpartition("/")[2],
        model=model.config["name"],
        input_size="x".join(map(str, model.input_size)),
        heatmap_size="x".join(map(str, model.heatmap_size)),
        geometry="unbiased" if model.unbiased else "biased",
        joints=f"{skeleton.num_joints} ({skeleton.name}): {', '.join(skeleton.joints)}",
        options=json.dumps(options) if options else "the defaults",
        parameters=f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        name=name,
        table=f"## Metrics\n\n| metric | value |\n|---|---|\n{rows}\n" if rows else "",
        licence="not stated" if licence == UNKNOWN_LICENCE else licence,
    )
