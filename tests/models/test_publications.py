"""Parameters and counts of every compared method within 2 % of its own publication's, counted its way."""

import pytest
import torch

from diffusionpose.models.costs import (
    PUBLICATIONS,
    RULES,
    count_as_published,
    count_parameters,
    publication_of,
)
from diffusionpose.models.zoo import MODELS, create_model

COMPARED = [name for name in MODELS if not name.startswith("diffusionpose") and name.split("_")[0] != "tiny"]


@pytest.mark.parametrize("stated", PUBLICATIONS, ids=lambda p: f"{p.model}-{p.input_size[1]}")
def test_within_2_percent(stated):
    with torch.device("meta"):
        model = create_model(stated.model, "coco", input_size=stated.input_size)
        counted = stated.counting and count_as_published(model, stated.counting, stated.unseen)
    counts = count_parameters(model.encoder if stated.backbone_only else model)
    assert counts / 1e6 == pytest.approx(stated.parameters, rel=0.02)
    if stated.multiply_adds is None:
        assert counted is None
    else:
        assert stated.counting in RULES
        assert counted == pytest.approx(stated.multiply_adds, rel=0.02)


def test_what_is_found_by_model_and_size():
    assert publication_of("hrnet_w32", (288, 384)).multiply_adds == 16.0
    assert publication_of("hrnet_w32", (96, 128)) is None
    # our own yardsticks have no publication, nor has the simple decoder a size of its own
    without = [n for n in COMPARED if publication_of(n, (192, 256)) is None]
    own = {"mobilenetv2", "mobilenetv2_unet", "hrnet_w32_unet"}
    assert set(without) == own | {"vitpose_s", *(f"vitpose_{s}_simple" for s in "sblh")}
