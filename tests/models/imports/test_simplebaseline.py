"""SimpleBaseline of other projects: outputs of torchvision's ResNet and plain deconvolutions."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import resnet50

from diffusionpose.models.imports.convert import import_weights
from diffusionpose.models.imports.layouts import ImportedEncoder

# what cv2.imread's blue, green, red were normalised by, as if they were red, green, blue
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SIZE = (64, 96)


def crops(count=2):
    return torch.randint(
        0, 256, (count, 3, 96, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def original(weights, images):
    """The published network on pictures in the order of colours it was trained on."""
    network = resnet50().eval()
    trunk = {n: v for n, v in weights.items() if not n.startswith(("deconv", "final"))}
    assert network.load_state_dict(trunk, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    x = (images / 255 - MEAN) / STD
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    x = network.layer4(network.layer3(network.layer2(network.layer1(x))))
    for i in (0, 3, 6):
        x = F.conv_transpose2d(x, weights[f"deconv_layers.{i}.weight"], stride=2, padding=1)
        mean, var, scale, shift = (
            weights[f"deconv_layers.{i + 1}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = torch.relu(F.batch_norm(x, mean, var, scale, shift))
    return F.conv2d(x, weights["final_layer.weight"], weights["final_layer.bias"])


@pytest.mark.parametrize("bgr", [None, True, False])
def test_official_weights_give_the_original_heatmaps(published, saved, bgr):
    weights = published("simplebaseline")
    imported = import_weights(saved(weights), "simplebaseline_r50", input_size=SIZE, bgr=bgr)
    with torch.no_grad():
        expected = original(weights, crops() if bgr is False else crops().flip(1))
        assert expected.std() > 0.1
        assert (imported.model(crops()) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert any("BGR" in note for note in imported.notes) == (bgr is not False)


@pytest.mark.parametrize(("layout", "head"), [("mmpose 0", "keypoint_head."), ("mmpose 1", "head.")])
def test_mmposes_weights_give_the_original_heatmaps(published, saved, layout, head):
    weights = published(f"simplebaseline {layout}")
    model = import_weights(saved({"state_dict": weights}), "simplebaseline_r50", input_size=SIZE).model
    plain = {name.removeprefix("backbone.").removeprefix(head): value for name, value in weights.items()}
    with torch.no_grad():
        expected = original(plain, crops())
        assert (model(crops()) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_torchvisions_resnet_becomes_an_encoders(published, saved):
    weights = published("resnet imagenet")
    assert {n: v.shape for n, v in weights.items()} == {
        n: v.shape for n, v in resnet50().state_dict().items()
    }
    imported = import_weights(saved(weights), "simplebaseline_r50")
    assert isinstance(imported, ImportedEncoder)
    assert imported.tensors.keys() == weights.keys() - {"fc.weight", "fc.bias"}
    assert imported.notes == ["left out: 2 weights, the classifier of ImageNet"]
