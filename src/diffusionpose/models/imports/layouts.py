"""How other projects name their weights: a table of layouts, and the strict change of their names into ours.

Names are patterns as of ``fnmatch``; what the stars of theirs stand for goes into the stars of ours.
Every weight of a file must find its place or be left out for a reason that its layout states; every weight of
our model must be given.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.encoders import PATCH

SHOWN = 12  # names listed of each kind of misfit
Tensors = Mapping[str, Tensor]
Names = Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """The names of one project's weights of one family of networks."""

    title: str  # the project and network, as messages call it
    models: tuple[str, ...]  # names of our models that it becomes
    marks: tuple[str, ...]  # a file of this layout has a name for each of them,
    names: Names  # theirs -> ours, the last of them that of the layer that gives the heatmaps
    without: tuple[str, ...] = ()  # and none for any of these
    left_out: Names = field(default_factory=dict)  # names that have no place in our model -> why
    unbiased: bool = False  # whether the project trains this network in UDP geometry
    bgr: bool = False  # whether it trains it on pictures in the order blue, green, red
    encoder: bool = False  # whether these are weights of an encoder, without a pose head
    folds: bool = True  # whether a class token's position is added to every patch's, or else cut off

    @property
    def output(self) -> str:
        """Our name of the layer that gives the heatmaps."""
        return [*self.names.values()][-1].removesuffix(".*")

    def fits(self, names: Iterable[str]) -> bool:
        """Whether a file of these names is of this layout; some may be missing or too many."""
        names = list(names)
        has = {mark: any(fnmatchcase(name, mark) for name in names) for mark in (*self.marks, *self.without)}
        return all(has[mark] for mark in self.marks) and not any(has[mark] for mark in self.without)


# --- the table ---


def _under(prefix: str, names: Names, ours: str = "") -> dict[str, str]:
    return {prefix + name: ours + place for name, place in names.items()}


OURS = "encoder.backbone."
HRNET = {name: name for name in ("conv*", "bn*", "layer1.*", "transition*", "stage*")}
RESNET = {name: name for name in ("conv1.*", "bn1.*", "layer*")}
# ViTPose's own repository names as timm does and we do
TIMM = {
    "pos_embed": "pos_embed",
    "patch_embed.*": "patch_embed.*",
    "blocks.*": "blocks.*",
    "last_norm.*": "norm.*",
}
MMPRETRAIN = {
    "pos_embed": "pos_embed",
    "patch_embed.projection.*": "patch_embed.proj.*",
    "layers.*.ln1.*": "blocks.*.norm1.*",
    "layers.*.attn.*": "blocks.*.attn.*",
    "layers.*.ln2.*": "blocks.*.norm2.*",
    "layers.*.ffn.layers.0.0.*": "blocks.*.mlp.fc1.*",
    "layers.*.ffn.layers.1.*": "blocks.*.mlp.fc2.*",
    "ln1.*": "norm.*",
}
TRANSFORMERS = {
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    "encoder.layer.*.layernorm_before.*": "blocks.*.norm1.*",
    "encoder.layer.*.attention.attention.qkv.*": "blocks.*.attn.qkv.*",
    "encoder.layer.*.attention.output.dense.*": "blocks.*.attn.proj.*",
    "encoder.layer.*.layernorm_after.*": "blocks.*.norm2.*",
    "encoder.layer.*.mlp.*": "blocks.*.mlp.*",
    "layernorm.*": "norm.*",
}
# places 0 to 5 of our head are twice deconvolution, BatchNorm, ReLU, and 6 is the output
MMPOSE_HEAD = {"deconv_layers.*": "head.*", "final_layer.*": "head.6.*"}
TRANSFORMERS_HEAD = {
    "deconv1.*": "head.0.*",
    "batchnorm1.*": "head.1.*",
    "deconv2.*": "head.3.*",
    "batchnorm2.*": "head.4.*",
    "conv.*": "head.6.*",
}
COPIES = {"ema_*": "a second copy of all weights: mmcv keeps there those that its moving average replaced"}
CLASS_POSITION = "backbone.pos_embed of the class token"
CLASS_TOKEN = {
    "backbone.*cls_token": "a class token, which the network does not use",
    CLASS_POSITION: "the position of a class token, which mmpose 1.x cuts off as well",
}
COARSER = "the coarser outputs of the last fusion, which our encoder does without"
CLASSIFIER = "the classifier of ImageNet"
UNSUPPORTED = dict.fromkeys(
    ("*.experts.*", "associate_keypoint_heads.*"),
    "ViTPose for several data sets at once (ViTPose+), which is not supported; give the file of one data "
    "set, as ViTPose's tools/model_split.py makes it",
)


