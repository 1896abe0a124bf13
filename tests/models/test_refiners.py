"""PoseFix and OPEC-Net: what they see of a pose, what they learn, how their answer is told."""

import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry import Start, draw_heatmaps
from diffusionpose.models.refiners import GraphConvolution, soft_argmax
from diffusionpose.models.zoo import create_model

SIZE = (64, 96)
NAMES = ("posefix_tiny", "opecnet_tiny")


def make(name, **options):
    torch.manual_seed(0)
    return create_model(name, "crowdpose", input_size=SIZE, **options)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, SIZE[1], SIZE[0]), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(2, 14, 2, generator=generator) * torch.tensor([60.0, 92.0])
    start = keypoints + 4 * torch.randn(2, 14, 2, generator=generator)
    return images, keypoints, torch.ones(2, 14), {"start": start}


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_a_pose_and_is_trained_on_errors(name, batch):
    model = make(name)
    assert model.takes_start
    assert model.needs_start
    assert model.learns_from_errors
    with pytest.raises(InputError, match=f"{name} refines poses, and none is given"):
        model(batch[0])


@pytest.mark.parametrize(("name", "rate", "steps"), [*zip(NAMES, (3e-3, 5e-3), (50, 30), strict=True)])
def test_it_learns_a_batch_by_heart(name, rate, steps, batch):
    """Its answers come nearer to the truth than the poses it got."""
    model = make(name)
    images, keypoints, visible, noise = batch
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        optimiser.zero_grad()
        model.loss(images, keypoints, visible, noise)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        y, confidence = model.refine(images, Start(noise["start"], visible))
    ratio = model.codec.stride
    off = (y * ratio - keypoints).norm(dim=2).mean()
    assert off < 0.8 * (noise["start"] - keypoints).norm(dim=2).mean()
    assert ((confidence > 0) & (confidence <= 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_joints_that_are_not_given_do_not_count(name, batch):
    model = make(name).eval()
    images, keypoints, given, _ = batch
    given[:, 3] = 0
    with torch.no_grad():
        for parameter in model.parameters():  # those that begin at zero, too
            parameter.add_(0.01 * torch.randn_like(parameter))
        once = model(images, None, Start(keypoints, given))
        keypoints[:, 3] = torch.nan
        again = model(images, None, Start(keypoints, given))
        keypoints[:, 4] += 20
        other = model(images, None, Start(keypoints, given))
    assert torch.equal(once, again)
    assert not torch.allclose(once, other)


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_joints_do_not_count_in_the_loss(name, batch):
    model = make(name).eval()
    images, keypoints, visible, noise = batch
    visible[:, 5] = 0
    loss = model.loss(images, keypoints, visible, noise)["loss"]
    keypoints[:, 5], noise["start"][:, 5] = 1e4, -1e4
    assert model.loss(images, keypoints, visible, noise)["loss"].item() == pytest.approx(loss.item())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["argmax", "quarter", "dark"])
def test_every_decoder_reads_the_answer_back(name, method, batch):
    model = make(name).eval()
    images, keypoints, visible, _ = batch
    start = Start(keypoints, visible)
    with torch.no_grad():
        y, confidence = model.refine(images, start)
        found, scores = model.codec.decode(model(images, None, start), method)
    inside = ((y >= 2) & (y <= torch.tensor(model.codec.size) - 3)).all(2)
    assert inside.any()
    far = (found - y)[inside].abs().max()
    assert far < {"argmax": 0.51, "quarter": 0.51, "dark": 0.05}[method]
    assert (scores <= confidence + 1e-6).all()


def test_posefix_begins_as_the_picture_network_and_keeps_its_weights(batch):
    plain, model = (
        create_model(name, "crowdpose", input_size=SIZE).eval() for name in ("tiny", "posefix_tiny")
    )
    first = next(iter(plain.encoder.state_dict()))
    weights = plain.encoder.state_dict()
    own = model.encoder.state_dict()
    assert own[first].shape[1] == weights[first].shape[1] + 14
    own[first][:, :3] = weights.pop(first)
    model.encoder.load_state_dict({**own, **weights})
    images, keypoints, visible, _ = batch
    with torch.no_grad():
        feature = plain.encoder(plain.normalise(images))
        assert torch.allclose(model.logits(images, keypoints, visible), model.head(feature), atol=1e-6)
    with pytest.raises(InputError, match="must learn; leave out frozen"):
        make("posefix_movenet", encoder={"frozen": 3})


def test_soft_argmax_of_a_gaussian_is_its_middle():
    middle = torch.tensor([[[7.3, 10.6]]])
    maps = draw_heatmaps(middle, (16, 24), 1.0)
    assert torch.allclose(soft_argmax(maps / maps.sum()), middle, atol=1e-3)


def test_a_graph_convolution_sees_neighbours_alone():
    linked = torch.eye(4, dtype=torch.bool)
    linked[0, 1] = linked[1, 0] = True
    layer = GraphConvolution(3, 2, linked)
    x = torch.randn(1, 4, 3, requires_grad=True)
    layer(x)[0, 0].sum().backward()
    assert (x.grad[0].abs().sum(1) > 0).tolist() == [True, True, False, False]
