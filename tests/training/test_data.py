import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusionpose.data.synthetic import write_synthetic
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, CROWDPOSE
from diffusionpose.training.data import EpochSampler, PersonDataModule, read_persons
from diffusionpose.training.settings import ImageSet, Machine


def persons_of(images, settings, *more):
    sets = [(read_persons(each, CROWDPOSE).labelled(), each.images) for each in (images, *more)]
    return PersonDataModule(sets, settings, Machine(workers=0))


def test_two_processes_see_the_batches_of_one(images, tiny):
    persons = persons_of(images, tiny).persons
    one = EpochSampler(persons, seed=3, batch=4)
    two = [EpochSampler(persons, seed=3, batch=4, rank=rank, world=2) for rank in (0, 1)]
    for epoch in (0, 1):
        for sampler in (one, *two):
            sampler.set_epoch(epoch)
        whole, halves = list(one), [list(sampler) for sampler in two]
        assert len(whole) == len(one)
        for step in range(one.steps):
            mine = [half[2 * step : 2 * step + 2] for half in halves]
            assert whole[4 * step : 4 * step + 4] == [mine[0][0], mine[1][0], mine[0][1], mine[1][1]]


def test_every_epoch_has_its_own_order_and_no_person_twice(images, tiny):
    sampler = EpochSampler(persons_of(images, tiny).persons, seed=0, batch=4)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]
    assert len(set(orders[0])) == len(orders[0])


def test_a_set_smaller_than_a_batch_is_repeated(images, tiny):
    persons = persons_of(images, tiny).persons
    order = list(EpochSampler(persons, seed=0, batch=len(persons) + 3))
    assert len(order) == len(persons) + 3
    assert set(order) == set(range(len(persons)))


def test_sets_of_different_skeletons_are_trained_together(images, tiny, tmp_path):
    other = ImageSet(*map(Path, write_synthetic(tmp_path, 2, seed=1, skeleton=CROWDPOSE)))
    joint, alone = persons_of(images, tiny, other), persons_of(images, tiny)
    assert len(joint.persons) > len(alone.persons)
    head = CROWDPOSE.index("head")  # COCO has no such joint
    labelled = torch.stack([joint.persons[index]["visible"] for index in range(len(joint.persons))])
    assert labelled[: len(alone.persons), head].sum() == 0
    assert labelled[len(alone.persons) :, head].sum() > 0


def test_a_missing_folder_a_missing_picture_and_unlabelled_persons_are_named(images, tiny, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_persons(ImageSet(tmp_path / "nowhere", images.annotations), COCO)
    pictures = tmp_path / "pictures"
    shutil.copytree(images.images, pictures)
    name = sorted(pictures.iterdir())[0]
    name.unlink()
    with pytest.raises(InputError, match=name.name):
        persons_of(replace(images, images=pictures), tiny)


def test_persons_without_a_labelled_joint_of_the_skeleton_are_an_error(images, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text(
        images.annotations.read_text().replace('"annotations": [', '"annotations": [], "rest": [')
    )
    with pytest.raises(InputError, match=r"empty\.json.*--skeleton"):
        read_persons(ImageSet(images.images, empty), COCO)
