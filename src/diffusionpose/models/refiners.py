"""Models that refine a pose which another model has found: PoseFix and OPEC-Net.

They learn from poses with synthesised errors (``data/pose_errors.py``). Both answer with coordinates, which
are drawn as heatmaps here, as high as the network is sure: every decoder of the house reads them back.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.geometry import HeatmapCodec, Start, draw_heatmaps, pixel_grid
from diffusionpose.models.encoders import Encoder
from diffusionpose.models.pose_model import NamedTensors, PoseModel, heatmap_loss
from diffusionpose.skeletons import Skeleton


class Refiner(PoseModel):
    """What refiners share: they start from a pose, always."""

    takes_start = needs_start = learns_from_errors = True

    def trajectory(
        self, images: Tensor, steps: int | None = None, start: Start | None = None
    ) -> list[Tensor]:
        """As :meth:`PoseModel.trajectory`: one entry; InputError without a start."""
        if start is None:
            raise InputError(f"{self.config['name']} refines poses, and none is given; give a start")
        y, confidence = self.refine(images, start)
        return [draw_heatmaps(y, self.codec.size, self.codec.sigma) * confidence[..., None, None]]

    def refine(self, images: Tensor, start: Start) -> tuple[Tensor, Tensor]:
        """Keypoints (b, j, 2), heatmap pixels, and confidence (b, j) in (0, 1]; ``start`` in input pixels."""
        raise NotImplementedError


def soft_argmax(shares: Tensor) -> Tensor:
    """Expected place (b, j, 2), pixels, of maps (b, j, h, w) that sum to 1 (Sun et al., ECCV 2018)."""
    columns, rows = pixel_grid((shares.shape[3], shares.shape[2]), shares)
    return torch.stack([(shares * columns).sum((2, 3)), (shares * rows).sum((2, 3))], -1)


# PoseFix (Moon et al., CVPR 2019)


class PoseFix(Refiner):
    """Picture and pose into one network, coarse to fine: a map of where each joint is, then its coordinates.

    The pose goes in as Gaussians beside the three colours, as high as white is above black in the picture.

    Args:
        encoder: of pictures; its first layer is widened by a channel for each joint.
        head: makes (b, j, h, w) maps of the codec's size from its feature.
        skeleton, codec: as of every model.

    Raises:
        InputError: the encoder's first layer is frozen and could not learn to see the pose.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, skeleton: Skeleton, codec: HeatmapCodec) -> None:
        super().__init__(encoder, skeleton, codec)
        self.head = head
        first = next(layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
        if not first.weight.requires_grad:
            raise InputError(
                "PoseFix: the encoder's first layer sees the pose and must learn; leave out frozen"
            )
        pose = first.weight.new_zeros(len(first.weight), skeleton.num_joints, *first.kernel_size)
        first.weight = nn.Parameter(torch.cat([first.weight.detach(), pose], 1))
        first.in_channels += skeleton.num_joints

    def logits(self, images: Tensor, keypoints: Tensor, given: Tensor) -> Tensor:
        """Maps (b, j, h, w) before their softmax, of crops and their (b, j, 2) pose in input pixels."""
        sigma = 3 + self.input_size[1] / 64  # 7 at 256 rows and 9 at 384, as published
        given = given.bool()[..., None]
        pose = draw_heatmaps(torch.where(given, keypoints, 0.0), self.input_size, sigma) * given[..., None]
        return self.head(self.encoder(torch.cat([self.normalise(images), pose * 255 / self.std.mean()], 1)))

    def refine(self, images: Tensor, start: Start) -> tuple[Tensor, Tensor]:
        """As :meth:`Refiner.refine`; sure is how much of a map lies where the answer is."""
        shares = self.logits(images, start.keypoints, start.given).float().flatten(2).softmax(2)
        shares = shares.unflatten(2, self.codec.size[::-1])
        y = soft_argmax(shares)
        return y, (shares * draw_heatmaps(y, self.codec.size, self.codec.sigma)).sum((2, 3))

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: NamedTensors) -> NamedTensors:
        """As :meth:`PoseModel.loss`: "loss" = "map" (cross-entropy) + "coordinates" (L1, heatmap pixels)."""
        y_0 = self.codec.to_heatmap(keypoints)
        scores = self.logits(images, noise["start"], visible).float().flatten(2)
        # one hot, shared out to the four pixels around y_0 so that it stands there at the mean
        columns, rows = pixel_grid(self.codec.size, y_0)
        x, y = (each[..., None, None] for each in y_0.unbind(-1))
        one_hot = (1 - (columns - x).abs()).clamp(min=0) * (1 - (rows - y).abs()).clamp(min=0)
        one_hot = one_hot.flatten(2)
        whole = visible * (one_hot.sum(2) > 0.99)  # of joints inside the map
        found = soft_argmax(scores.softmax(2).unflatten(2, self.codec.size[::-1]))
        of_map = -((one_hot * scores.log_softmax(2)).sum(2) * whole).mean()
        of_coordinates = ((found - y_0).abs().mean(2) * whole).mean()
        return {"loss": of_map + of_coordinates, "map": of_map, "coordinates": of_coordinates}


