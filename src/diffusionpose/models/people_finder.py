"""The people finder: a person is a point and a box (CenterNet, Zhou et al. 2019), on MoveNet's MultiPose.

MobileNetV2 x 1.5 with its pyramid gives a feature of stride 4, on which small heads say

============== ======================================================== =========
head           output                                                   channels
============== ======================================================== =========
``center``     logit of "a person's centre is here"                     1
``box_scale``  height and width of that person's box, in stride pixels  2
``box_offset`` from this pixel to the box's centre (y, x)               2
============== ======================================================== =========

Google's published weights (Apache-2.0) have these heads beside those for joints, so that training goes on
from a network that finds people. People are the local maxima of the centre's probability; no anchors.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError, atomically, needs_extra
from diffusionpose.models.encoders import (
    HEAD_CHANNELS,
    PYRAMID_CHANNELS,
    Convolution,
    MobileNetPyramid,
    Separable,
)

STRIDE = 4
WIDTH = 1.5  # MultiPose's multiplier of MobileNetV2's channels
HEADS = {"center": 1, "box_scale": 2, "box_offset": 2}
SPREAD = 0.09  # sigma of a centre's Gaussian over the side of the box (TTFNet, Liu et al. 2020: 0.54 / 6)
LEAST_SIGMA = 0.7  # of that Gaussian, in stride pixels
BOX_LEARNS_ABOVE = 0.3  # of the Gaussian: at these pixels the box is learned


class Targets(NamedTuple):
    """What the network should say of one picture, at stride 4.

    Attributes:
        center: (h, w), a Gaussian at each person's centre, exactly 1 at its middle.
        known: (h, w), 0 where a centre may be that nobody labelled, else 1.
        boxes: (4, h, w) xyxy in input pixels, of the person whose Gaussian is highest there.
        weight: (h, w), how much the box counts there; sums to 1 for each person.
    """

    center: Tensor
    known: Tensor
    boxes: Tensor
    weight: Tensor


class PeopleFinder(nn.Module):
    """Centres and boxes of persons.

    Args:
        width: multiplier of MobileNetV2's channels.
        frozen: the stem and so many blocks are not trained.
    """

    def __init__(self, width: float = WIDTH, frozen: int = 0) -> None:
        super().__init__()
        self.backbone = MobileNetPyramid(width, frozen)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    Separable(PYRAMID_CHANNELS, HEAD_CHANNELS), Convolution(HEAD_CHANNELS, outputs)
                )
                for name, outputs in HEADS.items()
            }
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, H, W) in [-1, 1], sides in multiples of 32 -> logits (b, h, w), boxes (b, 4, h, w).

        Boxes are xyxy in input pixels, h = H / 4, w = W / 4.
        """
        feature = self.backbone(images)
        center, size, offset = (self.heads[name](feature).float() for name in HEADS)
        height, width = feature.shape[2:]
        rows = torch.arange(height, device=images.device).view(-1, 1).expand(height, width)
        columns = torch.arange(width, device=images.device).expand(height, width)
        middle = torch.stack([rows, columns]) + offset  # (b, 2, h, w), y and x
        low, high = middle - size / 2, middle + size / 2
        boxes = torch.cat([low.flip(1), high.flip(1)], 1) * STRIDE
        return center[:, 0], boxes


class Peaks(nn.Module):
    """The network as it is exported: images (b, 3, H, W) -> scores (b, h, w), boxes (b, 4, h, w).

    Scores are the centre's probability, 0 wherever one of the eight neighbours is higher.
    """

    def __init__(self, finder: nn.Module) -> None:
        super().__init__()
        self.finder = finder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits, boxes = self.finder(images)
        scores = logits.sigmoid()
        highest = F.max_pool2d(scores[:, None], 3, 1, 1)[:, 0]
        return scores * (scores >= highest), boxes


