"""Models on the Hugging Face hub, or in a folder laid out as there: weights, config.json, a model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusionpose
from diffusionpose.errors import InputError
from diffusionpose.files import atomically, make_writable

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
    from diffusionpose.models.weights import save_model

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
