from pathlib import Path

import numpy as np
import pytest

from diffusionpose.app.web.handlers import LONGEST, MOST_PERSONS, Editor
from diffusionpose.errors import InputError
from diffusionpose.runtime.people import WholeImage


@pytest.fixture
def editor() -> Editor:
    """A picture twice as large as what is shown of it."""
    image = np.full((LONGEST, 2 * LONGEST, 3), 90, np.uint8)
    return Editor.of(Path("x.png"), image, *WholeImage()(image))


def test_it_begins_with_what_the_detector_found(editor):
    assert editor.size == (2 * LONGEST, LONGEST)
    assert editor.preview.shape == (LONGEST // 2, LONGEST, 3)
    assert editor.table() == [[0, 0, 2048, 1024]]
    assert editor.guessed
    found = Editor.of(editor.path, editor.preview, np.array([[1, 2, 30, 40]]), np.array([0.7]))
    assert not found.guessed


@pytest.mark.parametrize("ends", [((10, 20), (110, 220)), ((110, 20), (10, 220)), ((110, 220), (10, 20))])
def test_two_taps_make_a_box_whichever_corner_comes_first(editor, ends):
    once = editor.tapped(*ends[0])
    assert once.corner
    assert len(once.boxes) == 1, "nothing is lost by one tap"
    twice = once.tapped(*ends[1])
    assert twice.corner is None
    # middle of a shown pixel, each two pixels of the picture wide
    assert twice.boxes.tolist() == [[21, 41, 221, 441]]
    assert twice.scores.tolist() == [1]


def test_only_a_guess_gives_way_to_the_first_box(editor):
    two = editor.tapped(10, 10).tapped(60, 90).tapped(200, 10).tapped(260, 90)
    assert len(two.boxes) == 2
    assert len(editor.whole().tapped(10, 10).tapped(60, 90).boxes) == 2, "asked for, it is no guess"
    assert two.whole().table() == [[0, 0, 2048, 1024]]


def test_undo_takes_back_one_thing_at_a_time(editor):
    box = editor.tapped(10, 10).tapped(60, 90)
    started = box.tapped(100, 100)
    assert started.undone().corner is None
    assert started.undone().table() == box.table()
    assert box.undone().table() == []
    assert box.undone().undone().table() == []
    assert started.emptied().table() == []
    assert started.emptied().corner is None


def test_the_table_changes_what_is_typed_and_nothing_else(editor):
    box = editor.tapped(10.25, 10).tapped(60.9, 90)
    rows = box.table()
    assert box.tabled(rows).boxes.tolist() == box.boxes.tolist(), "no rounding of what is untouched"
    typed = box.tabled([*rows, ["-30", 10, 540.0, 1650], ["", None, float("nan"), ""]])
    assert typed.boxes[1].tolist() == [-30, 10, 540, 1650]
    assert box.tabled([]).table() == []
    for wrong in (["a", 1, 2, 3], [1, 2, 3, None], [1, 2, 3, "inf"], [1, 2, 3]):
        with pytest.raises(InputError, match=r"Box 2: fill in four numbers"):
            box.tabled([*rows, wrong])


def test_boxes_that_hold_nothing_of_the_picture_cannot_be_typed(editor):
    good = [0, 0, 9, 9]
    for box, complaint in (
        ([50, 10, 40, 90], r"Box 2 \[50, 10, 40, 90\] has no area"),
        ([50, 10, 50, 90], "Box 2 .* has no area"),
        ([-90, 10, -5, 90], "Box 2 .* is outside the 2048x1024 picture"),
        ([2048, 10, 2100, 90], "Box 2 .* is outside"),
    ):
        with pytest.raises(InputError, match=complaint):
            editor.tabled([good, box])
    assert editor.tabled([good, [2047, 10, 2100, 90]]).table()[1] == [2047, 10, 2100, 90]


def test_scores_of_detected_boxes_stay_with_them():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[1.4, 2, 30, 40], [50, 50, 90, 90]], np.float32)
    editor = Editor.of(Path("x.png"), image, boxes, np.array([0.7, 0.4], np.float32))
    assert editor.tabled(editor.table()[1:]).scores.tolist() == pytest.approx([0.4])
    assert editor.tapped(1, 1).tapped(50, 50).scores.tolist() == pytest.approx([0.7, 0.4, 1])


def test_tiny_boxes_and_too_many_are_refused(editor):
    with pytest.raises(InputError, match="too close together"):
        editor.tapped(10, 10).tapped(12, 200)
    full = editor.tabled([[0, 0, 9, 9]] * MOST_PERSONS)
    with pytest.raises(InputError, match="At most 12 persons"):
        full.tapped(1, 1).tapped(90, 90)


def test_boxes_are_drawn_where_they_are(editor):
    box = editor.tapped(100, 100).tapped(300, 300)
    changed = (box.picture() != box.preview).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert abs(np.array([columns[0], columns[-1], rows[0], rows[-1]]) - (100, 300, 100, 300)).max() <= 5
    assert not changed[200:290, 150:290].any(), "the inside stays clear"
    assert (editor.tapped(500, 400).picture()[390:410, 490:510] != 90).any(), "a first corner is seen"
