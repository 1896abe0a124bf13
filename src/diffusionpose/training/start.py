"""The model a training starts from."""

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import load_model
from diffusionpose.models.diffusion_pose import DiffusionPose
from diffusionpose.models.encoders import RaisedEncoder, ViTEncoder
from diffusionpose.models.pose_model import HeatmapModel, PoseModel
from diffusionpose.models.zoo import create_model
from diffusionpose.training.settings import TrainingSettings

NOT_FETCHED = (
    "the ImageNet weights of {} cannot be fetched ({}); give a file of them by --encoder-weights, "
    "a model to start from by --weights, or --no-pretrained"
)


def starting_model(
    settings: TrainingSettings,
    weights: Path | str | None = None,
    encoder_weights: Path | None = None,
    resuming: bool = False,
) -> PoseModel:
    """The model of the settings, with its first weights: random ones come from ``settings.seed``.

    Args:
        weights: a model to go on from (fine-tuning), as ``load_model`` takes it; the joints may differ.
        encoder_weights: a safetensors file of ImageNet weights for the encoder.
        resuming: all weights come from a checkpoint afterwards, so none are fetched.

    Raises:
        InputError: weights that cannot be read or fetched, or do not fit.
    """
    fetch = settings.pretrained and not (resuming or weights or encoder_weights)
    torch.manual_seed(settings.seed)
    try:
        model = create_model(
            settings.model,
            settings.skeleton,
            pretrained=fetch,
            encoder_weights=None if resuming else encoder_weights,
            input_size=settings.input_size,
            unbiased=settings.unbiased,
            **settings.options,
        )
    except Exception as error:
        if isinstance(error, InputError) or not fetch:
            raise
        raise InputError(NOT_FETCHED.format(settings.model, error)) from error
    if weights is not None and not resuming:
        _take_weights(model, load_model(weights), weights)
    return model


def _take_weights(model: PoseModel, source: PoseModel, name: Path | str) -> None:
    """Copy every weight of the same name and shape; the rest (another skeleton's output) stays as it is.

    A vision transformer's positions are resampled to the model's input size.
    """
    own, given = model.state_dict(), renamed(source, model)
    old, new = source.encoder.innermost, model.encoder.innermost
    if isinstance(old, ViTEncoder) and isinstance(new, ViTEncoder):
        for key in [key for key in given if key.endswith("backbone.pos_embed")]:
            given[key] = new.positions(given[key], old.grid)
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    if not any(key.startswith("encoder.") for key in fitting):
        raise InputError(
            f"{name}: no weight of its encoder fits {model.config['name']}; "
            "give a model with the same encoder to --weights"
        )
    model.load_state_dict(fitting, strict=False)
    if left := sorted(own.keys() - fitting.keys()):
        tqdm.write(f"{name}: {len(fitting)} of {len(own)} weights taken; new: {', '.join(left[:4])} ...")


def renamed(source: PoseModel, model: PoseModel) -> dict[str, Tensor]:
    """Weights of ``source`` under the names of ``model``, of which either may be DiffusionPose.

    A heatmap model lies inside DiffusionPose on the same encoder: its head is conv (Eq. 10) on x_fea, and
    deconvolutions before that (ViTPose's) are the neck that raises the encoder to stride 4. Of ViTPose with
    the simple decoder only the encoder is the same.
    """
    places: dict[str, str] = {}  # how names start -> how they start in the other
    if isinstance(source, HeatmapModel) and isinstance(model, DiffusionPose):
        places = _places(source, model)
    elif isinstance(source, DiffusionPose) and isinstance(model, HeatmapModel):
        places = {new: old for old, new in _places(model, source).items()}
    named = {}
    for name, value in source.state_dict().items():
        old = next((start for start in places if name.startswith(start)), "")
        named[places.get(old, "") + name.removeprefix(old)] = value
    return named


def _places(inner: HeatmapModel, outer: DiffusionPose) -> dict[str, str]:
    """How names of a heatmap model's weights start -> how they start inside DiffusionPose."""
    if isinstance(inner.head, nn.Conv2d):
        return {"head.": "conv."}
    if not isinstance(outer.encoder, RaisedEncoder):
        return {}
    places = {"encoder.": "encoder.inner."}
    if isinstance(inner.head, nn.Sequential):
        places |= {f"head.{len(inner.head) - 1}.": "conv.", "head.": "encoder.neck."}
    return places
