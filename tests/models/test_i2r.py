"""I2R-Net: who sees whom, whatever the batch, and that it is learned."""

import numpy as np
import pytest
import torch

from diffusionpose.errors import InputError
from diffusionpose.geometry import Neighbours
from diffusionpose.models.i2r import InterHuman, PlaceEmbedding
from diffusionpose.models.zoo import create_model
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.networks import TorchNetwork

SIZE = (64, 96)
PICTURES = [7, 3, 7, 9, 3, 7]  # of six persons: three, two, and one alone


def make(name="i2rnet_tiny", **options):
    torch.manual_seed(0)
    model = create_model(name, "crowdpose", input_size=SIZE, **options)
    if name == "i2rnet_tiny":  # weights of the inter-human way that are not nearly zero
        for parameter in model.up.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        torch.nn.init.normal_(model.final.weight)
    return model.eval()


@pytest.fixture
def people():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (6, 3, SIZE[1], SIZE[0]), dtype=torch.uint8, generator=generator)
    corners = torch.rand(6, 2, 2, generator=generator).sort(1).values
    return images, Neighbours(torch.tensor(PICTURES), corners.flatten(1))


def answer(model, people, rows):
    images, among = people
    with torch.no_grad():
        return model.trajectory(images[rows], neighbours=Neighbours(among.picture[rows], among.place[rows]))[
            -1
        ]


def same(one, other):
    return (one - other).abs().max() < 1e-4 * other.abs().max()


def test_a_batch_of_pictures_is_each_picture_alone(people):
    """Persons of other pictures, and the filling up of smaller pictures, change nothing."""
    model = make()
    whole = answer(model, people, list(range(6)))
    for picture in set(PICTURES):
        rows = [row for row, each in enumerate(PICTURES) if each == picture]
        assert same(answer(model, people, rows), whole[rows])


def test_order_does_not_matter_and_neighbours_do(people):
    model = make()
    whole, order = answer(model, people, list(range(6))), [4, 0, 3, 5, 2, 1]
    assert same(answer(model, people, order), whole[order])
    assert not same(answer(model, people, [0]), whole[[0]])
    assert same(answer(model, people, [3]), whole[[3]])


def test_nobody_told_is_everyone_alone(people):
    images, _ = people
    model, blind = make(), make(neighbours=False)
    assert not blind.sees_neighbours
    with torch.no_grad():
        alone = model(images)
        assert same(torch.cat([answer(model, people, [row]) for row in range(6)]), alone)
        assert same(blind.trajectory(images, neighbours=people[1])[-1], alone)


def test_the_attention_is_that_over_all_tokens_of_a_picture():
    """Written anew: the tokens of a picture's persons one after another through the layers."""
    torch.manual_seed(0)
    inter = InterHuman(8, 2, 2, 16, 0.0).eval()
    x, places = torch.randn(3, 8, 3, 2), torch.randn(3, 8, 3, 2)
    found = inter(x, torch.tensor([5, 1, 5]), places)
    y, positions = (torch.cat([each[0].flatten(1), each[2].flatten(1)], 1).T for each in (x, places))
    y = y[None]
    for layer in inter.layers:
        y = layer(y, positions)
    expected = y[0].T.reshape(8, 2, 3, 2).transpose(0, 1)
    assert torch.allclose(found[[0, 2]], expected, atol=1e-5)


def test_a_place_is_the_mask_of_the_box_in_the_picture():
    embedding = PlaceEmbedding(8)
    seen = []
    embedding.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert embedding(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), SIZE).shape == (1, 8, 6, 4)
    expected = torch.zeros(SIZE[1], SIZE[0])
    expected[48:, 16:48] = 1
    assert torch.equal(seen[0][0, 0], expected)


def test_the_vanilla_version_knows_where_everyone_is(people):
    with torch.device("meta"):
        model = create_model("i2rnet_hrnet_w48", "crowdpose", input_size=SIZE)
        assert model(people[0].to("meta")).shape == (6, 14, 24, 16)
    assert len(model.inter.layers) == 6
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in model.up) == 1


def test_the_loss_is_that_of_persons_among_their_neighbours(people):
    model, (images, among) = make(), people
    keypoints, visible = torch.full((6, 14, 2), 30.0), torch.ones(6, 14)
    hm_0 = model.codec.draw(model.codec.to_heatmap(keypoints))
    with torch.no_grad():
        noise = {"picture": among.picture, "place": among.place}
        found, alone = (float(model.loss(images, keypoints, visible, n)["loss"]) for n in (noise, {}))
        expected = [(maps - hm_0).square().mean() for maps in model.both(images, among)]
    assert found == pytest.approx(float(sum(expected)) / 2, rel=1e-5)
    assert found != pytest.approx(alone, rel=1e-4)


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(InputError, match="multiples of 16"):
        create_model("i2rnet_tiny", input_size=(72, 96))


@pytest.mark.parametrize("flip", [True, False])
def test_an_estimator_keeps_the_persons_of_a_picture_together(flip):
    """Whatever its batch size: the poses are those of each picture by itself."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (120, 160, 3)).astype(np.uint8) for _ in range(2)]
    boxes = [[[5, 5, 60, 100], [50, 10, 110, 110], [90, 0, 150, 90]], [[20, 10, 90, 100], [70, 20, 150, 115]]]
    model = make()
    options = {"device": "cpu", "flip": flip, "decode": "argmax"}
    small, large = (PoseEstimator(model, batch_size=size, **options) for size in (1, 64))
    alone = PoseEstimator(make(neighbours=False), **options)
    scores = [
        np.array([pose.scores for poses in estimator(images, boxes) for pose in poses])
        for estimator in (small, large, alone)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3)
    assert np.abs(scores[0] - scores[2]).max() > 1e-2
    assert TorchNetwork(model).sees_neighbours


def test_mirrored_pictures_are_pictures_of_their_own():
    among = Neighbours(np.array([0, 0, 2]), np.array([[0.1, 0.2, 0.4, 0.9]] * 3, np.float32))
    both = among.with_mirrored()
    assert both.picture.tolist() == [0, 0, 2, 3, 3, 5]
    np.testing.assert_allclose(both.place[3], [0.6, 0.2, 0.9, 0.9], rtol=1e-6)
    with pytest.raises(InputError, match="width and height are not known"):
        Neighbours(np.zeros(1, np.int64), np.full((1, 4), np.nan))
