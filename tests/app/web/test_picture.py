"""The tab for pictures, without a server: what the page shows is what the estimator finds."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import PoseEstimator
from diffusionpose.app.web.limits import Limits
from diffusionpose.app.web.picture import (
    ALL_JOINTS,
    GAP,
    LONGEST,
    MOST_PERSONS,
    MOVE_JOINT,
    OTHER_POSE,
    Editor,
    Handlers,
    analyse,
    heatmap_view,
    joint_scores,
    shrink,
    step_captions,
    step_view,
    write_results,
)
from diffusionpose.errors import InputError
from diffusionpose.poses import Pose
from diffusionpose.runtime.drawing import draw_heatmap, draw_poses
from diffusionpose.runtime.images import read_image
from diffusionpose.runtime.people import FunctionDetector, WholeImage
from diffusionpose.skeletons import CROWDPOSE

ONES = np.ones(2, np.float32)


def with_options(estimator, steps, flip=False, decode="dark"):
    """The estimator as the page has it for a visitor with these options."""
    return Handlers(estimator, LIMITS, decode, Path()).estimator_with(steps, flip)


LIMITS = Limits(megabytes=2, megapixels=3)

# --- files ---


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels to show for it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sealed = kind + data
        return len(data).to_bytes(4, "big") + sealed + zlib.crc32(sealed).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\x02\0\0\0")
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "x.png: the file is empty"),
        (b"no picture at all", "x.png: not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.png: not a picture"),
        (png_header(2000, 1501), "x.png: more than 3 million pixels; scale the picture down"),
        (png_header(20000, 10000), "x.png: more than 3 million pixels"),  # more than Pillow opens
        (png_header(2000, 1500), "x.png: damaged or cut short"),
    ],
)
def test_what_cannot_be_used_is_said_without_our_folders(
    estimator, tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "cache" / "0123abc" / "x.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    parts = Handlers(estimator, LIMITS, "dark", tmp_path / "results").load(str(path))
    assert f'role="alert">{complaint}' in parts["notice"]
    assert str(tmp_path) not in parts["notice"]
    assert parts["editor"] is None


@pytest.mark.parametrize("name", ["photo.png", "trip 0042.png"])
def test_files_are_those_of_predict(run, photo, persons, tmp_path, name):
    source = photo.rename(photo.parent / name)
    (tmp_path / "boxes.json").write_text(json.dumps({name: persons.tolist()}))
    words = ["--boxes", tmp_path / "boxes.json", "--device", "cpu", "--steps", 2]
    assert run("predict", source, "--output", tmp_path / "out", *words).status == 0
    image = read_image(source)
    mine = PoseEstimator.from_pretrained(device="cpu")
    found = analyse(with_options(mine, 2, True), image, persons, ONES)
    poses = [person.pose for person in found]
    png, rows = write_results(tmp_path / "results", source, draw_poses(image, poses), poses)
    assert json.loads(rows.read_text()) == json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert png.name == source.name
    assert (np.asarray(Image.open(png)) == np.asarray(Image.open(tmp_path / "out" / png.name))).all()
    again, _ = write_results(tmp_path / "results", source, image, poses)
    assert again.parent != png.parent, "nobody's files take the place of another's"


# --- analysis ---


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_answer_is_the_estimators(painter, picture, persons, flip, steps, unbiased):
    mine = PoseEstimator(painter(unbiased), detector="whole", batch_size=1)
    found = analyse(with_options(mine, steps, flip), picture, persons, ONES)
    poses = PoseEstimator(mine.network, detector="whole", steps=steps, flip=flip)(picture, persons)
    assert [len(person.steps) for person in found] == [steps + 1] * 2
    for person, pose in zip(found, poses, strict=True):
        assert np.abs(person.pose.keypoints - pose.keypoints).max() < 1e-3
        assert np.abs(person.pose.scores - pose.scores).max() < 1e-5
        assert person.pose.score == pytest.approx(pose.score, abs=1e-5)
        assert (person.pose.box == pose.box).all()


def test_the_first_step_is_the_coarse_pose_and_steps_differ(estimator, picture, persons):
    found = analyse(with_options(estimator, 2, True), picture, persons, ONES)
    coarse = PoseEstimator(estimator.network, detector="whole", steps=0)(picture, persons)
    for person, pose in zip(found, coarse, strict=True):
        assert np.abs(person.steps[0].keypoints - pose.keypoints).max() < 1e-3
    assert np.abs(found[0].steps[0].keypoints - found[0].pose.keypoints).max() > 1


def test_heatmaps_have_their_maximum_where_the_joint_is(painter, picture, persons):
    plain = PoseEstimator(painter(steps=None), detector="whole")
    (person,) = analyse(with_options(plain, 1, decode="argmax"), picture, persons[:1], ONES[:1])
    assert person.heatmaps.shape == (1, 14, 16, 12)
    height, width = person.heatmaps.shape[2:]
    at = person.heatmaps[0].reshape(14, -1).argmax(1)
    points = np.stack([at % width, at // width], 1).astype(np.float32)
    there = person.crop.heatmap_to_image(points[None], (width, height))[0]
    sure = person.pose.scores > 0.01
    assert sure.any()
    peaks = person.heatmaps[0].reshape(14, -1).max(1)
    alone = (person.heatmaps[0].reshape(14, -1) == peaks[:, None]).sum(1) == 1
    assert (sure & alone).any()
    assert np.abs(there - person.pose.keypoints)[sure & alone].max() < 1e-3
    assert np.abs(peaks / 255 - person.pose.scores.clip(0, 1)).max() <= 0.5 / 255 + 1e-6


def test_a_network_without_diffusion_has_one_step(painter, picture, persons):
    plain = PoseEstimator(painter(steps=None), detector="whole")
    found = analyse(with_options(plain, 3, True), picture, persons, ONES)
    for person, pose in zip(found, plain(picture, persons), strict=True):
        assert len(person.steps) == 1
        assert step_captions(person) == ["Heatmaps and pose"]
        assert np.abs(person.pose.keypoints - pose.keypoints).max() < 1e-3


@pytest.mark.parametrize(
    ("boxes", "steps", "complaint"),
    [
        (np.zeros((0, 4)), 1, "Nobody is marked"),
        (np.tile([0.0, 0, 9, 9], (MOST_PERSONS + 1, 1)), 1, "At most 30"),
        (np.array([[0.0, 0, 9, 9], [200, 0, 210, 9]]), 1, r"Box 2 \[200, 0, 210, 9\] is outside"),
        (np.array([[5.0, 5, 5, 9]]), 1, "Box 1 .* no area"),
        (np.array([[0.0, 0, 9, 9]]), 6, "steps: 6 is more than 5"),
        (np.array([[0.0, 0, 9, 9]]), -1, "steps: -1"),
    ],
)
def test_what_cannot_be_done_is_said(estimator, picture, boxes, steps, complaint):
    scores = np.ones(len(boxes), np.float32)
    with pytest.raises(InputError, match=complaint):
        analyse(with_options(estimator, steps), picture, boxes, scores)


# --- views ---


@pytest.fixture(scope="module", params=[False, True], ids=["biased", "unbiased"])
def person(painter, request, picture):
    mine = PoseEstimator(painter(request.param), detector="whole")
    box = np.array([[10, 5, 60, 80]], np.float32)
    (found,) = analyse(with_options(mine, 2, True), picture, box, ONES[:1])
    return found


def spot(person, joint, x, y):
    """The person with one heatmap that is 1 at one pixel and 0 elsewhere."""
    person.heatmaps[:] = 0
    person.heatmaps[-1, joint, y, x] = 255
    return person


@pytest.mark.parametrize("scale", [1, 3])
def test_a_heatmap_glows_where_its_point_is_in_the_picture(person, picture, scale):
    spot(person, 4, 5, 9)
    (there,) = person.crop.heatmap_to_image(np.array([[[5.0, 9.0]]]), (12, 16))[0]
    preview = np.zeros((scale * 90, scale * 120, 3), np.uint8)
    shown = heatmap_view(preview, scale, person, 4).sum(2).astype(float)
    y, x = np.indices(shown.shape)
    centre = np.array([(x * shown).sum(), (y * shown).sum()]) / shown.sum()
    # pixel p of a picture covers p - 0.5 to p + 0.5; the heatmap's pixels are about 6 wide here
    assert np.abs((centre + 0.5) / scale - 0.5 - there).max() < 0.25
    assert (heatmap_view(preview, scale, person, None) == heatmap_view(preview, scale, person, 4)).all()
    assert heatmap_view(preview, scale, person, 3).sum() == 0


def test_a_step_is_its_heat_and_its_skeleton(person):
    height, width = person.view.shape[:2]
    spot(person, 2, 3, 8)
    view = step_view(person, 2, threshold=-1)
    assert view.shape == (height, 2 * width + GAP, 3)
    left, right = view[:, :width], view[:, width + GAP :]
    there = person.crop.heatmap_to_image(np.array([[[3.0, 8.0]]]), (12, 16))
    (there,) = person.crop.image_to_input(there)[0]
    cold = draw_heatmap(person.view, np.zeros((height, width)), lambda points, size: points)
    heat = (left.astype(int) - cold).sum(2)
    glow = np.unravel_index(heat.argmax(), heat.shape)
    assert np.abs(np.array(glow[::-1]) - there).max() <= 1
    assert (right != person.view).any()
    points = person.crop.image_to_input(person.steps[2].keypoints[None])[0]
    inside = ((points > 2) & (points < np.array([width, height]) - 3)).all(1)
    assert inside.any()
    for x, y in points[inside].round().astype(int):
        assert (right[y - 2 : y + 3, x - 2 : x + 3] != person.view[y - 2 : y + 3, x - 2 : x + 3]).any()
    assert (step_view(person, 2, threshold=2)[:, width + GAP :] == person.view).all()


def test_captions_say_how_far_joints_moved(person):
    coarse, first, second = step_captions(person)
    assert coarse == "Coarse heatmaps"
    moved = np.hypot(*(person.steps[2].keypoints - person.steps[1].keypoints).T).mean()
    assert first.startswith("Step 1 of 2: ")
    assert second == f"Step 2 of 2: {moved:.1f} px moved"


@pytest.mark.parametrize(
    ("size", "wanted"), [((400, 1000), (80, 200)), ((1000, 400), (200, 80)), ((9, 7), (9, 7))]
)
def test_shrinking_keeps_the_shape(size, wanted):
    assert shrink(np.zeros((*size, 3), np.uint8), 200).shape == (*wanted, 3)


def test_every_joint_has_its_score():
    scores = np.linspace(-0.1, 1.2, 14)
    shown = joint_scores(Pose(CROWDPOSE, np.zeros((14, 2)), scores, np.zeros(4), 0.5))
    assert list(shown) == [joint.replace("_", " ") for joint in CROWDPOSE.joints]
    assert list(shown.values()) == pytest.approx(scores.clip(0, 1))


# --- boxes ---


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
    once = editor.tap(*ends[0])
    assert once.corner
    assert len(once.boxes) == 1, "nothing is lost by one tap"
    twice = once.tap(*ends[1])
    assert twice.corner is None
    # middle of a shown pixel, each two pixels of the picture wide
    assert twice.boxes.tolist() == [[21, 41, 221, 441]]
    assert twice.scores.tolist() == [1]


def test_only_a_guess_gives_way_to_the_first_box(editor):
    two = editor.tap(10, 10).tap(60, 90).tap(200, 10).tap(260, 90)
    assert len(two.boxes) == 2
    assert len(editor.whole().tap(10, 10).tap(60, 90).boxes) == 2, "asked for, it is no guess"
    assert two.whole().table() == [[0, 0, 2048, 1024]]


def test_undo_takes_back_one_thing_at_a_time(editor):
    box = editor.tap(10, 10).tap(60, 90)
    started = box.tap(100, 100)
    assert started.undo().corner is None
    assert started.undo().table() == box.table()
    assert box.undo().table() == []
    assert box.undo().undo().table() == []
    assert started.clear().table() == []
    assert started.clear().corner is None


def test_the_table_changes_what_is_typed_and_nothing_else(editor):
    box = editor.tap(10.25, 10).tap(60.9, 90)
    rows = box.table()
    assert box.with_table(rows).boxes.tolist() == box.boxes.tolist(), "no rounding of what is untouched"
    typed = box.with_table([*rows, ["-30", 10, 540.0, 1650], ["", None, float("nan"), ""]])
    assert typed.boxes[1].tolist() == [-30, 10, 540, 1650]
    assert box.with_table([]).table() == []
    for wrong in (["a", 1, 2, 3], [1, 2, 3, None], [1, 2, 3, "inf"], [1, 2, 3]):
        with pytest.raises(InputError, match=r"Box 2: fill in four numbers"):
            box.with_table([*rows, wrong])


def test_boxes_that_hold_nothing_of_the_picture_cannot_be_typed(editor):
    good = [0, 0, 9, 9]
    for box, complaint in (
        ([50, 10, 40, 90], r"Box 2 \[50, 10, 40, 90\] has no area"),
        ([50, 10, 50, 90], "Box 2 .* has no area"),
        ([-90, 10, -5, 90], "Box 2 .* is outside the 2048x1024 picture"),
        ([2048, 10, 2100, 90], "Box 2 .* is outside"),
    ):
        with pytest.raises(InputError, match=complaint):
            editor.with_table([good, box])
    assert editor.with_table([good, [2047, 10, 2100, 90]]).table()[1] == [2047, 10, 2100, 90]


def test_scores_of_detected_boxes_stay_with_them():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[1.4, 2, 30, 40], [50, 50, 90, 90]], np.float32)
    editor = Editor.of(Path("x.png"), image, boxes, np.array([0.7, 0.4], np.float32))
    assert editor.with_table(editor.table()[1:]).scores.tolist() == pytest.approx([0.4])
    assert editor.tap(1, 1).tap(50, 50).scores.tolist() == pytest.approx([0.7, 0.4, 1])


def test_tiny_boxes_and_too_many_are_refused(editor):
    with pytest.raises(InputError, match="too close together"):
        editor.tap(10, 10).tap(12, 200)
    full = editor.with_table([[0, 0, 9, 9]] * MOST_PERSONS)
    with pytest.raises(InputError, match="At most 30 persons"):
        full.tap(1, 1).tap(90, 90)


def test_boxes_are_drawn_where_they_are(editor):
    box = editor.tap(100, 100).tap(300, 300)
    changed = (box.picture() != box.preview).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert abs(np.array([columns[0], columns[-1], rows[-1]]) - (100, 300, 300)).max() <= 5
    assert 60 < rows[0] < 100, "its number is above"
    assert not changed[200:290, 150:290].any(), "the inside stays clear"
    assert (editor.tap(500, 400).picture()[390:410, 490:510] != 90).any(), "a first corner is seen"


# --- handlers ---


@pytest.fixture
def handlers(estimator, tmp_path):
    return Handlers(estimator, Limits(), "dark", tmp_path / "results")


@pytest.fixture
def ran(handlers, photo, picture, persons):
    """The handlers, the editor and what a run with two persons shows."""
    editor = Editor.of(photo, picture, persons, ONES)
    return handlers, editor, handlers.run(editor, 2, False, -1.0)


def finder(estimator, boxes):
    """The estimator with a detector that finds these boxes, sure of the first most."""
    scores = np.linspace(0.9, 0.3, len(boxes), dtype=np.float32)
    found = np.array(boxes, np.float32).reshape(-1, 4), scores
    return PoseEstimator(estimator.network, detector=FunctionDetector(lambda image: found))


def test_everyone_who_is_found_has_a_pose_at_once(estimator, photo, persons, tmp_path):
    handlers = Handlers(finder(estimator, persons), Limits(), "dark", tmp_path)
    loaded, found = handlers.drop(str(photo), 1, False, 0.2)
    assert "2 persons marked" in loaded["notice"]
    assert loaded["editor"].scores.tolist() == pytest.approx([0.9, 0.3])
    assert "2 poses found" in found["notice"]
    assert len(found["result"].persons) == 2
    assert np.abs(found["result"].persons[1].pose.box - persons[1]).max() == 0


def test_a_picture_without_people_has_no_pose(estimator, photo, tmp_path):
    handlers = Handlers(finder(estimator, []), Limits(), "dark", tmp_path)
    (loaded,) = handlers.drop(str(photo), 1, False, 0.2)
    assert "Nobody was found" in loaded["notice"]
    assert loaded["picture"] is not None
    assert loaded["editor"].table() == []


def test_of_a_crowd_the_best_are_taken(picture, persons):
    boxes = np.tile(persons[:1], (MOST_PERSONS + 9, 1)) + np.arange(MOST_PERSONS + 9)[:, None]
    scores = np.random.default_rng(0).permutation(len(boxes)) / 100
    editor = Editor.of(Path("x.png"), picture, boxes, scores)
    assert sorted(editor.scores) == sorted(scores)[-MOST_PERSONS:]
    kept = [boxes.tolist().index(box) for box in editor.boxes.tolist()]
    assert kept == sorted(kept)


def test_a_run_shows_everything(ran, picture):
    _, _, parts = ran
    assert parts["person"]["choices"] == [("1", "1"), ("2", "2")] or parts["person"]["choices"] == ["1", "2"]
    assert "2 poses found" in parts["notice"]
    assert parts["overlay"].shape == picture.shape
    assert (parts["overlay"] != picture).any()
    assert [caption.split(":")[0] for _, caption in parts["steps_shown"]] == [
        "Coarse heatmaps", "Step 1 of 2", "Step 2 of 2",
    ]  # fmt: skip
    assert len(parts["joints"]) == 14


def test_another_person_and_another_joint(ran):
    made, _, parts = ran
    result = parts["result"]
    second = made.choose(result, "2", ALL_JOINTS)
    assert second["joints"] != parts["joints"]
    assert (second["heat"] != parts["heat"]).any()
    assert (made.choose(result, "1", ALL_JOINTS)["heat"] == parts["heat"]).all()
    joint = result.persons[0].pose.skeleton.joints[3]
    assert made.show_heat(result, "1", joint)["heat"].shape == parts["heat"].shape


def test_another_threshold_draws_again(ran, picture):
    made, _, parts = ran
    nothing = made.redraw(parts["result"], "1", 2.0)
    plain = made.redraw(parts["result"], "1", 3.0)
    assert (nothing["overlay"] == plain["overlay"]).all()
    assert (nothing["overlay"] != parts["overlay"]).any()
    assert nothing["result"].threshold == 2
    assert nothing["png"] != parts["png"]


def test_a_picture_that_is_gone_is_asked_for_again(ran, photo):
    made, editor, parts = ran
    photo.unlink()
    with pytest.raises(InputError, match="load it again"):
        made.run(editor, 1, True, 0.2)
    with pytest.raises(InputError, match="load it again"):
        made.redraw(parts["result"], "1", 0.5)


def test_what_is_wrong_changes_nothing(ran):
    made, editor, _ = ran
    with pytest.raises(InputError, match="too close"):
        made.change(editor.tap(9, 9), lambda before: before.tap(9, 10))
    assert "table" not in made.type_boxes(editor, [[1, 2, 30, 40]])
    assert made.type_boxes(editor, [[1, 2, 30, 40]])["editor"].table() == [[1, 2, 30, 40]]
    emptied = made.change(editor, Editor.clear)
    assert "Nobody is marked" in emptied["notice"]
    with pytest.raises(InputError, match="Nobody is marked"):
        made.run(emptied["editor"], 1, True, 0.2)
    with pytest.raises(InputError, match="There is no picture yet"):
        made.run(None, 1, True, 0.2)


def test_with_a_mistake_in_the_table_nothing_is_run(ran):
    made, editor, _ = ran
    wrong = made.type_boxes(editor, [["abc", 2, 30, 40]])
    assert wrong.keys() == {"editor", "notice"}, "picture and table stay"
    assert 'role="alert"' in wrong["notice"]
    with pytest.raises(InputError, match="fill in four numbers"):
        made.run(wrong["editor"], 1, True, 0.2)
    for mended in (
        made.type_boxes(wrong["editor"], [[1, 2, 30, 40]]),
        made.change(wrong["editor"], Editor.undo),
    ):
        assert "1 person marked" in mended["notice"]
        assert "1 pose found" in made.run(mended["editor"], 1, False, 0.2)["notice"]
    assert "Drop a picture" in made.type_boxes(None, [])["notice"]


def test_names_of_files_are_no_html(handlers, tmp_path):
    (tmp_path / "<b>.png").write_text("x")
    notice = handlers.load(str(tmp_path / "<b>.png"))["notice"]
    assert "&lt;b&gt;.png" in notice
    assert "<b>" not in notice


def test_a_full_disk_is_said_without_our_folders(ran, tmp_path, monkeypatch):
    handlers, editor, _ = ran

    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "results"))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises((InputError, OSError)) as caught:
        handlers.run(editor, 1, False, 0.2)
    said = handlers.reason(caught.value)
    assert "No space left on device" in said
    assert str(tmp_path) not in said


# --- other poses of a person, and joints that stay ---


@pytest.fixture(scope="module")
def posed(lively, tmp_path_factory, picture):
    """Handlers of a diffusion model, and what they found of two persons."""
    folder = tmp_path_factory.mktemp("visitors")
    Image.fromarray(picture).save(folder / "people.png")
    estimator = PoseEstimator(lively(input_size=(48, 64)), device="cpu", detector="whole")
    handlers = Handlers(estimator, LIMITS, "dark", folder / "results")
    boxes = np.array([[5, 5, 60, 80], [62, 10, 118, 85]], np.float32)
    editor = Editor.of(folder / "people.png", picture, boxes, ONES)
    return handlers, handlers.run(editor, 1, False, 0.0)["result"]


def test_taps_on_a_person_show_the_alternatives_one_after_the_other(posed):
    handlers, result = posed
    parts = handlers.tap(result, OTHER_POSE, [100, 50])
    found = parts["result"].persons[1]
    assert parts["person"] == "2"
    assert found.shown == 0
    assert 2 <= len(found.poses) <= 8
    assert np.allclose(found.pose.keypoints, result.persons[1].pose.keypoints, atol=1e-3)
    names = parts["alternative"]["choices"]
    assert len(names) == len(found.poses)
    assert parts["alternative"]["value"] == names[0]
    after = handlers.tap(parts["result"], OTHER_POSE, [100, 50])
    assert after["result"].persons[1].pose is found.poses[1]
    rows = json.loads(Path(after["json"]).read_text())
    assert rows[1]["keypoints"][:2] == pytest.approx(found.poses[1].keypoints[0].tolist(), abs=1e-3)
    assert np.abs(after["overlay"].astype(int) - parts["overlay"]).max() > 50
    back = handlers.switch(after["result"], "2", names[0])
    assert back["result"].persons[1].shown == 0


def test_a_joint_that_is_moved_stays_and_the_others_follow(posed):
    handlers, result = posed
    joint = result.persons[0].pose.keypoints[4]
    scale = result.editor.scale
    picked = handlers.tap(result, MOVE_JOINT, ((joint + 0.5) * scale - 0.5).tolist())
    person, number = picked["result"].picked
    assert np.abs(result.persons[person].pose.keypoints[number] - joint).max() < 1
    moved = handlers.tap(picked["result"], MOVE_JOINT, [29.5, 39.5])
    one = moved["result"].persons[person]
    assert one.held.sum() == 1
    assert np.allclose(one.pose.keypoints[number] * scale, [30, 40], atol=1e-3)
    others = ~one.held
    assert np.abs(one.pose.keypoints[others] - result.persons[person].pose.keypoints[others]).max() > 0.1
    again = handlers.tap(moved["result"], OTHER_POSE, [29.5, 39.5])
    for pose in again["result"].persons[person].poses:
        assert np.allclose(pose.keypoints[number] * scale, [30, 40], atol=0.01)


def test_taps_beside_everything(posed):
    handlers, result = posed
    blank = replace(result, threshold=1.0)
    with pytest.raises(InputError, match="Nobody is there"):
        handlers.tap(blank, OTHER_POSE, [61, 95])
    with pytest.raises(InputError, match="There is no joint"):
        handlers.tap(blank, MOVE_JOINT, [61, 95])
    assert handlers.tap(None, OTHER_POSE, [1, 1]) == {}
