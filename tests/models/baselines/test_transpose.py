"""TransPose's layer against torch's own attention and transformer layer with the same weights."""

import pytest
import torch
from torch import nn

from diffusionpose.models.heads import EncoderLayer, TransPoseHead


def reference(layer: EncoderLayer, width: int, heads: int, feedforward: int) -> nn.TransformerEncoderLayer:
    other = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True)
    own = {
        "self_attn.in_proj_weight": torch.cat([layer.query_key.weight, layer.value.weight]),
        "self_attn.in_proj_bias": torch.cat([layer.query_key.bias, layer.value.bias]),
        "self_attn.out_proj.weight": layer.out.weight,
        "self_attn.out_proj.bias": layer.out.bias,
    }
    for name in ("norm1", "norm2", "linear1", "linear2"):
        own |= {f"{name}.{key}": value for key, value in getattr(layer, name).state_dict().items()}
    other.load_state_dict(own)
    return other


@pytest.fixture
def layer() -> EncoderLayer:
    torch.manual_seed(0)
    return EncoderLayer(16, 2, 24, dropout=0.0)


def test_without_positions_it_is_a_transformer_encoder_layer(layer):
    x = torch.randn(3, 7, 16)
    assert torch.allclose(layer(x, torch.zeros(7, 16)), reference(layer, 16, 2, 24)(x), atol=1e-5)


def test_positions_go_into_query_and_key_but_not_into_value(layer):
    x, positions = torch.randn(3, 7, 16), torch.randn(7, 16)
    other = reference(layer, 16, 2, 24)
    placed = x + positions
    y = other.norm1(x + other.self_attn(placed, placed, x, need_weights=False)[0])
    expected = other.norm2(y + other.linear2(other.linear1(y).relu()))
    assert torch.allclose(layer(x, positions), expected, atol=1e-5)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layer = EncoderLayer(16, 1, 24, dropout=0.5)
    x, positions = torch.randn(1, 7, 16), torch.randn(7, 16)
    assert not torch.equal(layer(x, positions), layer(x, positions))
    layer.eval()
    assert torch.equal(layer(x, positions), layer(x, positions))


def test_every_place_sees_every_other():
    torch.manual_seed(0)
    head = TransPoseHead(8, 5, (6, 4), width=16, depth=1).eval()
    feature = torch.randn(1, 8, 4, 6, requires_grad=True)
    head(feature)[0, 0, 0, 0].backward()
    assert (feature.grad[0].abs().sum(0) > 0).all()


def test_heatmaps_begin_nearly_empty():
    torch.manual_seed(0)
    assert TransPoseHead(48, 17, (12, 16))(torch.randn(2, 48, 16, 12)).abs().max() < 0.1


def test_a_width_that_heads_cannot_share_is_an_error():
    with pytest.raises(ValueError, match="3 heads"):
        TransPoseHead(8, 5, (4, 4), width=16, heads=3)
