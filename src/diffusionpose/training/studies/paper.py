"""Tables 5, 6, 7 and Figures 4, 5. The numbers are of COCO val2017 with HRNet-W32 256x192, in percent."""

from __future__ import annotations

from diffusionpose.training.studies.study import Study, Variant

FULL = Variant("s = 4, all conditions, zeta = 0.05", "diffusionpose", 75.4, 80.5)
BASELINE = Variant("baseline", "baseline", 74.4, 78.9, head="convolution")

TABLE5 = Study(
    name="table5",
    kind="table",
    title="Table 5: conditions of the decoder",
    column="condition",
    variants=(
        BASELINE,
        Variant("features", "diffusionpose-features", 75.0, 80.0, conditions="features"),
        Variant("features, keypoints", "diffusionpose-keypoints", 75.2, None, conditions="keypoints"),
        Variant("features, keypoints, skeleton (SC-CA)", FULL.run, 75.4, 80.5),
    ),
    notes=(
        "The baseline is the same encoder, trained alike, with heatmaps by one convolution as HRNet's. Its "
        "targets are those of DiffusionPose (Gaussians at fractions of pixels), so that only the model "
        "differs; the paper's 74.4 is HRNet's own, whose targets stand at whole pixels.",
        "The paper's AR of the third row is missing in the text that this table was typed from.",
    ),
)

TABLE6 = Study(
    name="table6",
    kind="table",
    title="Table 6: resolution of the generated heatmaps",
    column="s",
    variants=(
        Variant("8", "diffusionpose-s8", 72.2, 78.1, stride=8),
        Variant("4", FULL.run, 75.4, 80.5),
        Variant("2", "diffusionpose-s2", 75.9, 81.1, stride=2),
        Variant("1", "diffusionpose-s1", 76.1, 81.3, stride=1),
    ),
    notes=("The width C of the decoder is the same in all rows, so the cost grows about fourfold a row.",),
)

TABLE7 = Study(
    name="table7",
    kind="table",
    title="Table 7: signal scale zeta",
    column="zeta, paper",
    variants=(
        Variant("0.01", "diffusionpose-zeta0.01", 75.3, 80.5, zeta=0.01),
        Variant("0.05", FULL.run, 75.4, 80.5),
        Variant("0.10", "diffusionpose-zeta0.10", 75.2, 80.4, zeta=0.10),
        Variant("0.50", "diffusionpose-zeta0.50", 71.6, 78.0, zeta=0.50),
        Variant("1.00", "diffusionpose-zeta1.00", 70.7, 77.5, zeta=1.00),
    ),
    notes=(
        "The zeta used is the paper's times 256 / input height: noise is counted in pixels of the heatmap, "
        "and so covers the same share of a smaller one. Its standard deviation at t = T is 1 / zeta pixels, "
        "given here in per cent of the map's height.",
    ),
)

FIGURE4 = Study(
    name="figure4",
    kind="steps",
    title="Figure 4: diffusion steps at inference",
    column="steps",
    variants=(FULL,),
    steps=(0, 1, 2, 3, 4, 5),
    paper_steps={1: (75.4, 80.5)},
    notes=(
        "Of the figure the text gives one step (75.4 AP) and a gain of 0.1 to 0.2 AP from more; 0 steps are "
        "the coarse heatmaps, which the paper does not measure.",
    ),
)

FIGURE5 = Study(
    name="figure5",
    kind="pictures",
    title="Figure 5: heatmaps on hard pictures",
    column="model",
    variants=(BASELINE, FULL),
    steps=(0, 1),
    notes=("The paper's pictures are chosen cases of CrowdPose; these are drawn by the rule below.",),
)

PAPER_STUDIES = (TABLE5, TABLE6, TABLE7, FIGURE4, FIGURE5)
