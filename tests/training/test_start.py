from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from diffusionpose.errors import InputError
from diffusionpose.models.checkpoints import save_model
from diffusionpose.training.start import starting_model


@pytest.fixture
def tiny(tiny):
    """At 64x96, as the crops here are."""
    return replace(tiny, input_size=(64, 96), options={})


def test_the_seed_decides_the_first_weights(tiny):
    first, same, other = (
        starting_model(replace(tiny, seed=seed)).state_dict()["encoder.laterals.0.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_fine_tuning_takes_what_fits_another_skeleton(tiny, tmp_path, capsys):
    source = starting_model(replace(tiny, seed=1))
    save_model(source, tmp_path / "source.safetensors")
    model = starting_model(
        replace(tiny, skeleton="crowdpose", seed=2), weights=tmp_path / "source.safetensors"
    )
    assert torch.equal(model.encoder.laterals[0].weight, source.encoder.laterals[0].weight)
    assert model.skeleton.num_joints == 14
    assert "source.safetensors" in capsys.readouterr().out


def test_weights_of_another_kind_of_encoder_are_refused(tiny, tmp_path):
    save_model(starting_model(tiny), tmp_path / "tiny.safetensors")
    other = replace(tiny, model="mobilenetv2", options={})
    with pytest.raises(InputError, match=r"tiny\.safetensors.*mobilenetv2"):
        starting_model(other, weights=tmp_path / "tiny.safetensors")


def test_encoder_weights_are_read_from_a_file_but_not_when_resuming(tiny, tmp_path):
    path = tmp_path / "encoder.safetensors"
    source = starting_model(replace(tiny, seed=1))
    save_file(
        {name: value.contiguous() for name, value in source.encoder.backbone.state_dict().items()}, path
    )
    model = starting_model(replace(tiny, seed=2), encoder_weights=path)
    for name, value in model.encoder.backbone.state_dict().items():
        assert torch.equal(value, source.encoder.backbone.state_dict()[name]), name
    path.unlink()
    starting_model(tiny, encoder_weights=path, resuming=True)
    with pytest.raises(InputError, match=r"encoder\.safetensors"):
        starting_model(tiny, encoder_weights=path)


def test_imagenet_weights_that_cannot_be_fetched_name_the_options(tiny, monkeypatch):
    import timm

    def no_network(*args, pretrained=False, **options):
        assert pretrained
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"no route to host.*--encoder-weights"):
        starting_model(replace(tiny, pretrained=True))


SHALLOW = {"depth": 2, "embed_dim": 48, "num_heads": 3}


@pytest.mark.parametrize(
    ("source", "target", "options"),
    [
        ("tiny", "diffusionpose_tiny", {}),
        ("vitpose_s", "diffusionpose_vit_s", {"encoder": SHALLOW}),
    ],
)
def test_diffusionpose_and_the_heatmap_model_on_its_encoder_start_from_each_other(
    tiny, tmp_path, source, target, options
):
    """The coarse heatmaps are then that model's heatmaps."""
    given = starting_model(replace(tiny, model=source, options=options, seed=1)).eval()
    save_model(given, tmp_path / "source.safetensors")
    settings = replace(tiny, model=target, options={"width": 16, **options}, seed=2)
    model = starting_model(settings, weights=tmp_path / "source.safetensors").eval()
    crops = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(model(crops, steps=0), given(crops), atol=1e-6)
    save_model(model, tmp_path / "target.safetensors")
    settings = replace(tiny, model=source, options=options, seed=3)
    again = starting_model(settings, weights=tmp_path / "target.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(again(crops), given(crops))


def test_diffusionpose_takes_the_encoder_of_a_head_it_does_not_have(tiny, tmp_path):
    given = starting_model(replace(tiny, model="vitpose_s_simple", options={"encoder": SHALLOW}, seed=1))
    save_model(given, tmp_path / "source.safetensors")
    settings = replace(tiny, model="diffusionpose_vit_s", options={"width": 16, "encoder": SHALLOW}, seed=2)
    model = starting_model(settings, weights=tmp_path / "source.safetensors")
    for name, value in given.encoder.state_dict().items():
        assert torch.equal(model.encoder.inner.state_dict()[name], value), name


@pytest.mark.parametrize("size", [(96, 128), (96, 64)])  # the second has as many patches, placed otherwise
@pytest.mark.parametrize("target", ["vitpose_s", "diffusionpose_vit_s"])
def test_positions_follow_the_input_size(tiny, tmp_path, target, size):
    """A table that rises linearly across the picture still does so on another grid."""
    given = starting_model(replace(tiny, model="vitpose_s", options={"encoder": SHALLOW}))
    rise = torch.linspace(0, 1, 4).expand(6, 4).flatten()
    given.encoder.backbone.pos_embed.data[:] = rise[None, :, None]
    save_model(given, tmp_path / "source.safetensors")
    settings = replace(tiny, model=target, options={"encoder": SHALLOW}, input_size=size)
    model = starting_model(settings, weights=tmp_path / "source.safetensors")
    encoder = getattr(model.encoder, "inner", model.encoder)
    table = encoder.backbone.pos_embed.detach().unflatten(1, encoder.grid)[0, :, :, 0]
    assert table.shape == (size[1] // 16, size[0] // 16)
    assert torch.allclose(table, table[0].expand_as(table), atol=1e-5)
    assert (table[0].diff() > 0.1).all()
