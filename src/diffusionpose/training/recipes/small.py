"""Trainings that a laptop finishes without a GPU; no row of the paper."""

from __future__ import annotations

from dataclasses import replace

from diffusionpose.training.settings import TrainingSettings


def diffusionpose_mobilenetv2_128x96_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_mobilenetv2_128x96_crowdpose --encoder-weights
    mobilenetv2_100.safetensors ...``: DiffusionPose on MobileNetV2 with a small feature pyramid, 14
    joints: several small sets at once (``--images A B --annotations a.json b.json``), minutes an epoch
    for 8,000 persons on 2 cores.
    """
    return TrainingSettings(
        recipe="diffusionpose_mobilenetv2_128x96_crowdpose",
        model="diffusionpose_mobilenetv2",
        skeleton="crowdpose",
        options={"zeta": 0.1},  # noise of up to 10 px: the same share of a 32x24 map as 20 px of a 64x48 one
        input_size=(96, 128),
        unbiased=True,
        epochs=18,
        optimiser="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_steps=250,
        schedule="cosine",
        clip_norm=1.0,
        ema_decay=0.998,
        decode="dark",
    )


def diffusionpose_mobilenetv2_192x144_crowdpose() -> TrainingSettings:
    """``diffusionpose train diffusionpose_mobilenetv2_192x144_crowdpose --encoder-weights
    mobilenetv2_100.safetensors ...``: the same at 192x144, at a bit over twice the time.
    """
    return replace(
        diffusionpose_mobilenetv2_128x96_crowdpose(),
        recipe="diffusionpose_mobilenetv2_192x144_crowdpose",
        input_size=(144, 192),
        options={"zeta": 0.067},  # the same share of a 48x36 map
    )


def mobilenetv2_128x96_crowdpose() -> TrainingSettings:
    """``diffusionpose train mobilenetv2_128x96_crowdpose --encoder-weights mobilenetv2_100.safetensors
    ...``: the yardstick of ``diffusionpose_mobilenetv2_128x96_crowdpose``: same encoder, pyramid, data,
    budget and seed, heatmaps by one convolution.
    """
    return replace(
        diffusionpose_mobilenetv2_128x96_crowdpose(),
        recipe="mobilenetv2_128x96_crowdpose",
        model="mobilenetv2",
        options={},
    )


def mobilenetv2_192x144_crowdpose() -> TrainingSettings:
    """``diffusionpose train mobilenetv2_192x144_crowdpose --encoder-weights mobilenetv2_100.safetensors
    ...``: the yardstick of ``diffusionpose_mobilenetv2_192x144_crowdpose``.
    """
    return replace(
        mobilenetv2_128x96_crowdpose(), recipe="mobilenetv2_192x144_crowdpose", input_size=(144, 192)
    )


def movenet_192x144_body() -> TrainingSettings:
    """``diffusionpose train movenet_192x144_body --encoder-weights movenet_thunder.fp16.safetensors ...``:
    heatmaps by one convolution on MoveNet's features, 19 joints (COCO's and CrowdPose's), for several data
    sets at once. The stem and the first blocks stay as they are.
    """
    return TrainingSettings(
        recipe="movenet_192x144_body",
        model="movenet",
        skeleton="coco+crowdpose",
        options={"encoder": {"frozen": 3}},
        input_size=(144, 192),
        unbiased=True,
        epochs=3,
        optimiser="adamw",
        learning_rate=5e-4,
        weight_decay=0.01,
        warmup_steps=100,
        schedule="cosine",
        clip_norm=1.0,
        ema_decay=0.998,
        decode="dark",
        augmentation={"rotation": 30.0},
    )


def movenet_256x192_body() -> TrainingSettings:
    """``diffusionpose train movenet_256x192_body --weights RUN ...``: the same at 256x192, from a run at 192x144."""
    return replace(
        movenet_192x144_body(),
        recipe="movenet_256x192_body",
        input_size=(192, 256),
        options={"encoder": {"frozen": 6}},
    )


def diffusionpose_movenet_256x192_body() -> TrainingSettings:
    """``diffusionpose train diffusionpose_movenet_256x192_body --weights RUN ...``: DiffusionPose (C = 32) from a
    run of ``movenet_256x192_body``; MobileNetV2's 17 blocks stay as they are.
    """
    return replace(
        movenet_256x192_body(),
        recipe="diffusionpose_movenet_256x192_body",
        model="diffusionpose_movenet",
        options={"encoder": {"frozen": 17}},
    )


def diffusionpose_tiny_synthetic() -> TrainingSettings:
    """``diffusionpose train diffusionpose_tiny_synthetic ...``: the tiny model, from scratch, on
    synthetic people (``diffusionpose.data.synthetic.write_synthetic``): a first try that needs no
    download and ends within minutes.
    """
    return replace(
        diffusionpose_mobilenetv2_128x96_crowdpose(),
        recipe="diffusionpose_tiny_synthetic",
        model="diffusionpose_tiny",
        pretrained=False,
        input_size=(64, 96),
        epochs=20,
        batch_size=16,
        learning_rate=2e-3,
        warmup_steps=50,
        ema_decay=0.99,
        augmentation={"scale": 0.2, "rotation": 20.0, "half_body": 0.0},
        flip=False,
    )


RECIPES = (
    diffusionpose_mobilenetv2_128x96_crowdpose,
    diffusionpose_mobilenetv2_192x144_crowdpose,
    mobilenetv2_128x96_crowdpose,
    mobilenetv2_192x144_crowdpose,
    movenet_192x144_body,
    movenet_256x192_body,
    diffusionpose_movenet_256x192_body,
    diffusionpose_tiny_synthetic,
)