@torch.no_grad()
def find_peaks(finder: nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the exported network gives (:class:`Peaks`): scores (b, h, w), boxes (b, 4, h, w)."""
    scores, boxes = Peaks(finder)(torch.from_numpy(images))
    return scores.numpy(), boxes.numpy()


def load_finder_weights(finder: PeopleFinder, path: str | Path) -> None:
    """Load the weights of a trained people finder, or MoveNet MultiPose's without its heads for joints.

    Raises:
        InputError: the file cannot be read or is another network's.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    named = {
        name if name.startswith(("heads.", "backbone.")) else f"backbone.{name}": weight.float()
        for name, weight in weights.items()
        if not name.startswith("heads.kpt_")
    }
    try:
        finder.load_state_dict(named)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise InputError(
            f"{path}: neither a people finder's weights nor MoveNet MultiPose's: {reason}"
        ) from error


def draw_targets(boxes: np.ndarray, unknown: np.ndarray, height: int, width: int) -> Targets:
    """Targets of one picture.

    Args:
        boxes: (n, 4) xyxy of its persons, input pixels.
        unknown: (m, 4) xyxy, where there may be persons without a label: no centre is unlearned there.
        height, width: of the output, stride pixels.
    """
    center = np.zeros((height, width), np.float32)
    known = np.ones((height, width), np.float32)
    owner = np.full((height, width), -1)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    for x0, y0, x1, y1 in unknown / STRIDE:
        known[(rows >= y0 - 0.5) & (rows <= y1 + 0.5) & (columns >= x0 - 0.5) & (columns <= x1 + 0.5)] = 0
    for index, (x0, y0, x1, y1) in enumerate(boxes / STRIDE):
        x = min(max(int((x0 + x1) / 2), 0), width - 1)
        y = min(max(int((y0 + y1) / 2), 0), height - 1)
        sigma_x, sigma_y = max(SPREAD * (x1 - x0), LEAST_SIGMA), max(SPREAD * (y1 - y0), LEAST_SIGMA)
        gaussian = np.exp(-(((columns - x) / sigma_x) ** 2 + ((rows - y) / sigma_y) ** 2) / 2)
        owner[(gaussian >= BOX_LEARNS_ABOVE) & (gaussian > center)] = index
        center = np.maximum(center, gaussian)
    known = np.where(center > 0.1, 1, known).astype(np.float32)
    box_map, weight = np.zeros((4, height, width), np.float32), np.zeros((height, width), np.float32)
    for index, box in enumerate(boxes):
        mine = owner == index
        box_map[:, mine] = box[:, None]
        weight[mine] = center[mine] / max(center[mine].sum(), 1e-6)
    return Targets(*(torch.from_numpy(each.astype(np.float32)) for each in (center, known, box_map, weight)))


