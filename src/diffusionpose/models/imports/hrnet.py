"""HRNet: the official pose and ImageNet files, timm's, and mmpose's (UDP and DARK have the same names).

timm, whose backbones are ours, kept the official names; mmpose puts ``backbone.`` before them.
"""

from __future__ import annotations

from diffusionpose.models.imports.layouts import Layout

BACKBONE = r"((?:conv[12]|bn[12]|layer1|transition[123]|stage[234])\..+)"
ENCODER_MODELS = r"(?:diffusionpose_)?hrnet_w\d+"
POSE_MODELS = r"hrnet_w\d+"
COARSER = (
    r"stage4\.2\.fuse_layers\.[123]\..+",
    "the coarser outputs of the last fusion, which our encoder does without",
)
CLASSIFIER = (
    # incre_modules and so on in timm and the official files, head in those of the pose repository
    r"(?:incre_modules|downsamp_modules|final_layer|classifier|head|fc)\..+",
    "the classifier of ImageNet",
)
EMA = (r"ema_.+", "a second copy of all weights: mmcv keeps there those that its moving average replaced")

OFFICIAL = Layout(
    title="HRNet of deep-high-resolution-net.pytorch",
    models=POSE_MODELS,
    marks=(r"stage[234]\.", r"final_layer\.(?:weight|bias)$"),
    names=((BACKBONE, r"encoder.backbone.\1"), (r"final_layer\.(weight|bias)", r"head.\1")),
)
MMPOSE_0 = Layout(
    title="HRNet of mmpose 0.x",
    models=POSE_MODELS,
    marks=(r"backbone\.stage[234]\.", r"keypoint_head\."),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (r"keypoint_head\.final_layer\.(weight|bias)", r"head.\1"),
    ),
    left_out=(EMA,),
)
MMPOSE_1 = Layout(
    title="HRNet of mmpose 1.x",
    models=POSE_MODELS,
    marks=(r"backbone\.stage[234]\.", r"head\."),
    without=(r"keypoint_head\.",),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (r"head\.final_layer\.(weight|bias)", r"head.\1"),
    ),
)
IMAGENET = Layout(
    title="HRNet trained on ImageNet (timm, HRNet-Image-Classification)",
    models=ENCODER_MODELS,
    marks=(r"stage[234]\.",),
    without=(r"final_layer\.(?:weight|bias)$",),
    names=((BACKBONE, r"\1"),),
    left_out=(COARSER, CLASSIFIER),
    encoder=True,
)
LAYOUTS = (OFFICIAL, MMPOSE_0, MMPOSE_1, IMAGENET)
