"""SimpleBaseline (ResNet and deconvolutions): the official files and mmpose's; and ResNets for ImageNet.

The ResNet has torchvision's names everywhere, which are timm's and ours.
"""

from __future__ import annotations

from diffusionpose.models.imports.hrnet import EMA
from diffusionpose.models.imports.layouts import Layout

BACKBONE = r"((?:conv1|bn1|layer[1234])\..+)"
MODELS = r"simplebaseline_r\d+"
# three times deconvolution, BatchNorm, ReLU, and then the output: places 0 to 8 and 9 of our head
DECONVOLUTIONS, OUTPUT = r"deconv_layers\.([013467])\.(.+)", r"final_layer\.(weight|bias)"

OFFICIAL = Layout(
    title="SimpleBaseline of human-pose-estimation.pytorch or deep-high-resolution-net.pytorch",
    models=MODELS,
    marks=(r"layer4\.", r"deconv_layers\."),
    names=(
        (BACKBONE, r"encoder.backbone.\1"),
        (DECONVOLUTIONS, r"head.\1.\2"),
        (OUTPUT, r"head.9.\1"),
    ),
    # The first repository reads pictures by OpenCV and leaves them in its order; the second has
    # COLOR_RGB: false in the settings of its ResNets, and true in those of HRNet.
    bgr=True,
)
MMPOSE_0 = Layout(
    title="SimpleBaseline of mmpose 0.x",
    models=MODELS,
    marks=(r"backbone\.layer4\.", r"keypoint_head\."),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (rf"keypoint_head\.{DECONVOLUTIONS}", r"head.\1.\2"),
        (rf"keypoint_head\.{OUTPUT}", r"head.9.\1"),
    ),
    left_out=(EMA,),
)
MMPOSE_1 = Layout(
    title="SimpleBaseline of mmpose 1.x",
    models=MODELS,
    marks=(r"backbone\.layer4\.", r"head\."),
    without=(r"keypoint_head\.",),
    names=(
        (rf"backbone\.{BACKBONE}", r"encoder.backbone.\1"),
        (rf"head\.{DECONVOLUTIONS}", r"head.\1.\2"),
        (rf"head\.{OUTPUT}", r"head.9.\1"),
    ),
)
IMAGENET = Layout(
    title="ResNet trained on ImageNet (timm, torchvision)",
    models=rf"{MODELS}|diffusionpose_resnet\d+",
    marks=(r"layer4\.",),
    without=(r"deconv_layers\.", r"final_layer\."),
    names=((BACKBONE, r"\1"),),
    left_out=((r"fc\.(?:weight|bias)", "the classifier of ImageNet"),),
    encoder=True,
)
LAYOUTS = (OFFICIAL, MMPOSE_0, MMPOSE_1, IMAGENET)
