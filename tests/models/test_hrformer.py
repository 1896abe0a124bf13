"""HRFormer's windows, padding, positions, fusion and stochastic depth."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusionpose.errors import InputError
from diffusionpose.models.hrformer import (
    Block,
    Fusion,
    HRFormer,
    HRFormerEncoder,
    LocalWindowAttention,
)


def reached(module: nn.Module, channels: int, size: tuple[int, int], place: tuple[int, int]) -> torch.Tensor:
    """Where the answer changes when the input does at ``place``: (h, w) booleans."""
    x = torch.randn(1, channels, *size)
    other = x.clone()
    other[..., place[0], place[1]] += torch.randn(channels)
    with torch.no_grad():
        return (module(x) - module(other)).abs().amax(dim=(0, 1)) > 1e-7


def window(rows: slice, columns: slice, size: tuple[int, int]) -> torch.Tensor:
    inside = torch.zeros(size, dtype=torch.bool)
    inside[rows, columns] = True
    return inside


def test_attention_is_its_definition():
    torch.manual_seed(0)
    attention = LocalWindowAttention(6, 2)
    inner = attention.inner
    nn.init.normal_(inner.relative_position_bias_table)
    x = torch.randn(1, 6, 7, 7)
    tokens = x.flatten(2).mT[0]
    q, k, v = (t.unflatten(1, (2, 3)) for t in inner.qkv(tokens).chunk(3, dim=1))
    expected = torch.zeros(49, 2, 3)
    for head in range(2):
        logits = q[:, head] @ k[:, head].T / 3**0.5
        for i in range(49):
            for j in range(49):
                down, across = i // 7 - j // 7, i % 7 - j % 7
                logits[i, j] += inner.relative_position_bias_table[(down + 6) * 13 + across + 6, head]
        expected[:, head] = logits.softmax(1) @ v[:, head]
    expected = inner.proj(expected.flatten(1)).T.unflatten(1, (7, 7))
    assert torch.allclose(attention(x)[0], expected, atol=1e-5)


# 10 rows are filled to 14, two above and two below, so that a border lies between rows 4 and 5; the
# same with 9 columns, two on the left and three on the right
@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ((0, 0), slice(0, 5), slice(0, 5)),
        ((4, 5), slice(0, 5), slice(5, 9)),
        ((9, 8), slice(5, 10), slice(5, 9)),
    ],
)
def test_attention_stays_inside_its_window(place, rows, columns):
    torch.manual_seed(0)
    seen = reached(LocalWindowAttention(8, 2), 8, (10, 9), place)
    assert torch.equal(seen, window(rows, columns, (10, 9)))


def test_a_blocks_convolution_reaches_one_place_beyond():
    torch.manual_seed(0)
    seen = reached(Block(8, 2, 0.0).eval(), 8, (10, 9), (1, 1))
    assert torch.equal(seen, window(slice(0, 6), slice(0, 6), (10, 9)))


def test_padding_takes_part_as_zeros():
    torch.manual_seed(0)
    attention = LocalWindowAttention(8, 2)
    x = torch.randn(2, 8, 9, 5)
    filled = nn.functional.pad(x, (1, 1, 2, 3))
    assert torch.allclose(attention(x), attention(filled)[..., 2:11, 1:6], atol=1e-6)


def test_fusion_brings_all_branches_to_one():
    torch.manual_seed(0)
    xs = [torch.randn(1, 4 * 2**i, 15 // 2**i + (i > 0), 12 // 2**i) for i in range(3)]  # heights 15, 8, 4
    for to, x in enumerate(xs):
        fusion = Fusion([4, 8, 16], to).eval()
        inputs = [other.clone().requires_grad_() for other in xs]
        y = fusion(inputs)
        assert y.shape == x.shape
        assert (y >= 0).all()
        y.sum().backward()
        assert all(other.grad.abs().sum() > 0 for other in inputs)
    for weight in (p for p in fusion.parameters() if p.ndim == 4):
        nn.init.zeros_(weight)
    assert torch.equal(fusion(xs), xs[-1].relu())


def test_structure_is_table_1():
    with torch.device("meta"):
        network = HRFormer(78, 2, 0.0)
    modules = [[len(module.branches) for module in stage] for stage in network.stages]
    assert modules == [[2], [3, 3, 3, 3], [4, 4]]
    last = network.stages[-1][-1]
    assert [len(branch) for branch in last.branches] == [2, 2, 2, 2]
    assert [branch[0].norm1.normalized_shape[0] for branch in last.branches] == [78, 156, 312, 624]
    assert [branch[0].attention.inner.num_heads for branch in last.branches] == [2, 4, 8, 16]
    assert [branch[0].ffn[3].groups for branch in last.branches] == [312, 624, 1248, 2496]
    assert [len(module.fusions) for module in network.stages[-1]] == [4, 1]


def test_stochastic_depth_grows_from_the_first_block_to_the_last():
    with torch.device("meta"):
        network = HRFormer(32, 1, 0.26)
    for branch in (0, 1):  # those that every stage has
        rates = [
            block.drop_path.drop_prob
            for stage in network.stages
            for module in stage
            for block in module.branches[branch]
        ]
        assert rates == pytest.approx([0.02 * i for i in range(14)])


def test_stochastic_depth_drops_both_paths_of_whole_people_in_training_only():
    torch.manual_seed(0)
    block = Block(8, 1, 0.999999).train()
    x = torch.randn(4, 8, 7, 7)
    assert torch.equal(block(x), x)
    assert not torch.allclose(block.eval()(x), x, atol=1e-3)


def test_weights_of_the_backbone_load(tmp_path):
    torch.manual_seed(0)
    one, other = HRFormerEncoder("small").eval(), HRFormerEncoder("small").eval()
    state = {**one.backbone.state_dict(), "classifier.weight": torch.zeros(3)}
    save_file(state, tmp_path / "hrformer.safetensors")
    other.load_backbone(tmp_path / "hrformer.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(one(x), other(x))


def test_weights_to_download_are_an_error():
    with pytest.raises(InputError, match="give a file of encoder weights"):
        HRFormerEncoder("small", pretrained=True)
