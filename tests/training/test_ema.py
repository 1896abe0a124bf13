import torch
from torch import nn

from diffusionpose.training.loop import averaged_copy, update_average


def test_the_average_is_the_sum_that_defines_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged_copy(model)
    expected = model[0].weight.detach().clone()
    running = model[1].running_mean.clone()
    for step in range(1000, 1005):
        with torch.no_grad():
            model[0].weight.normal_()
        model(torch.randn(8, 2))
        update_average(average, model, decay=0.9, step=step)
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
        running = 0.9 * running + 0.1 * model[1].running_mean
    torch.testing.assert_close(average[0].weight, expected)
    torch.testing.assert_close(average[1].running_mean, running)
    assert average[1].num_batches_tracked == 5


def test_the_first_steps_forget_the_initial_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = averaged_copy(model)
    nn.init.constant_(model.weight, 1.0)
    for step in range(100):
        update_average(average, model, decay=0.9999, step=step)
    assert abs(float(average.weight) - 1) < 1e-3


def test_the_average_is_never_trained():
    average = averaged_copy(nn.Sequential(nn.Linear(1, 1), nn.Dropout()))
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
