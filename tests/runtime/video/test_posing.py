from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trackers")
from diffusionpose.errors import InputError
from diffusionpose.journal import Journal
from diffusionpose.models.zoo import create_model
from diffusionpose.runtime.boxes import PeopleFile
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.video.following import Person, VideoPoses
from diffusionpose.runtime.video.reading import Frame

from .conftest import SquareFinder, squares

PATHS = ((20, 30, 2, 0), (140, 80, -2, 0))


def frames(count: int = 40) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(index, index / 25, index, squares(index, *PATHS))


def around(image: np.ndarray) -> list[list[float]]:
    """A box around each square, found in the upper and the lower half of the picture."""
    boxes = []
    for top in (0, 60):
        rows, columns = np.nonzero(image[top : top + 55, :, 0] > 100)
        rows = rows + top
        boxes.append([columns.min() - 4, rows.min() - 4, columns.max() + 5, rows.max() + 5])
    return boxes


def numbers(found: list[tuple[Frame, list[Person]]]) -> list[Any]:
    return [
        (frame.index, [(p.id, p.pose.keypoints.tolist(), p.pose.box.tolist()) for p in persons])
        for frame, persons in found
    ]


@pytest.mark.parametrize("every", [1, 10])
def test_persons_are_found_and_keep_their_ids(every: int) -> None:
    finder = SquareFinder(around)
    found = list(VideoPoses(finder, 25, detect_every=every, smooth=False)(frames()))
    assert finder.looks == len(range(0, 40, every))
    for frame, persons in found:
        assert [person.id for person in persons] == [1, 2]
        for person, (x, y, dx, dy) in zip(persons, PATHS, strict=True):
            centre = person.pose.keypoints[:4].mean(axis=0)
            assert centre == pytest.approx((x + dx * frame.index, y + dy * frame.index), abs=1)


@pytest.mark.parametrize(("own", "asked", "looks"), [(1, None, 40), (5, None, 8), (5, 2, 20)])
def test_a_detector_may_say_how_often_it_looks(own: int, asked: int | None, looks: int) -> None:
    finder = SquareFinder(around)
    finder.detector.detect_every = own
    found = list(VideoPoses(finder, 25, detect_every=asked)(frames()))
    assert finder.looks == looks
    assert len({person.id for _, persons in found for person in persons}) == 2


def test_persons_of_several_frames_go_through_the_network_together() -> None:
    finder = SquareFinder(around)
    list(islice(VideoPoses(finder, 25)(frames()), 1))
    assert len(finder.seen) == 8
    finder = SquareFinder(around)
    list(islice(VideoPoses(finder, 25, detect_every=2)(frames()), 1))
    assert len(finder.seen) == 1, "where a box comes from the last pose, each frame needs the one before"


@pytest.mark.parametrize("options", [{}, {"detect_every": 5}, {"from_last": True}])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_resumed_run_finds_the_same(options: dict[str, Any], done: int, tmp_path: Path) -> None:
    with Journal(tmp_path / "whole", {}) as journal:
        whole = numbers(list(VideoPoses(SquareFinder(around), 25, **options)(frames(), journal)))
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "part").write_bytes(b"".join(lines[: done + 1]) + lines[done + 1][:20])
    finder = SquareFinder(around)
    with Journal(tmp_path / "part", {}) as journal:
        resumed = numbers(list(VideoPoses(finder, 25, **options)(frames(), journal)))
    assert resumed == whole
    assert len(finder.seen) == 40 - done * (1 if options else 8)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_journal_of_other_frames_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", {}) as journal:
        list(VideoPoses(SquareFinder(around), 25)(frames(8), journal))
        with pytest.raises(InputError, match="is of another video"):
            list(VideoPoses(SquareFinder(around), 25)(frames(5), journal))


def test_boxes_from_a_file_take_the_detectors_place(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"0": [[4, 14, 36, 46]], "10": []}')
    finder = SquareFinder(around)
    found = list(VideoPoses(finder, 25, boxes=PeopleFile(tmp_path / "boxes.json"))(frames(12)))
    assert [len(persons) for _, persons in found] == [1] * 10 + [0] * 2
    assert finder.looks == 0


def test_the_last_pose_is_where_the_next_begins() -> None:
    finder = SquareFinder(around)
    found = list(VideoPoses(finder, 25, from_last=True)(frames(6)))
    first, *others = [request.start for request in finder.seen]
    assert (first == 0).all(), "who is new has no last pose"
    for start, (_, persons) in zip(others, found, strict=False):
        assert np.allclose(start[..., :2], [person.pose.keypoints for person in persons])
        assert (start[..., 2] > 0).all()
    unsure = SquareFinder(around, score=0.1)
    list(VideoPoses(unsure, 25, from_last=True)(frames(6)))
    assert all((request.start == 0).all() for request in unsure.seen), "what was not seen is looked for anew"


def test_a_last_pose_changes_what_the_network_finds(lively: Callable[..., Any], picture: np.ndarray) -> None:
    estimator = PoseEstimator(lively(), device="cpu", flip=False, detector="whole")
    video = [Frame(i, i / 25, i, np.roll(picture, 3 * i, axis=1)) for i in range(3)]
    plain, last = (
        np.array([found[0].pose.keypoints for _, found in poses(video)])
        for poses in (VideoPoses(estimator, 25, smooth=False, from_last=last) for last in (False, True))
    )
    apart = np.abs(plain - last).max(axis=(1, 2))
    assert apart[0] < 0.01, "alone or with others in a pass: the last digits may differ"
    assert apart[1] > 1


def test_no_detections_and_no_frames_are_no_trouble() -> None:
    nobody = SquareFinder(lambda image: np.empty((0, 4)))
    assert [persons for _, persons in VideoPoses(nobody, 25)(frames(9))] == [[]] * 9
    assert list(VideoPoses(nobody, 25)(iter(()))) == []


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="detect every: 0"):
        VideoPoses(SquareFinder(around), 25, detect_every=0)
    with pytest.raises(InputError, match="tiny is no diffusion model"):
        VideoPoses(PoseEstimator(create_model("tiny", "crowdpose"), device="cpu"), 25, from_last=True)