def _vitpose(
    project: str, blocks: str, trunk: Names, head: Names, folds: bool = True
) -> tuple[Layout, Layout]:
    """ViTPose with the classic decoder, and with the simple one: the last layer of ``head`` alone."""
    deconvolution, *_, output = head
    marks, names = (f"backbone.{blocks}.*", output.replace("*", "weight")), _under("backbone.", trunk, OURS)
    classic = Layout(
        f"ViTPose of {project}, classic decoder",
        ("vitpose_[sblh]",),
        marks=(*marks, deconvolution),
        names={**names, **head},
        left_out={**CLASS_TOKEN, **COPIES},
        unbiased=True,
        folds=folds,
    )
    return classic, replace(
        classic,
        title=f"ViTPose of {project}, simple decoder",
        models=("vitpose_[sblh]_simple",),
        marks=marks,
        without=(deconvolution,),
        names={**names, output: "head.conv.*"},
    )


OFFICIAL_HRNET = "deep-high-resolution-net.pytorch"
MMPOSE = (("mmpose 0.x", "backbone.", "keypoint_head."), ("mmpose 1.x", "backbone.", "head."))

LAYOUTS = (
    *(
        Layout(
            f"HRNet of {project}",
            ("hrnet_w??",),
            marks=(f"{trunk}stage4.*", f"{head}final_layer.weight"),
            names={**_under(trunk, HRNET, OURS), f"{head}final_layer.*": "head.*"},
            left_out=COPIES,
        )
        for project, trunk, head in ((OFFICIAL_HRNET, "", ""), *MMPOSE)
    ),
    Layout(
        "HRNet trained on ImageNet (timm, HRNet-Image-Classification)",
        ("hrnet_w??", "diffusionpose_hrnet_w??"),
        marks=("stage4.*",),
        without=("final_layer.weight",),
        names=HRNET,
        left_out={
            "stage4.2.fuse_layers.[123].*": COARSER,
            # incre_modules and so on in timm and the official files, head in those of the pose repository
            **dict.fromkeys(("incre_modules.*", "downsamp_modules.*", "final_layer.*"), CLASSIFIER),
            **dict.fromkeys(("classifier.*", "head.*", "fc.*"), CLASSIFIER),
        },
        encoder=True,
    ),
    *(
        Layout(
            f"SimpleBaseline of {project}",
            ("simplebaseline_r*",),
            marks=(f"{trunk}layer4.*", f"{head}final_layer.weight"),
            # three times deconvolution, BatchNorm, ReLU, and then the output: places 0 to 8 and 9 of our head
            names={
                **_under(trunk, RESNET, OURS),
                f"{head}deconv_layers.*": "head.*",
                f"{head}final_layer.*": "head.9.*",
            },
            left_out=COPIES,
            # Its own repositories read pictures by OpenCV and leave them in its order: COLOR_RGB is false
            bgr=not trunk,
        )
        for project, trunk, head in ((f"human-pose-estimation.pytorch or {OFFICIAL_HRNET}", "", ""), *MMPOSE)
    ),
    Layout(
        "ResNet trained on ImageNet (timm, torchvision)",
        ("simplebaseline_r*", "diffusionpose_resnet*"),
        marks=("layer4.*",),
        without=("deconv_layers.*", "final_layer.weight"),
        names=RESNET,
        left_out={"fc.*": CLASSIFIER},
        encoder=True,
    ),
    *_vitpose("its own repository or mmpose 0.x", "blocks", TIMM, _under("keypoint_head.", MMPOSE_HEAD)),
    *_vitpose("mmpose 1.x", "layers", MMPRETRAIN, _under("head.", MMPOSE_HEAD), folds=False),
    *_vitpose("Hugging Face transformers", "encoder.layer", TRANSFORMERS, _under("head.", TRANSFORMERS_HEAD)),
    Layout(
        "a vision transformer trained on ImageNet (timm, MAE)",
        ("vitpose_[sblh]", "vitpose_[sblh]_simple", "diffusionpose_vit_[sblh]"),
        marks=("blocks.*", "patch_embed.*"),
        # class token and all positions stay: the encoder fits them to its input size when it takes them
        names={name: name for name in ("cls_token", "pos_embed", "patch_embed.*", "blocks.*", "norm.*")},
        left_out={
            **dict.fromkeys(("head.*", "fc_norm.*"), CLASSIFIER),
            **dict.fromkeys(("mask_token", "decoder_*"), "MAE's decoder, which paints hidden patches"),
        },
        encoder=True,
    ),
)