# OPEC-Net (Qiu et al., "Peeking into Occluded Joints", ECCV 2020)

ADAPTED = (256, 128, 128)  # channels of the adapted features at strides 16, 8 and 4
NODE = 128  # of a joint before any feature of the picture is joined to it
WEIGHTS = (0.3, 0.5, 1.0)  # of the losses of the three corrections, one after another


class FeatureAdaptation(nn.Module):
    """Cascaded feature adaptation: features of three strides, each informed by the coarser one before.

    ``channels`` are those of every feature that comes in.
    """

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(nn.Conv2d(channels, width, 3, padding=1) for width in ADAPTED)
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, channels, 2, 2) for width in ADAPTED[:-1])
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.Sigmoid()
            )
            for _ in self.up
        )
        self.out = nn.Conv2d(ADAPTED[-1], joints, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Three features (b, channels, h, w), coarse to fine -> those adapted, and maps (b, joints, h, w)."""
        x = F.relu(self.adapt[0](features[0]))
        adapted = [x]
        for feature, up, gate, adapt in zip(features[1:], self.up, self.gates, self.adapt[1:], strict=True):
            x = F.relu(up(x))
            share = gate(torch.cat([x, feature], 1).mean((2, 3)))
            x = F.relu(adapt(x * share[..., None, None] + feature))
            adapted.append(x)
        return adapted, self.out(x)


class GraphConvolution(nn.Module):
    """Joints see themselves and their neighbours on the skeleton by learned weights (Zhao et al., CVPR 2019).

    ``linked`` (j, j) bool says who is a neighbour; everyone is their own.
    """

    linked: Tensor

    def __init__(self, channels: int, output: int, linked: Tensor) -> None:
        super().__init__()
        self.own = nn.Linear(channels, output, bias=False)
        self.others = nn.Linear(channels, output, bias=False)
        self.bias = nn.Parameter(torch.zeros(output))
        self.weights = nn.Parameter(torch.ones(linked.shape))
        self.register_buffer("linked", linked, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, j, channels) -> (b, j, output)."""
        weights = self.weights.masked_fill(~self.linked, -torch.inf).softmax(1)
        own = weights.diagonal()
        others = weights - own.diag_embed()
        return own[:, None] * self.own(x) + others @ self.others(x) + self.bias


class GraphBlock(nn.Module):
    """Two graph convolutions beside a shortcut, then a gate for each joint by what all joints hold."""

    def __init__(self, channels: int, linked: Tensor) -> None:
        super().__init__()
        self.narrow = GraphConvolution(channels, channels // 2, linked)
        self.wide = GraphConvolution(channels // 2, channels, linked)
        self.norm1, self.norm2 = nn.BatchNorm1d(channels // 2), nn.BatchNorm1d(channels)
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, len(linked)), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, j, channels) -> the same."""
        y = F.relu(self.norm1(self.narrow(x).mT)).mT
        y = F.relu(self.norm2((x + self.wide(y)).mT)).mT
        return y * (1 + self.gate(y.mean(1))[..., None])


class OPECNet(Refiner):
    """A pose corrected on the graph of its joints, with features of a heatmap model at three strides.

    Coordinates go through the graph; after the first block, features of strides 16, 8 and 4 join, one a
    block, from where the picture itself says that the joints are. The heatmap model learns beside it, by its
    own loss alone; give a trained one by ``--weights``, as published.

    Args:
        encoder: of stride 32.
        head: ``deconvolution_head`` of three layers; with the encoder it is SimpleBaseline.
        skeleton: its limbs are the graph.
        codec: as of every model.
    """

    head: nn.Sequential

    def __init__(
        self, encoder: Encoder, head: nn.Sequential, skeleton: Skeleton, codec: HeatmapCodec
    ) -> None:
        super().__init__(encoder, skeleton, codec)
        self.head = head
        joints = range(skeleton.num_joints)
        limbs = {frozenset(limb) for limb in skeleton.limbs}
        linked = torch.tensor([[a == b or frozenset((a, b)) in limbs for b in joints] for a in joints])
        self.adaptation = FeatureAdaptation(head[-1].in_channels, len(joints))  # type: ignore[arg-type]
        self.enter, self.norm = GraphConvolution(3, NODE, linked), nn.BatchNorm1d(NODE)
        widths = [NODE + sum(ADAPTED[:count]) for count in range(len(ADAPTED) + 1)]
        self.blocks = nn.ModuleList(GraphBlock(width, linked) for width in widths)
        self.outs = nn.ModuleList(GraphConvolution(width, 2, linked) for width in widths[1:])
        for parameter in self.outs.parameters():  # the first answer is the pose that came in
            nn.init.zeros_(parameter)

    def base(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features of strides 16, 8 and 4, and heatmaps of the heatmap model."""
        x = self.encoder(self.normalise(images))
        features: list[Tensor] = []
        for layer in self.head[:-1]:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                features.append(x)
        return features, self.head[-1](x)

    def corrections(
        self, features: Sequence[Tensor], keypoints: Tensor, given: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Coordinates (b, j, 2) from -1 to 1 across the map: the picture's own, and those of three answers.

        ``keypoints`` (b, j, 2) are in input pixels, ``given`` is (b, j).
        """
        adapted, maps = self.adaptation([feature.detach() for feature in features])
        own = self._to_unit(soft_argmax(maps.float().flatten(2).softmax(2).unflatten(2, maps.shape[2:])))
        pose = torch.where(given.bool()[..., None], self._to_unit(self.codec.to_heatmap(keypoints)), 0.0)
        x = self.enter(torch.cat([pose, given.to(pose)[..., None]], 2))
        x = self.blocks[0](F.relu(self.norm(x.mT)).mT)
        answers = []
        for feature, block, out in zip(adapted, self.blocks[1:], self.outs, strict=True):
            seen = F.grid_sample(feature.float(), own[:, None], align_corners=False)[:, :, 0]
            x = block(torch.cat([seen.mT, x], 2))
            answers.append(pose + out(x))
        return own, answers

    def refine(self, images: Tensor, start: Start) -> tuple[Tensor, Tensor]:
        """As :meth:`Refiner.refine`; sure is what the heatmap model finds where the answer is."""
        features, heatmaps = self.base(images)
        _, answers = self.corrections(features, start.keypoints, start.given)
        answer = answers[-1].float()
        y = (answer + 1) / 2 * answer.new_tensor(self.codec.size) - 0.5
        near = heatmaps.float() * draw_heatmaps(y, self.codec.size, self.codec.sigma)
        return y, near.amax((2, 3)).clamp(0.01, 1)

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: NamedTensors) -> NamedTensors:
        """As :meth:`PoseModel.loss`: of the heatmap model, the picture's own coordinates, the corrections."""
        y_0 = self.codec.to_heatmap(keypoints)
        features, heatmaps = self.base(images)
        own, answers = self.corrections(features, noise["start"], visible)
        truth = self._to_unit(y_0)
        of_own, *of_answers = (((each - truth).abs().mean(2) * visible).mean() for each in (own, *answers))
        of_base = heatmap_loss(heatmaps, self.codec.draw(y_0), visible)
        loss = of_base + of_own + sum(w * each for w, each in zip(WEIGHTS, of_answers, strict=True))
        return {"loss": loss, "base": of_base, "own": of_own, "answer": of_answers[-1]}

    def _to_unit(self, y: Tensor) -> Tensor:
        """Heatmap pixels -> -1 to 1, from edge to edge of the map."""
        return 2 * (y + 0.5) / y.new_tensor(self.codec.size) - 1
