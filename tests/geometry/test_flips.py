"""Mirroring twice changes nothing; heatmaps of mirrored keypoints are mirrored heatmaps."""

import torch

from diffusionpose.geometry import HeatmapCodec, flip_heatmaps, flip_images, flip_keypoints
from diffusionpose.skeletons import COCO


def test_twice_is_identity():
    images = torch.rand(2, 3, 8, 6)
    keypoints, visible = torch.rand(2, 17, 2) * 6, (torch.rand(2, 17) > 0.5).float()
    heatmaps = torch.rand(2, 17, 8, 6)
    assert torch.equal(flip_images(flip_images(images)), images)
    assert torch.equal(flip_heatmaps(flip_heatmaps(heatmaps, COCO.flip_order), COCO.flip_order), heatmaps)
    there = flip_keypoints(keypoints, visible, COCO.flip_order, 6)
    back = flip_keypoints(*there, COCO.flip_order, 6)
    assert torch.allclose(back[0], keypoints, atol=1e-6)
    assert torch.equal(back[1], visible)


def test_left_and_right_are_swapped():
    keypoints = torch.zeros(1, 17, 2)
    keypoints[0, COCO.index("left_wrist")] = torch.tensor([10.0, 5.0])
    visible = torch.zeros(1, 17)
    visible[0, COCO.index("left_wrist")] = 1
    flipped, seen = flip_keypoints(keypoints, visible, COCO.flip_order, 192)
    right = COCO.index("right_wrist")
    assert flipped[0, right].tolist() == [181.0, 5.0]
    assert seen[0].nonzero().flatten().tolist() == [right]


def mirrored_back(codec: HeatmapCodec, shift: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Heatmaps of a person, and those of its mirror image mirrored back."""
    keypoints = 60 + torch.rand(1, 17, 2, generator=torch.Generator().manual_seed(0)) * 60
    flipped, _ = flip_keypoints(keypoints, torch.ones(1, 17), COCO.flip_order, 192)
    straight = codec.draw(codec.to_heatmap(keypoints))
    return straight, flip_heatmaps(codec.draw(codec.to_heatmap(flipped)), COCO.flip_order, shift)


def test_unbiased_heatmaps_of_the_mirror_image_fall_on_the_picture_s_own():
    straight, back = mirrored_back(HeatmapCodec((192, 256), unbiased=True), shift=False)
    assert torch.allclose(straight, back, atol=1e-4)


def test_biased_heatmaps_need_the_shift():
    codec = HeatmapCodec((192, 256))
    straight, back = mirrored_back(codec, shift=False)
    _, shifted = mirrored_back(codec, shift=True)
    away = [
        (codec.decode(hm, "dark")[0] - codec.decode(straight, "dark")[0])[..., 0] for hm in (back, shifted)
    ]
    assert torch.allclose(away[0], torch.tensor(-0.75), atol=0.01)  # 1 - 1 / stride
    assert torch.allclose(away[1], torch.tensor(0.25), atol=0.01)
