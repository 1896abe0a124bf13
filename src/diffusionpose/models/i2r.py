"""I2R-Net (Ding et al., IJCAI 2022): a person's pose by the picture of that person and of the others beside.

The intra-human module relates the places of one person's feature, the inter-human module those of all persons
of a picture, at stride 16.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionpose.errors import InputError
from diffusionpose.geometry import HeatmapCodec, Neighbours, Start
from diffusionpose.models.encoders import Encoder, deconvolutions
from diffusionpose.models.heads import TransPoseHead, TransPoseLayer
from diffusionpose.models.pose_model import PoseModel, coarse_head, heatmap_loss
from diffusionpose.skeletons import Skeleton

STRIDE = 16  # of the tokens that persons exchange
INTRA_LAYERS = 4  # of TransPose-H, two fewer than where it stands alone
PLACE_CHANNELS = 64


class InterHuman(nn.Module):
    """Attention among the tokens of all persons of a picture; arguments as of :class:`TransPoseLayer`."""

    def __init__(self, width: int, depth: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransPoseLayer(width, heads, feedforward, dropout) for _ in range(depth))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, picture: Tensor | None, places: Tensor | None = None) -> Tensor:
        """Features (b, c, h, w) of b persons -> the same.

        ``picture`` (b,) has the same number for persons of one picture, None where all are alone; ``places``
        (b, c, h, w) are added to queries and keys.
        """
        if picture is None:
            group, slot = torch.arange(len(x), device=x.device), torch.zeros(len(x), dtype=torch.long)
            groups, most, mask = len(x), 1, None
        else:
            _, group, counts = picture.unique(return_inverse=True, return_counts=True)
            slot = (picture[:, None] == picture).tril(-1).sum(1)
            groups, most = len(counts), int(counts.max())
            there = torch.arange(most, device=x.device) < counts[:, None]
            mask = there.repeat_interleave(x[0, 0].numel(), 1)[:, None, None]

        def together(y: Tensor) -> Tensor:
            """(b, c, h, w) -> (pictures, persons x h x w, c), filled up by zeros where fewer are."""
            padded = y.new_zeros(groups, most, *y[0, 0].flatten().shape, y.shape[1])
            padded[group, slot] = y.flatten(2).mT
            return padded.flatten(1, 2)

        y, positions = together(x), x.new_zeros(()) if places is None else together(places)
        for layer in self.layers:
            y = layer(y, positions, mask)
        return y.unflatten(1, (most, -1))[group, slot].mT.unflatten(2, x.shape[2:])


class PlaceEmbedding(nn.Module):
    """Where in the picture a person is, from a mask of the box in a picture of the size of the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for channels, output in ((1, PLACE_CHANNELS), (PLACE_CHANNELS, width)):
            conv = nn.Conv2d(channels, output, 3, 2, padding=1, bias=False)
            self.layers.extend([conv, nn.BatchNorm2d(output), nn.ReLU(inplace=True)])
        self.layers.extend([nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(3, 2, padding=1)])

    def forward(self, place: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (b, 4), shares of the picture, and (width, height) of the input -> (b, c, h / 16, w / 16)."""
        (x0, y0, x1, y1), (width, height) = place.unbind(1), size

        def covered(low: Tensor, high: Tensor, count: int) -> Tensor:
            """(b, count): how much of each column or row lies between ``low`` and ``high``."""
            begin = torch.arange(count, device=place.device)
            low, high = low[:, None] * count, high[:, None] * count
            return (torch.minimum(high, begin + 1) - torch.maximum(low, begin)).clamp(0, 1)

        mask = covered(y0, y1, height)[:, :, None] * covered(x0, x1, width)[:, None]
        return self.layers(mask[:, None])


class I2RNet(PoseModel):
    """Both modules on an encoder: at stride 4 an intra-human transformer (TransPose-H's) with heatmaps of its
    own, and the inter-human module on its pooled feature; at stride 16 the inter-human module alone, told
    where in the picture everyone is (the publication's vanilla version).

    A person without neighbours, or whose neighbours nobody tells, goes through alone.

    Args:
        encoder: of stride 4 or 16.
        skeleton, codec: as of every model.
        width, heads, feedforward, dropout: of both modules, as of :class:`TransPoseHead`.
        depth: layers of the inter-human module; None for the published 2 (stride 4) or 6 (stride 16).
        neighbours: whether persons see each other; False is the same network without.

    Raises:
        InputError: an input size that is no multiple of 16, or a stride of the heatmaps other than 4.
    """

    def __init__(
        self,
        encoder: Encoder,
        skeleton: Skeleton,
        codec: HeatmapCodec,
        width: int = 96,
        depth: int | None = None,
        neighbours: bool = True,
        **options: float,
    ) -> None:
        super().__init__(encoder, skeleton, codec)
        if codec.stride != 4 or any(side % STRIDE for side in codec.input_size):
            raise InputError("I2R-Net: heatmaps have stride 4, and input sides are multiples of 16")
        self.sees_neighbours, joints, vanilla = neighbours, skeleton.num_joints, encoder.stride == STRIDE
        layer = {"heads": 1, "feedforward": 192, "dropout": 0.0, **options}
        if vanilla:
            self.reduce = nn.Conv2d(encoder.channels, width, 1, bias=False)
            self.places = PlaceEmbedding(width)
        else:
            self.head = TransPoseHead(encoder.channels, joints, codec.size, width, INTRA_LAYERS, **layer)  # type: ignore[arg-type]
        self.inter = InterHuman(width, depth or (6 if vanilla else 2), **layer)  # type: ignore[arg-type]
        # the vanilla version goes through one deconvolution twice
        self.up = nn.Sequential(*deconvolutions(width, width, 1 if vanilla else 2))
        self.final = coarse_head(width, joints)

    def both(self, images: Tensor, neighbours: Neighbours | None) -> list[Tensor]:
        """Heatmaps of the intra-human module, where it has any, and the answer."""
        x_fea = self.encoder(self.normalise(images))
        among = neighbours if self.sees_neighbours else None
        picture = None if among is None else among.picture
        if self.encoder.stride == STRIDE:
            whole = x_fea.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(x_fea), -1)
            places = self.places(whole if among is None else among.place, self.input_size)
            x = self.inter(self.reduce(x_fea), picture, places)
            return [self.final(self.up(self.up(x)))]
        x = self.head.relate(x_fea)
        pooled = F.max_pool2d(F.max_pool2d(x, 3, 2, padding=1), 3, 2, padding=1)
        return [self.head.final(x), self.final(x + self.up(self.inter(pooled, picture)))]

    def trajectory(
        self,
        images: Tensor,
        steps: int | None = None,
        start: Start | None = None,
        neighbours: Neighbours | None = None,
    ) -> list[Tensor]:
        """As :meth:`PoseModel.trajectory`: one entry; ``neighbours`` say who is beside whom."""
        return self.both(images, neighbours)[-1:]

    def loss(
        self, images: Tensor, keypoints: Tensor, visible: Tensor, noise: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """As :meth:`PoseModel.loss`: the mean of the squared errors of both heatmaps."""
        hm_0 = self.codec.draw(self.codec.to_heatmap(keypoints))
        among = Neighbours(noise["picture"], noise["place"]) if "picture" in noise else None
        losses = [heatmap_loss(maps, hm_0, visible) for maps in self.both(images, among)]
        return {"loss": sum(losses[1:], losses[0]) / len(losses)}
