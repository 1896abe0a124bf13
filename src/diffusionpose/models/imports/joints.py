"""Which joints the outputs of another project's network stand for, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from diffusionpose.errors import InputError
from diffusionpose.models.imports.layouts import Placed
from diffusionpose.models.imports.reading import Checkpoint
from diffusionpose.skeletons import COCO, SKELETONS, Skeleton, get_skeleton

ALIASES = {"top_head": "head"}  # mmpose's name of CrowdPose's joint 12 -> ours
OUTPUT = r"head\.(?:(\d+)\.|conv\.)?weight"  # of a sequence, of the simple decoder, of HRNet
OFFSETS_UNSUPPORTED = (
    "has UDP's combined target, three maps for each joint (a heatmap and two offsets), which is not "
    "supported here; give a model trained on Gaussian heatmaps"
)


def output_layer(placed: Placed) -> str | None:
    """Our name of the convolution that gives the heatmaps (without ``.weight``); None if it is missing."""
    places = [(int(m[1] or 0), name) for name in placed.tensors if (m := re.fullmatch(OUTPUT, name))]
    return max(places)[1].removesuffix(".weight") if places else None


def count_outputs(placed: Placed) -> int | None:
    """How many heatmaps the network gives; None where its last layer is missing."""
    layer = output_layer(placed)
    return None if layer is None else len(placed.tensors[f"{layer}.weight"][1])


def choose_skeleton(
    checkpoint: Checkpoint, outputs: int | None, wanted: Skeleton | str | None
) -> tuple[Skeleton, str]:
    """The skeleton of a network, and how it is known.

    mmpose, the official repositories and we number the joints of COCO, CrowdPose and AI Challenger alike.

    Raises:
        InputError: a number of outputs other than that of the joints, or more than one skeleton of it.
    """
    path = checkpoint.path
    if outputs is None:  # the last layer is missing, which `fit` will say; any skeleton does until then
        return COCO if wanted is None else get_skeleton(wanted), "as given"
    if wanted is not None:
        skeleton = get_skeleton(wanted)
        if outputs == 3 * skeleton.num_joints:
            raise InputError(f"{path}: {OFFSETS_UNSUPPORTED}")
        if outputs != skeleton.num_joints:
            raise InputError(
                f"{path}: gives {outputs} heatmaps, but skeleton {skeleton.name!r} has "
                f"{skeleton.num_joints} joints; give another --skeleton (a name or a YAML file)"
            )
        return skeleton, "as given"
    names = {ALIASES.get(name, name) for name in checkpoint.joints}
    alike = [s for s in SKELETONS.values() if s.num_joints == outputs]
    fitting = [s for s in alike if not names or names == {*s.joints}]
    if len(fitting) == 1:
        known = "the file names its joints" if names else f"the only one here of {outputs} joints"
        return fitting[0], known
    if any(outputs == 3 * s.num_joints for s in SKELETONS.values()):
        raise InputError(f"{path}: gives {outputs} heatmaps: probably it {OFFSETS_UNSUPPORTED}")
    several = " or ".join(s.name for s in fitting)
    what = f"of {several}" if several else "of no skeleton that comes with this package"
    named = f" ({', '.join(checkpoint.joints)})" if checkpoint.joints else ""
    raise InputError(
        f"{path}: gives {outputs} heatmaps{named}, {what}; say which joints they are by --skeleton "
        "(a name or a YAML file)"
    )


def order_joints(placed: Placed, joints: Sequence[str], skeleton: Skeleton, checkpoint: Checkpoint) -> bool:
    """Bring the outputs into the skeleton's order, where the file names its joints; whether it was another.

    Raises:
        InputError: the file names other joints than the skeleton.
    """
    layer = output_layer(placed)
    if not joints or layer is None:
        return False
    theirs = [ALIASES.get(joint, joint) for joint in joints]
    if sorted(theirs) != sorted(ALIASES.get(joint, joint) for joint in skeleton.joints):
        raise InputError(
            f"{checkpoint.path}: its joints are {', '.join(joints)}; those of skeleton {skeleton.name!r} "
            f"are {', '.join(skeleton.joints)}; give another --skeleton (a name or a YAML file)"
        )
    order = [theirs.index(ALIASES.get(joint, joint)) for joint in skeleton.joints]
    for part in ("weight", "bias"):
        if (entry := placed.tensors.get(f"{layer}.{part}")) is not None and len(entry[1]) == len(order):
            value: Tensor = entry[1][order]
            placed.tensors[f"{layer}.{part}"] = (entry[0], value)
    return order != sorted(order)
