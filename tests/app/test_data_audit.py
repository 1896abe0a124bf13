"""``diffusionpose data audit``: list, page, resume, and the corrections that are accepted."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionpose.app import data, data_audit
from diffusionpose.bundled import PORTRAIT
from diffusionpose.geometry import HeatmapCodec
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import COCO, CROWDPOSE

Run = Callable[..., tuple[int, str, str]]


class Brightness(Network):
    """Takes what is bright for a joint, the later ones the surer."""

    name, skeleton, codec, steps, any_steps, takes_start = (
        "brightness", CROWDPOSE, HeatmapCodec((48, 64), unbiased=True), 1, True, True
    )  # fmt: skip

    def heatmaps(self, images, steps=None, start=None):
        bright = images.mean(axis=1)[:, ::4, ::4]
        bright = bright / bright.max(axis=(1, 2), keepdims=True)
        maps = (bright[:, None] * np.linspace(0.2, 1, 14)[:, None, None]).astype(np.float32)
        return [maps if start is None else 0.8 * maps + 0.2 * self.codec.reverse(maps, 0, start, None)[0]]


@pytest.fixture
def audit(run: Run, people: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(data, "load_network", lambda *given: Brightness())
    words = ["--images", people[0], "--annotations", people[1], "--output", tmp_path / "out"]
    return lambda *more: run("data", "audit", *words, *more)


def listed(folder: Path) -> list[dict]:
    return json.loads((folder / "out" / "audit.json").read_text())["labels"]


def test_all_labels_are_listed_and_the_first_are_on_the_page(audit: Run, tmp_path: Path) -> None:
    status, out, err = audit("--most", 5)
    assert status == 0
    assert "problem" not in err
    labels, page = listed(tmp_path), (tmp_path / "out" / "audit.html").read_text()
    assert "25 labels: " in out
    assert len({label["annotation"] for label in labels}) == 25
    doubts = [label["doubt"] for label in labels]
    assert doubts == sorted(doubts, reverse=True)
    assert page.count("data:image/jpeg;base64,") == 10
    ticks = re.findall(r'<input type="checkbox" value="(\d+)">', page)  # ids as text: JavaScript rounds
    assert list(map(int, ticks)) == [label["annotation"] for label in labels[:5]]
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # asks nobody for anything
    assert not (tmp_path / "out" / "progress.jsonl").exists()


def test_what_cannot_be_read_is_told_and_the_same_command_does_the_rest(
    audit: Run, people: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = people[0] / "000003.jpg"
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[:500])
    (people[0] / "000004.jpg").rename(tmp_path / "away.jpg")
    status, _, err = audit()
    assert status == 1
    assert "000003.jpg" in err
    assert "000004.jpg" in err
    before = listed(tmp_path)
    assert 0 < len(before) < 25
    spoilt.write_bytes(content)
    (tmp_path / "away.jpg").rename(people[0] / "000004.jpg")
    looked = []
    look = data_audit.look
    monkeypatch.setattr(data_audit, "look", lambda *given: looked.extend(given[2]) or look(*given))
    assert audit()[0] == 0
    assert len(looked) == 25 - len(before)
    assert len(listed(tmp_path)) == 25
    doubts = [label["doubt"] for label in listed(tmp_path)]
    assert audit()[0] == 0  # anew, in one go
    assert [label["doubt"] for label in listed(tmp_path)] == doubts


def test_numbers_that_json_cannot_hold_become_nulls(
    audit: Run, run: Run, people: tuple[Path, Path], tmp_path: Path
) -> None:
    content = json.loads(people[1].read_text())
    content["annotations"][0]["area"] = float("nan")
    people[1].write_text(json.dumps(content))
    audit()
    accepted = tmp_path / "accepted.json"
    accepted.write_text("[]")
    words = ["data", "audit", "--annotations", people[1], "--output", tmp_path / "out"]
    for more, name in ((["--accept", accepted], "corrected.json"), (["--folds", 2], "train2.json")):
        status, _, err = run(*words, *more)
        assert (status, err) == (0, "")
        assert json.loads((tmp_path / "out" / name).read_text())["annotations"][0]["area"] is None


def test_a_picture_that_is_gone_costs_its_own_entries(
    audit: Run, people: tuple[Path, Path], tmp_path: Path
) -> None:
    cut = people[0] / "000001.jpg"
    content = cut.read_bytes()
    cut.write_bytes(content[:100])
    assert audit()[0] == 1  # so that what is known of the others is kept
    next(path for path in sorted(people[0].iterdir()) if path != cut).unlink()
    cut.write_bytes(content)
    status, _, err = audit()
    assert status == 1
    assert "no such file" in err
    assert 0 < (tmp_path / "out" / "audit.html").read_text().count("<article>") < len(listed(tmp_path))


def test_accepted_corrections_are_made_and_all_else_stays(
    audit: Run, run: Run, people: tuple[Path, Path], tmp_path: Path
) -> None:
    content = json.loads(people[1].read_text())
    content["licence"] = content["annotations"][3]["mine"] = "kept"
    people[1].write_text(json.dumps(content))
    audit()
    labels = {label["annotation"]: label for label in listed(tmp_path)}
    removed = [key for key, label in labels.items() if label["correction"] is None]
    moved = [key for key in labels if key not in removed]
    assert moved
    chosen = [*removed[:1], *moved[:3]]
    accepted = tmp_path / "accepted.json"
    accepted.write_text(json.dumps(chosen))
    words = ["data", "audit", "--annotations", people[1], "--output", tmp_path / "out", "--accept", accepted]
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    assert f"{len(chosen)} labels corrected" in out
    corrected = json.loads((tmp_path / "out" / "corrected.json").read_text())
    names = content["categories"][0]["keypoints"]
    for entry in content["annotations"]:
        if entry["id"] in chosen and labels[entry["id"]]["correction"] is not None:
            for name, numbers in labels[entry["id"]]["correction"].items():
                entry["keypoints"][3 * names.index(name) : 3 * names.index(name) + 3] = numbers
            entry["num_keypoints"] = sum(flag > 0 for flag in entry["keypoints"][2::3])
    content["annotations"] = [entry for entry in content["annotations"] if entry["id"] not in removed[:1]]
    assert corrected == content
    for spoil, complaint in (
        (lambda: accepted.write_text("[4711]"), "'4711' is no label of"),
        (lambda: accepted.write_text("{}"), "not a list of an audit"),
        (lambda: (tmp_path / "out" / "audit.json").write_text('{"labels": []}'), "not a list of an audit"),
        (
            lambda: (accepted.write_text("[]"), audit(), people[1].write_text(json.dumps(content))),
            "has changed",
        ),
    ):
        spoil()
        status, _, err = run(*words)
        assert status == 1
        assert complaint in err
        assert err.count("\n") == 1


def test_the_page_keeps_what_is_ticked_and_saves_it(
    audit: Run, run: Run, tmp_path: Path, browser: Any
) -> None:
    audit("--most", 5)
    first = [label["annotation"] for label in listed(tmp_path)[:5]]
    page, complaints = browser.new_page(viewport={"width": 390, "height": 844}), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "out" / "audit.html").as_uri())
    page.locator("label").nth(1).click()
    page.locator("label").nth(3).click()
    page.locator("button", has_text="(2)").wait_for()  # a busy browser may reload before it has told the page
    page.reload()
    assert "(2)" in page.locator("button").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    with page.expect_download() as saved:
        page.locator("button").click()
    saved.value.save_as(tmp_path / "accepted.json")
    page.close()
    assert (json.loads((tmp_path / "accepted.json").read_text()), complaints) == (
        [str(first[1]), str(first[3])],
        [],
    )
    words = ["--annotations", tmp_path / "people.json", "--output", tmp_path / "out"]
    assert run("data", "audit", *words, "--accept", tmp_path / "accepted.json")[0] == 0


def test_each_fold_is_looked_at_by_the_model_that_has_not_seen_it(
    run: Run, people: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data", "audit", "--annotations", people[1], "--output", tmp_path / "out"]
    status, out, err = run(*words, "--folds", 3)
    assert (status, err) == (0, "")
    whole = json.loads(people[1].read_text())
    pictures = [{entry["image_id"] for entry in whole["annotations"]}]
    for number in (1, 2, 3):
        assert str(tmp_path / "out" / f"train{number}.json") in out
        part = json.loads((tmp_path / "out" / f"train{number}.json").read_text())
        assert {**part, "annotations": 0} == {**whole, "annotations": 0}
        assert all(entry in whole["annotations"] for entry in part["annotations"])
        pictures.append(pictures[0] - {entry["image_id"] for entry in part["annotations"]})
    assert sorted(image for fold in pictures[1:] for image in fold) == sorted(pictures[0])

    networks_by_name, looked = {name: Brightness() for name in "abc"}, {name: set() for name in "abc"}
    monkeypatch.setattr(data, "load_network", lambda name, device: networks_by_name[name])
    look = data_audit.look

    def watched(network: Network, image: np.ndarray, persons: list, skeleton: object) -> object:
        (name,) = [name for name, one in networks_by_name.items() if one is network]
        looked[name] |= {person.image_id for person in persons}
        return look(network, image, persons, skeleton)

    monkeypatch.setattr(data_audit, "look", watched)
    assert run(*words, "--images", people[0], "--weights", "a", "b", "c")[0] == 0
    assert [looked[name] for name in "abc"] == pictures[1:]
    assert len(listed(tmp_path)) == 25


def test_what_cannot_be_audited_is_one_message(run: Run, people: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(people[1].read_text())
    content["categories"][0]["keypoints"] = [f"j{j}" for j in range(17)]
    (tmp_path / "own.json").write_text(json.dumps(content))
    (tmp_path / "empty").mkdir()
    for images, annotations, complaint in (
        (people[0], tmp_path / "own.json", "has no joint of"),
        (tmp_path / "empty", people[1], "no label could be looked at"),
        (people[0], tmp_path / "none.json", "no such file"),
    ):
        status, _, err = run(
            "data", "audit", "--images", images, "--annotations", annotations, "--output", tmp_path / "out"
        )
        assert status == 1
        assert complaint in err
    status, _, err = run("data", "audit", "--annotations", people[1], "--output", tmp_path / "out")
    assert (status, "--images" in err) == (2, True)
    status, _, err = run(
        "data", "audit", "--annotations", people[1], "--output", tmp_path / "out", "--folds", 1
    )
    assert (status, "--folds 1: must be 2 to" in err) == (1, True)


def test_exchanged_sides_of_a_real_person_are_first_with_their_name(run: Run, tmp_path: Path) -> None:
    """The bundled model's own pose of a portrait as the label, and the same with arms and eyes exchanged."""
    from diffusionpose import PoseEstimator

    shutil.copy(PORTRAIT, tmp_path / "photo.jpg")
    (pose,) = PoseEstimator.from_pretrained(device="cpu", skeleton="coco")(PORTRAIT)
    visible = (pose.scores > 0.3) * 2
    box = pose.box.tolist()
    entries = []
    for number, order in ((1, list(range(17))), (2, list(COCO.flip_order))):
        triplets = [[*pose.keypoints[joint].tolist(), int(visible[joint])] for joint in order]
        entries.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "keypoints": [number for triplet in triplets for number in triplet],
                "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
            }
        )
    content = {
        "images": [{"id": number, "file_name": "photo.jpg"} for number in (1, 2)],
        "annotations": entries,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    words = ["--images", tmp_path, "--annotations", tmp_path / "a.json", "--output", tmp_path / "out"]
    assert run("data", "audit", *words, "--device", "cpu")[0] == 0
    first, second = listed(tmp_path)
    assert (first["annotation"], first["fault"]) == (2, "sides exchanged")
    assert {"left_eye", "right_eye", "left_shoulder"} <= first["correction"].keys()
    assert second["doubt"] < 0.2 * first["doubt"]