def finder_loss(logits: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The loss of the centres and that of the boxes, each a mean over the persons of the batch.

    Centres: the focal loss of CornerNet (Law and Deng 2018, Eq. 1) where ``known``. Boxes: 1 - GIoU
    (Rezatofighi et al. 2019) and the distance of the corners over the box's size, near the centres.

    Args:
        logits: (b, h, w).
        boxes: (b, 4, h, w) xyxy.
        targets: stacked over the batch.
    """
    true = targets.center == 1
    log_p, log_not = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = log_p.exp()
    found = torch.where(true, (1 - p) ** 2 * log_p, 0.0)
    empty = torch.where(true, 0.0, targets.known * (1 - targets.center) ** 4 * p**2 * log_not)
    persons = true.sum().clamp(min=1)
    center_loss = -(found + empty).sum() / persons

    at = targets.weight > 0
    weight = targets.weight[at]
    ours, theirs = boxes.permute(0, 2, 3, 1)[at], targets.boxes.permute(0, 2, 3, 1)[at]  # (n, 4)
    size = (theirs[:, 2:] - theirs[:, :2]).repeat(1, 2)
    distance = ((ours - theirs).abs() / size).mean(1)
    box_loss = (weight * (1 - _giou(ours, theirs) + distance)).sum() / weight.sum().clamp(min=1)
    return center_loss, box_loss


def _giou(ours: Tensor, theirs: Tensor) -> Tensor:
    """Generalised IoU (n,) of boxes (n, 4) xyxy; a box turned inside out counts as one without area."""
    inner = (torch.minimum(ours[:, 2:], theirs[:, 2:]) - torch.maximum(ours[:, :2], theirs[:, :2])).clamp(
        min=0
    )
    outer = torch.maximum(ours[:, 2:], theirs[:, 2:]) - torch.minimum(ours[:, :2], theirs[:, :2])
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (ours, theirs)]
    shared, hull = inner.prod(1), outer.clamp(min=1e-3).prod(1)
    union = (areas[0] + areas[1] - shared).clamp(min=1e-3)
    return shared / union - (hull - union) / hull


def export_people_finder(finder: PeopleFinder, path: str | Path) -> float:
    """Write the network as ONNX: float16 weights, pictures of any size, what :class:`Peaks` says.

    Runtimes widen the weights to float32 once, when they load the file.

    Args:
        finder: its weights are rounded to float16 for the comparison; the network itself is left as it is.
        path: of the .onnx file, which appears compared with PyTorch or not at all. ``images`` (1, 3, H, W)
            float32 in [-1, 1], sides in multiples of 32, go in; ``scores`` (1, h, w) and ``boxes``
            (1, 4, h, w) come out.

    Returns:
        the largest difference of a score from PyTorch's.

    Raises:
        InputError: an extra is missing, the file cannot be written, or it computes something else.
    """
    with needs_extra("export", "the export needs onnx, onnxscript and onnxruntime"):
        import onnxruntime
        import onnxscript  # noqa: F401  # the exporter needs it, and would say so late
    rounded = (
        deepcopy(finder).cpu().float().eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    )
    for weight in rounded.parameters():
        weight.copy_(weight.half().float())
    network = Peaks(rounded)
    rows, columns = (torch.export.Dim(name, min=1, max=1024) for name in ("rows", "columns"))
    sides = {2: 32 * rows, 3: 32 * columns}
    images = torch.rand(1, 3, 128, 96) * 2 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            torch.export.export(network, (images,), dynamic_shapes=(sides,)),
            dynamo=True,
            input_names=["images"],
            output_names=["scores", "boxes"],
            verbose=False,
        )
    assert program is not None
    _store_as_float16(program.model)

    differences = []

    def write(temporary: Path) -> None:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        generator = torch.Generator().manual_seed(0)
        for size in ((96, 160), (320, 256), (32, 32)):
            coarse = torch.rand((1, 3, size[0] // 16, size[1] // 16), generator=generator) * 2 - 1
            images = F.interpolate(coarse, size=size, mode="bicubic").clamp(-1, 1)
            logits, boxes = rounded(images)
            scores, ours = session.run(None, {"images": images.numpy()})
            # where two neighbours are as high as each other, rounding decides which of them is the peak
            peaks = scores > 0
            difference = float(np.abs(scores - logits.sigmoid().numpy())[peaks].max(initial=0))
            apart = float(np.abs(ours - boxes.numpy()).max())
            if not (difference <= 1e-4 and apart <= 0.05):
                raise InputError(
                    f"{path}: not written: the graph differs from PyTorch by {difference:.1e} in a score and "
                    f"{apart:.1e} pixels in a box"
                )
            differences.append(difference)

    try:
        atomically(Path(path), write)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); is the folder there, writable, not full?"
        ) from error
    return max(differences)


def _store_as_float16(model: Any) -> None:
    """Keep the weights of an onnx_ir model as float16, each followed by a Cast to float32."""
    import onnx_ir as ir

    for node in model.graph.all_nodes():  # where on this machine it was traced from is nobody's business
        node.metadata_props.clear()
        node.doc_string = None
    for name, value in list(model.graph.initializers.items()):
        if value.dtype != ir.DataType.FLOAT or value.const_value.size < 16:
            continue
        half = ir.Value(
            name=f"{name}.float16", const_value=ir.tensor(value.const_value.numpy().astype(np.float16))
        )
        half.dtype, half.shape = ir.DataType.FLOAT16, value.shape
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
        cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, value.shape
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del model.graph.initializers[name]
        cast.outputs[0].name = name
        model.graph.register_initializer(half)
        model.graph.insert_before(model.graph[0], cast)
    model.graph.name = "people_finder"
