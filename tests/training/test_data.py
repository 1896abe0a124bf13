import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusionpose.data.synthetic import write_synthetic
from diffusionpose.errors import InputError
from diffusionpose.skeletons import COCO, CROWDPOSE
from diffusionpose.training import data as training_data
from diffusionpose.training.data import TrainingData, read_persons, thread_count, worker_count
from diffusionpose.training.settings import ImageSet, Machine


def data_of(sets, settings, **changes):
    return TrainingData(sets, CROWDPOSE, replace(settings, **changes), Machine(workers=0))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowd")
    return ImageSet(*map(Path, write_synthetic(folder, 3, seed=1, skeleton=CROWDPOSE)))


def test_two_processes_see_the_batches_of_one(images, tiny):
    data = data_of([images], tiny)
    one = [batch["index"] for batch in data.loader(1)]
    halves = zip(data.loader(1, 0, 2), data.loader(1, 1, 2), strict=True)
    assert len(one) == data.steps
    for whole, (even, odd) in zip(one, halves, strict=True):
        assert torch.equal(whole[0::2], even["index"])
        assert torch.equal(whole[1::2], odd["index"])


def test_every_epoch_has_its_own_order_and_no_person_twice(images, tiny):
    data = data_of([images], tiny)
    orders = [data.batches(epoch).ravel() for epoch in (0, 1, 0)]
    assert (orders[0] == orders[2]).all()
    assert (orders[0] != orders[1]).any()
    assert len(set(orders[0])) == len(orders[0])


def test_a_set_smaller_than_a_batch_is_repeated(images, tiny):
    persons = len(data_of([images], tiny).persons)
    order = data_of([images], tiny, batch_size=persons + 3).batches(0)
    assert order.shape == (1, persons + 3)
    assert set(order.ravel()) == set(range(persons))


@pytest.mark.parametrize("shares", [(1, 1), (0.5, 2), (1, 0.25)])
def test_an_epoch_shows_each_set_as_often_as_its_share_says(shares, images, crowd, tiny):
    sets = [replace(each, share=share) for each, share in zip((images, crowd), shares, strict=True)]
    data = data_of(sets, tiny, batch_size=1)  # so that no person is cut off
    first = len(data.persons.parts[0])
    shown = []
    for epoch in range(4):
        order = data.batches(epoch).ravel()
        counts = [Counter(order[order < first].tolist()), Counter(order[order >= first].tolist())]
        for count, part, share in zip(counts, data.persons.parts, shares, strict=True):
            assert sum(count.values()) == round(share * len(part))
            if count:
                assert max(count.values()) <= np.ceil(share), "nobody twice before everybody once"
        shown.append(set(order.tolist()))
    if min(shares) < 1:
        assert len({frozenset(each) for each in shown}) > 1, "others in the next epoch"


def test_a_share_that_shows_nobody_is_named(images, crowd, tiny):
    with pytest.raises(InputError, match=rf"{crowd.annotations}: --shares 0\.01 .* nobody; give 0\."):
        data_of([images, replace(crowd, share=0.01)], tiny)


def test_an_unknown_augmentation_is_named(images, tiny):
    with pytest.raises(InputError, match="augmentation: no foo; there are scale"):
        data_of([images], tiny, augmentation={"foo": 1})


def test_a_person_repeated_in_a_batch_is_no_neighbour_of_himself(crowd, tiny):
    data = data_of([replace(crowd, share=2)], tiny)
    data.keep_pictures_whole()
    batch = {
        name: torch.tensor(values) for name, values in {"index": [1, 0, 1, 1], "picture": [0] * 4}.items()
    }
    count = len(data.persons)
    assert data.picture_numbers(batch).tolist() == [0, 0, count, 2 * count]


def test_sets_of_different_skeletons_are_trained_together(images, crowd, tiny):
    data = data_of([images, crowd], tiny)
    first = len(data.persons.parts[0])
    assert 0 < first < len(data.persons)
    head = CROWDPOSE.index("head")  # COCO has no such joint
    labelled = torch.stack([data.persons[index]["visible"] for index in range(len(data.persons))])
    assert labelled[:first, head].sum() == 0
    assert labelled[first:, head].sum() > 0


def test_a_missing_folder_a_missing_picture_and_unlabelled_persons_are_named(images, tiny, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_persons(ImageSet(tmp_path / "nowhere", images.annotations), COCO)
    pictures = tmp_path / "pictures"
    shutil.copytree(images.images, pictures)
    name = sorted(pictures.iterdir())[0]
    name.unlink()
    with pytest.raises(InputError, match=name.name):
        data_of([replace(images, images=pictures)], tiny)
    empty = tmp_path / "empty.json"
    text = images.annotations.read_text()
    empty.write_text(text.replace('"annotations": [', '"annotations": [], "rest": ['))
    with pytest.raises(InputError, match=r"empty\.json.*--skeleton"):
        read_persons(ImageSet(images.images, empty), COCO)


@pytest.mark.parametrize(
    ("cores", "machine", "shares"),
    [
        (1, Machine("cpu"), (1, 1)),
        (2, Machine("cpu"), (1, 1)),
        (16, Machine("cpu"), (4, 12)),
        (16, Machine("cpu", devices=2), (2, 6)),
        (16, Machine("cpu", workers=0), (0, 16)),
    ],
)
def test_cores_are_shared_out_among_workers_and_threads(cores, machine, shares, monkeypatch):
    monkeypatch.setattr(training_data, "cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (worker_count(machine), thread_count(machine)) == shares
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count(machine) == 3


def test_whole_pictures_come_together_and_are_changed_alike(crowd, tiny):
    """Also to several processes: of each picture only one part at the border of two stretches is parted."""
    data = TrainingData([crowd, crowd], CROWDPOSE, replace(tiny, batch_size=4), Machine(workers=0, devices=2))
    data.keep_pictures_whole()
    plain = TrainingData(
        [crowd, crowd], CROWDPOSE, replace(tiny, batch_size=4), Machine(workers=0, devices=2)
    )
    order = data.batches(3)
    assert order.shape == plain.batches(3).shape
    picture = np.concatenate(
        [data.persons.starts[i] + np.array(data.persons.parts[i].first_of_picture) for i in (0, 1)]
    )
    seen = picture[np.concatenate([step[rank::2] for step in order for rank in (0, 1)])]
    changes = 1 + int((seen[1:] != seen[:-1]).sum())
    assert changes == len(set(seen.tolist())) < len(seen)
    batch = next(iter(data.loader(3)))
    assert batch["picture"].tolist() == picture[batch["index"]].tolist()
    assert ((batch["place"] >= -0.5) & (batch["place"] <= 1.5)).all()
    angles = {number: batch["angle"][batch["picture"] == number] for number in batch["picture"].tolist()}
    assert all((each == each[0]).all() for each in angles.values())


def test_packed_persons_have_no_neighbours_and_that_is_told(images, tiny):
    data = data_of([images], tiny)
    for part in data.persons.parts:
        part.first_of_picture = list(range(len(part)))
    data.keep_pictures_whole()
    assert "nobody here has a neighbour" in data.notes[-1]