# --- the change of names ---


@dataclass
class Placed:
    """Weights of a file under our names."""

    tensors: dict[str, tuple[str, Tensor]] = field(
        default_factory=dict
    )  # our name -> (name in the file, weight)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> names in the file
    left_over: list[str] = field(default_factory=list)  # that no rule knows, or whose place another one took

    def reasons(self) -> list[str]:
        """What was left out and why, one line for each reason."""
        return [f"left out: {len(names)} weights, {reason}" for reason, names in self.left_out.items()]


def place(weights: Tensors, layout: Layout, size: tuple[int, int]) -> Placed:
    """Rename weights of a file, for a network input of ``size`` (width, height)."""
    placed = Placed()
    for name, value in _joined(weights, layout, size).items():
        reason = next((why for pattern, why in layout.left_out.items() if fnmatchcase(name, pattern)), None)
        if reason is not None:
            placed.left_out.setdefault(reason, []).append(name)
        elif (ours := _renamed(name, layout.names)) is None or ours in placed.tensors:
            placed.left_over.append(name)
        else:
            placed.tensors[ours] = (name, value)
    return placed


def _renamed(name: str, names: Names) -> str | None:
    for theirs, ours in names.items():
        if match := re.fullmatch(re.escape(theirs).replace(r"\*", "(.+)"), name):
            return ours.replace("*", "{}").format(*match.groups())
    return None


def _joined(weights: Tensors, layout: Layout, size: tuple[int, int]) -> Tensors:
    """Join transformers' query, key and value, and take out the class token's position.

    ViTPose has no class token, but kept the position of the one it started from and adds it to every patch's;
    mmpose 1.x cuts it off when it loads such a file. A triple with a part missing stays as it is.
    """
    joined = dict(weights)
    for name in weights:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if ".attention.attention.query." in name and all(part in weights for part in parts):
            joined[name.replace(".query.", ".qkv.")] = torch.cat([joined.pop(part) for part in parts])
    patches = (size[0] // PATCH) * (size[1] // PATCH)
    for name in ("backbone.pos_embed", "backbone.embeddings.position_embeddings"):
        positions = joined.get(name)
        if positions is not None and positions.ndim == 3 and positions.shape[1] == patches + 1:
            first, rest = positions[:, :1], positions[:, 1:]
            joined |= {name: rest + first} if layout.folds else {name: rest, CLASS_POSITION: first}
    return joined


def fit(placed: Placed, own: Tensors, path: Path, what: str) -> dict[str, Tensor]:
    """Weights for ``own``, all of them and no others, as float32.

    BatchNorm's ``num_batches_tracked`` may be missing: older PyTorch did not write it, nothing reads it here.

    Raises:
        InputError: weights missing, left over, of another shape or not finite; lists all kinds.
    """
    tensors = placed.tensors
    faults = {
        "missing (in our names)": [
            name for name in own if name not in tensors and not name.endswith("num_batches_tracked")
        ],
        "left over": placed.left_over + [theirs for ours, (theirs, _) in tensors.items() if ours not in own],
        "of another shape": [
            f"{theirs} is {tuple(value.shape)}, must be {tuple(own[ours].shape)}"
            for ours, (theirs, value) in tensors.items()
            if ours in own and value.shape != own[ours].shape
        ],
        "not finite": [theirs for theirs, value in tensors.values() if not torch.isfinite(value).all()],
    }
    if kinds := {kind: names for kind, names in faults.items() if names}:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
        lines = [f"{path}: does not fit as {what}; {counts}; is --as the right model?"]
        for kind, names in kinds.items():
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"  {kind}: {', '.join(names[:SHOWN])}{more}")
        raise InputError("\n".join(lines))
    return {ours: value.to(own[ours].dtype).contiguous() for ours, (_, value) in tensors.items()}
