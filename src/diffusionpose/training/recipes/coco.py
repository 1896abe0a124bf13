"""Table 2: COCO val2017, person boxes of the 56.4 AP detector, 17 joints."""

from __future__ import annotations

from dataclasses import replace

from diffusionpose.training.settings import TrainingSettings


def diffusionpose_w32_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_coco --devices 8 ...``: DiffusionPose on
    HRNet-W32 as Table 2's cost column has it (38 M, 14 G: s = 4). Paper: 75.9 AP in Table 2, which is
    the s = 2 row of Table 6; for s = 4 Table 6 says 75.4.
    """
    return TrainingSettings(
        recipe="diffusionpose_w32_256x192_coco",
        model="diffusionpose_hrnet_w32",
        options={"stride": 4},
        skeleton="coco",
        input_size=(192, 256),
    )


def diffusionpose_w32_384x288_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_384x288_coco --devices 8 ...``: DiffusionPose on
    HRNet-W32 at 384x288, Table 2 (38 M, 31 G: s = 4). Paper: 77.1 AP.
    """
    return replace(
        diffusionpose_w32_256x192_coco(), recipe="diffusionpose_w32_384x288_coco", input_size=(288, 384)
    )


def diffusionpose_w48_256x192_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_coco --devices 8 ...``: DiffusionPose on
    HRNet-W48, Table 2 (74 M, 22 G: s = 4). Paper: 76.7 AP.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_w48_256x192_coco",
        model="diffusionpose_hrnet_w48",
    )


def diffusionpose_w48_384x288_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_384x288_coco --devices 8 ...``: DiffusionPose on
    HRNet-W48 at 384x288, Table 2 (74 M, 49 G: s = 4). Paper: 77.6 AP.
    """
    return replace(
        diffusionpose_w48_256x192_coco(), recipe="diffusionpose_w48_384x288_coco", input_size=(288, 384)
    )


def diffusionpose_w32_256x192_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_256x192_s2_coco --devices 8 ...``: heatmaps at half the
    input's resolution, as the paper advises in section 4.4; C = 64 keeps the cost of Table 2 (31.1 M,
    14.1 G). Paper: 75.9 AP (Table 6, s = 2).
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="diffusionpose_w32_256x192_s2_coco",
        options={"stride": 2, "width": 64},
    )


def diffusionpose_w32_384x288_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w32_384x288_s2_coco --devices 8 ...``: s = 2, C = 64 at
    384x288 (31.1 M, 31.8 G). Paper: 77.1 AP (Table 2).
    """
    return replace(
        diffusionpose_w32_256x192_s2_coco(), recipe="diffusionpose_w32_384x288_s2_coco", input_size=(288, 384)
    )


def diffusionpose_w48_256x192_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_256x192_s2_coco --devices 8 ...``: s = 2, C = 64 on
    HRNet-W48 (66.2 M, 22.5 G). Paper: 76.7 AP (Table 2).
    """
    return replace(
        diffusionpose_w32_256x192_s2_coco(),
        recipe="diffusionpose_w48_256x192_s2_coco",
        model="diffusionpose_hrnet_w48",
    )


def diffusionpose_w48_384x288_s2_coco() -> TrainingSettings:
    """``diffusionpose train diffusionpose_w48_384x288_s2_coco --devices 8 ...``: s = 2, C = 64 on
    HRNet-W48 at 384x288 (66.2 M, 50.7 G). Paper: 77.6 AP (Table 2).
    """
    return replace(
        diffusionpose_w48_256x192_s2_coco(), recipe="diffusionpose_w48_384x288_s2_coco", input_size=(288, 384)
    )


def hrnet_w32_256x192_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_256x192_coco --devices 8 ...``: the benchmark, HRNet-W32 (29 M, 8
    G). Paper: 74.4 AP. The schedule is the paper's for DiffusionPose, so that the two are compared
    fairly; HRNet's own starts at 1e-3. Targets are drawn at whole pixels, as HRNet's are.
    """
    return replace(
        diffusionpose_w32_256x192_coco(),
        recipe="hrnet_w32_256x192_coco",
        model="hrnet_w32",
        options={"quantise": True},
    )


