"""The comparison of a graph with PyTorch, with PyTorch itself, changed, in the place of onnxruntime."""

import numpy as np
import pytest
import torch

from diffusionpose.models.export import BATCHES, ExportedGraph, ParityError, compare, random_crops


def runner(graph, change=lambda outputs: outputs):
    def run(images):
        with torch.no_grad():
            return change([output.numpy().copy() for output in graph(torch.from_numpy(images))])

    return run


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_equal_graphs_pass(lively, steps, flip):
    graph = ExportedGraph(lively(), steps, flip)
    parity = compare(graph, runner(graph), runner(graph))
    assert max(parity.difference, parity.end_to_end) < 1e-6
    assert (parity.ties, parity.crops) == (0, sum(BATCHES))


@pytest.mark.parametrize("output", [0, 1, 2, 3])
@pytest.mark.parametrize("wrong", [2e-3, np.nan])
def test_a_step_that_differs_is_found(lively, output, wrong):
    graph = ExportedGraph(lively(), 2, True)

    def change(outputs):
        outputs[output][-1, -1, -1, -1] += wrong
        return outputs

    with pytest.raises(ParityError, match="the graph differs from PyTorch"):
        compare(graph, runner(graph), runner(graph, change))


def test_a_file_that_differs_from_its_steps_is_found(lively):
    graph = ExportedGraph(lively(), 1, False)

    def change(outputs):
        outputs[0][-1, 0, 0, 0] += 0.5
        return outputs

    with pytest.raises(ParityError, match="crop 0 of 1"):
        compare(graph, runner(graph, change), runner(graph))
    with pytest.raises(ParityError, match="have shape"):
        compare(graph, runner(graph), runner(graph, lambda outputs: [output[:, 1:] for output in outputs]))


def test_a_tie_excuses_the_whole_but_no_step(lively):
    """All pixels are equal; the other side takes one of them for the maximum, by less than rounding."""
    model = lively()
    graph = ExportedGraph(model, 1, False)
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.zero_()

    def other(images):
        with torch.no_grad():
            coarse = torch.zeros(len(images), 14, 24, 16)
            coarse[:, :, 12, 8] = 1e-7
            return [graph.next_step(torch.from_numpy(images), coarse, 0).numpy(), coarse.numpy()]

    images = random_crops(1, model.input_size)
    whole = np.abs(other(images)[0] - runner(graph)(images)[0]).max()
    assert whole > 1e-3, "the mask elsewhere makes a difference"
    parity = compare(graph, other, other)
    assert parity.ties == sum(BATCHES)
    assert parity.difference < 1e-5

    def broken(images):
        last, coarse = other(images)
        return [last + 0.01, coarse]

    with pytest.raises(ParityError, match="step 1 alone"):
        compare(graph, broken, broken)
    with pytest.raises(ParityError, match="the file and its steps"):
        compare(graph, broken, other)


def test_random_crops_look_like_pictures():
    made = random_crops(8, (64, 96))
    assert made.shape == (8, 3, 96, 64)
    assert made.dtype == np.uint8
    assert np.array_equal(made, random_crops(8, (64, 96)))
    neighbours = np.abs(np.diff(made.astype(float), axis=3)).mean()
    assert 1 < neighbours < 0.5 * made.std(), "neighbours are alike but not the same"
