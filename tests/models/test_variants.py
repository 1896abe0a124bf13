"""Beyond the paper: other starts of training, a decoder that sees t, starts from given keypoints."""

import pytest
import torch

from diffusionpose import create_model
from diffusionpose.errors import InputError
from diffusionpose.models.pose_model import heatmap_loss
from diffusionpose.models.variants import TimedDecoder

SIZE = (48, 64)


def model(own_start=0.0, **options):
    torch.manual_seed(0)
    made = create_model(
        "diffusionpose_tiny", "crowdpose", input_size=SIZE, own_start=own_start, **options
    ).eval()
    with torch.no_grad():  # coarse heatmaps and a decoder that are not near zero
        made.conv.weight.normal_(0, 0.3)
        made.decoder.out.weight.normal_(0, 0.3)
    return made


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (6, 3, SIZE[1], SIZE[0]), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(6, 14, 2, generator=generator) * torch.tensor(SIZE)
    visible = (torch.rand(6, 14, generator=generator) > 0.3).float()
    return images, keypoints, visible


def drawn(made, count=6):
    return made.draw_noise(count, torch.Generator().manual_seed(2))


def test_with_1_the_decoder_is_trained_on_the_first_step_of_inference(batch):
    images, keypoints, visible = batch
    made = model(1.0)
    losses = made.loss(images, keypoints, visible, drawn(made))
    truth = made.codec.draw(made.codec.to_heatmap(keypoints))
    coarse, first = made.trajectory(images, steps=1)
    assert float(losses["decoder"]) == pytest.approx(float(heatmap_loss(first, truth, visible)), rel=1e-5)
    assert float(losses["coarse"]) == pytest.approx(float(heatmap_loss(coarse, truth, visible)), rel=1e-5)


def test_the_noise_without_it_is_the_papers_and_the_same_with_it(batch):
    plain, half = drawn(model(0.0)), drawn(model(0.5))
    assert set(plain) == {"t", "epsilon"}
    assert all(torch.equal(plain[name], half[name]) for name in plain)
    assert drawn(model(0.5), 1000)["own"].float().mean() == pytest.approx(0.5, abs=0.05)


def test_only_the_chosen_persons_start_from_their_own(batch):
    images, keypoints, visible = batch
    made = model(0.5)
    noise = drawn(made)
    each = []
    for own in (False, True):
        noise["own"] = torch.full((6,), own)
        each.append(
            [float(made.loss(images[i : i + 1], keypoints[i : i + 1], visible[i : i + 1],
                             {name: value[i : i + 1] for name, value in noise.items()})["decoder"])
             for i in range(6)]
        )  # fmt: skip
    noise["own"] = torch.tensor([True, False, True, False, False, True])
    mixed = float(made.loss(images, keypoints, visible, noise)["decoder"])
    expected = sum(each[int(own)][i] for i, own in enumerate(noise["own"])) / 6
    assert mixed == pytest.approx(expected, rel=1e-4)
    assert each[0] != pytest.approx(each[1], rel=1e-2)


def test_no_gradient_goes_through_the_start(batch):
    made = model(1.0)
    made.loss(*batch, drawn(made))["decoder"].backward()
    assert made.conv.weight.grad is None


@pytest.mark.parametrize("name", ["own_start", "mistakes"])
@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(name, share):
    with pytest.raises(InputError, match=f"{name}={share}: it must be a number from 0 to 1"):
        create_model("diffusionpose_tiny", **{name: share})


# --- mistakes of a first stage in the place of noise ---


def test_only_the_chosen_persons_start_with_mistakes(batch):
    images, keypoints, visible = batch
    made = model(mistakes=0.5)
    noise = drawn(made)
    plain = drawn(model())
    assert all(torch.equal(plain[name], noise[name]) for name in plain)
    assert drawn(made, 1000)["mistaken"].float().mean() == pytest.approx(0.5, abs=0.05)
    noise |= {"mistaken": torch.zeros(6, dtype=torch.bool), "start": keypoints + 5}
    expected = model().loss(images, keypoints, visible, plain)["loss"]
    assert made.loss(images, keypoints, visible, noise)["loss"].item() == pytest.approx(expected.item())
    noise["mistaken"] = ~noise["mistaken"]
    other = made.loss(images, keypoints, visible, noise)
    assert other["decoder"].item() != pytest.approx(expected.item(), rel=1e-3)
    other["loss"].backward()
    assert made.decoder.stem.weight.grad.abs().sum() > 0


def test_unlabelled_joints_do_not_count_in_a_start_with_mistakes(batch):
    images, keypoints, visible = batch
    made = model(mistakes=1.0)
    noise = drawn(made) | {"start": keypoints + 5}
    loss = made.loss(images, keypoints, visible, noise)["loss"]
    keypoints = torch.where(visible.bool()[..., None], keypoints, 1e4)
    noise["start"] = keypoints + 5
    assert made.loss(images, keypoints, visible, noise)["loss"].item() == pytest.approx(loss.item())


# --- a decoder that sees t ---


def test_the_decoder_sees_t_with_time_input_only():
    torch.manual_seed(0)
    seeing = TimedDecoder(14, 64, 16)
    hm_t, x_c = torch.rand(2, 14, 24, 16), torch.randn(2, 64, 24, 16)
    torch.nn.init.normal_(seeing.out.weight)
    assert not torch.equal(seeing(hm_t, x_c, torch.zeros(2)), seeing(hm_t, x_c, torch.ones(2)))
    with pytest.raises(ValueError, match="give it t"):
        seeing(hm_t, x_c)
    assert not model().time_input
    assert model(time_input=True).time_input


def test_with_time_input_steps_and_losses_differ_by_t(batch):
    images, keypoints, visible = batch
    made = model(time_input=True)
    noise = drawn(made)
    early = made.loss(images, keypoints, visible, noise | {"t": torch.full((6,), 1)})["decoder"].item()
    assert early != pytest.approx(made.loss(images, keypoints, visible, noise)["decoder"].item(), rel=1e-3)
    with torch.no_grad():
        x_fea, hm = made.encode(images)
        y_t, _ = made.codec.decode(hm, "argmax")
        assert torch.equal(made.step(x_fea, hm, y_t, torch.ones(6)), made.trajectory(images, 2)[1])