def hrnet_w32_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_384x288_coco --devices 8 ...``: HRNet-W32 at 384x288 (29 M, 18
    G). Paper: 75.8 AP.
    """
    return replace(hrnet_w32_256x192_coco(), recipe="hrnet_w32_384x288_coco", input_size=(288, 384))


def hrnet_w48_256x192_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_256x192_coco --devices 8 ...``: HRNet-W48 (64 M, 16 G). Paper:
    75.1 AP.
    """
    return replace(hrnet_w32_256x192_coco(), recipe="hrnet_w48_256x192_coco", model="hrnet_w48")


def hrnet_w48_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_384x288_coco --devices 8 ...``: HRNet-W48 at 384x288 (64 M, 36
    G). Paper: 76.3 AP.
    """
    return replace(hrnet_w48_256x192_coco(), recipe="hrnet_w48_384x288_coco", input_size=(288, 384))


def hrnet_w32_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_dark_384x288_coco --devices 8 ...``: HRNet-W32 with DARK's
    decoder and targets at fractions of pixels (29 M, 18 G). Paper: 76.6 AP.
    """
    return replace(hrnet_w32_384x288_coco(), recipe="hrnet_w32_dark_384x288_coco", decode="dark", options={})


def hrnet_w48_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_dark_384x288_coco --devices 8 ...``: HRNet-W48 with DARK's
    decoder and targets at fractions of pixels (64 M, 36 G). Paper: 76.8 AP.
    """
    return replace(hrnet_w48_384x288_coco(), recipe="hrnet_w48_dark_384x288_coco", decode="dark", options={})


def hrnet_w32_udp_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w32_udp_dark_384x288_coco --devices 8 ...``: HRNet-W32, UDP's
    unbiased crops and DARK's decoder (29 M; the paper prints 16 G). Paper: 76.8 AP.
    """
    return replace(hrnet_w32_dark_384x288_coco(), recipe="hrnet_w32_udp_dark_384x288_coco", unbiased=True)


def hrnet_w48_udp_dark_384x288_coco() -> TrainingSettings:
    """``diffusionpose train hrnet_w48_udp_dark_384x288_coco --devices 8 ...``: HRNet-W48, UDP's
    unbiased crops and DARK's decoder (64 M, 36 G). Paper: 77.2 AP.
    """
    return replace(hrnet_w48_dark_384x288_coco(), recipe="hrnet_w48_udp_dark_384x288_coco", unbiased=True)


def simplebaseline_r152_256x192_coco() -> TrainingSettings:
    """``diffusionpose train simplebaseline_r152_256x192_coco --devices 8 ...``: SimpleBaseline on
    ResNet-152. Paper: 73.5 AP, 68 M and 29 G, which are the cost at 384x288; at 256x192
    SimpleBaseline's own paper has 68.6 M and 15.7 G.
    """
    return replace(
        hrnet_w32_256x192_coco(), recipe="simplebaseline_r152_256x192_coco", model="simplebaseline_r152"
    )


RECIPES = (
    diffusionpose_w32_256x192_coco,
    diffusionpose_w32_384x288_coco,
    diffusionpose_w48_256x192_coco,
    diffusionpose_w48_384x288_coco,
    diffusionpose_w32_256x192_s2_coco,
    diffusionpose_w32_384x288_s2_coco,
    diffusionpose_w48_256x192_s2_coco,
    diffusionpose_w48_384x288_s2_coco,
    hrnet_w32_256x192_coco,
    hrnet_w32_384x288_coco,
    hrnet_w48_256x192_coco,
    hrnet_w48_384x288_coco,
    hrnet_w32_dark_384x288_coco,
    hrnet_w48_dark_384x288_coco,
    hrnet_w32_udp_dark_384x288_coco,
    hrnet_w48_udp_dark_384x288_coco,
    simplebaseline_r152_256x192_coco,
)
