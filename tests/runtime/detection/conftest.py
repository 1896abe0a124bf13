"""Small detectors with random weights, in the formats of transformers and of torchvision."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

CLASSES = {0: "person", 1: "dog"}


def _options(**options: object) -> dict:
    common = {"encoder_hidden_dim": 16, "encoder_ffn_dim": 16, "encoder_attention_heads": 2}
    decoder = {"d_model": 16, "decoder_in_channels": [16] * 3, "decoder_ffn_dim": 16, "decoder_layers": 2}
    more = {"decoder_attention_heads": 2, "num_queries": 30, "num_denoising": 0, "anchor_image_size": None}
    return {**common, **decoder, **more, "id2label": CLASSES, **options}


def _model(kind: str, **options: object) -> torch.nn.Module:
    """RT-DETR, RT-DETRv2 or D-FINE, 16 channels wide."""
    import transformers as t

    if kind == "dfine":
        four = {"depths": [1] * 4, "stage_num_blocks": [1] * 4, "stage_numb_of_layers": [1] * 4}
        four |= {
            "stage_light_block": [False] * 4,
            "stage_kernel_size": [3] * 4,
            "stage_mid_channels": [8] * 4,
        }
        channels = {"stem_channels": [3, 8, 8], "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16]}
        channels |= {"stage_in_channels": [8, 8, 16, 16], "stage_out_channels": [8, 16, 16, 16]}
        levels = {"out_features": ["stage2", "stage3", "stage4"]}
        backbone = t.HGNetV2Config(**four, **channels, **levels, stage_downsample=[False, True, True, True])
        config = t.DFineConfig(backbone_config=backbone, **_options(encoder_in_channels=[16] * 3, **options))
        return t.DFineForObjectDetection(config)
    backbone = t.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    v2 = kind == "rtdetr_v2"
    config = (t.RTDetrV2Config if v2 else t.RTDetrConfig)(
        backbone_config=backbone, **_options(encoder_in_channels=[8, 16, 16], **options)
    )
    return (t.RTDetrV2ForObjectDetection if v2 else t.RTDetrForObjectDetection)(config)


@pytest.fixture(scope="session")
def detr_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``detr_folder(kind, **options)``: a folder that save_pretrained wrote, made once for each kind."""
    pytest.importorskip("transformers")
    from transformers import RTDetrImageProcessor

    made: dict[str, Path] = {}

    def make(kind: str, **options: object) -> Path:
        key = f"{kind} {options}"
        if key not in made:
            torch.manual_seed(0)
            made[key] = tmp_path_factory.mktemp("detr")
            _model(kind, **options).save_pretrained(made[key])
            RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def ssdlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of torchvision's smallest detector, named as torchvision names its files."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ssdlite") / "ssdlite320_mobilenet_v3_large_coco-12345678.pth"
    model = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), path)
    return path
