"""The page in a real browser, as wide as a desk and as narrow as a phone."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusionpose.app.web.limits import Limits

sync_api = pytest.importorskip("playwright.sync_api")
PATIENCE = 60_000  # milliseconds; on an idle machine nothing takes more than a second or two
SETTLED = 1000  # ms
SHOWN_WHOLE = """ratio => {
    const { width, height } = document.querySelector("#picture img").getBoundingClientRect()
    return Math.abs(width / height / ratio - 1) < 0.02
}"""
SIZES = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(params=SIZES)
def page(request, browser, served) -> Iterator[Any]:
    """The page, with what it asked for in ``requested`` and what it complained of in ``complaints``."""
    width, height = SIZES[request.param]
    phone = request.param == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=phone, is_mobile=phone
    )
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.requested, opened.complaints = [], []
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.goto(served.url)
    opened.get_by_role("button", name="Find poses").wait_for()
    opened.point = opened.touchscreen.tap if phone else opened.mouse.click
    yield opened
    context.close()


def drop(page: Any, path: Path) -> None:
    page.locator("#picture input[type=file]").first.set_input_files(path)


def pixels(page: Any, part: str) -> np.ndarray:
    """The picture that a part of the page shows."""
    source = page.locator(f"{part} img").first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB"))


def mark(page: Any, box: list[float], size: tuple[int, int]) -> None:
    """Tap two corners of a box in pixels of the picture."""
    for x, y, answer in ((*box[:2], "Now tap the opposite corner"), (*box[2:], "marked")):
        page.wait_for_timeout(SETTLED)  # the picture is drawn anew after a tap, and words above may move it
        page.wait_for_function(SHOWN_WHOLE, arg=size[0] / size[1])
        place = page.locator("#picture img").first.bounding_box()
        page.point(place["x"] + x * place["width"] / size[0], place["y"] + y * place["height"] / size[1])
        page.get_by_text(answer).wait_for()


def download(page: Any, words: str) -> tuple[str, str]:
    """A file taken from the page: its name, and what it holds."""
    with page.expect_download() as taken:
        page.get_by_text(words, exact=True).click()
    return taken.value.suggested_filename, Path(taken.value.path()).read_text()


def write(page: Any, row: int, column: int, text: str) -> None:
    """Type into a cell of the table of boxes."""
    cell = page.get_by_test_id(f"cell-{row}-{column}")
    cell.dblclick()
    cell.get_by_role("textbox").fill(text)
    cell.get_by_role("textbox").press("Enter")


def check_width(page: Any) -> None:
    """Nothing sticks out of the page, and nothing that can be pressed or played out of the window."""
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    parts = page.locator("button:visible, [role=gridcell]:visible, video:visible")
    edges = parts.evaluate_all("all => all.map(e => [e.getBoundingClientRect(), e.innerText])")
    assert [text for edge, text in edges if edge["left"] < 0 or edge["right"] > width] == []
    assert len(edges) > 5


def test_from_a_picture_to_its_poses(page, served, people, tmp_path):
    image, boxes = people
    Image.fromarray(image).save(tmp_path / "people.png")
    drop(page, tmp_path / "people.png")
    page.get_by_text("1 pose found. The whole picture counts as one person").wait_for()
    page.locator("#overlay img").first.wait_for()
    sync_api.expect(page.locator("#results")).to_be_in_viewport(timeout=PATIENCE)
    page.wait_for_timeout(SETTLED)
    page.evaluate("window.scrollTo(0, 0)")
    box = [max(boxes[1][0], 2), max(boxes[1][1], 2), min(boxes[1][2], 637), min(boxes[1][3], 477)]
    mark(page, box, (640, 480))
    page.get_by_text("1 person marked").wait_for()
    before = page.locator("#overlay img").first.get_attribute("src")
    page.get_by_role("button", name="Find poses").click()
    page.get_by_text("1 pose found.", exact=True).wait_for()
    sync_api.expect(page.locator("#overlay img").first).not_to_have_attribute("src", before, timeout=PATIENCE)

    drawn = pixels(page, "#overlay").astype(int)
    assert drawn.shape == image.shape
    changed = np.abs(drawn - image).max(axis=2) > 100  # far more than JPEG does to noise
    assert changed.sum() > 1000, "a skeleton is drawn"
    x0, y0, x1, y1 = (round(edge) for edge in box)
    assert changed[y0:y1, x0:x1].sum() > 0.9 * changed.sum(), "on the person marked"

    name, text = download(page, "Keypoints (JSON)")
    assert name == "keypoints.json"
    (row,) = json.loads(text)
    assert row["file_name"] == "people.png"
    assert np.abs(np.array(row["box"]) - box).max() < 2.5, "taps land where they are seen"
    assert len(row["keypoints"]) == 3 * 14

    page.get_by_role("tab", name="Joints").click()
    page.locator("#joints").get_by_text("left shoulder").wait_for()
    assert page.locator("#joints .confidence-set").count() == 14
    page.get_by_role("tab", name="Heatmaps").click()
    page.locator("#heat img").first.wait_for()
    assert np.abs(pixels(page, "#heat").astype(int) - image).max() > 100
    page.get_by_role("tab", name="Steps").click()
    page.get_by_text("Step 1 of 1").wait_for()
    assert page.locator("#steps img").count() == 2

    check_width(page)
    local = ("data:", "blob:", served.url)
    assert [url for url in page.requested if not url.startswith(local)] == [], "nothing comes from elsewhere"
    assert page.complaints == []


@pytest.mark.parametrize("page", ["desk"], indirect=True)
def test_bad_files_are_refused_on_the_page(page, tmp_path):
    (tmp_path / "notes.png").write_text("these are my notes")
    drop(page, tmp_path / "notes.png")
    page.get_by_role("alert").get_by_text("notes.png: not a picture").wait_for()
    (tmp_path / "large.png").write_bytes(bytes(9_000_000))
    drop(page, tmp_path / "large.png")
    page.get_by_text("exceed").first.wait_for()  # gradio's words for a file that is too large
    page.get_by_role("button", name="Try a portrait").click()
    page.get_by_text("1 pose found").wait_for()


@pytest.mark.parametrize("page", ["desk"], indirect=True)
def test_a_server_that_takes_no_more_says_so(page, people, served, tmp_path, monkeypatch):
    Image.fromarray(people[0][:90, :90]).save(tmp_path / "small.png")
    monkeypatch.setattr(Limits, "total_bytes", 0)
    drop(page, tmp_path / "small.png")
    page.get_by_text("As many files are kept here as may be").first.wait_for()


@pytest.mark.parametrize("page", ["desk"], indirect=True)
def test_names_of_files_are_no_html(page, people, tmp_path):
    name = "<img src=x onerror=window.harm=1>"
    Image.fromarray(people[0][:90, :90]).save(tmp_path / f"{name}.png")
    for ending in ("jpg", "mp4", "txt"):
        (tmp_path / f"{name}.{ending}").write_text("none")
    drop(page, tmp_path / f"{name}.jpg")
    page.get_by_role("alert").get_by_text("not a picture").wait_for()
    drop(page, tmp_path / f"{name}.png")
    page.get_by_text("1 pose found").wait_for()
    page.get_by_role("tab", name="Clip").click()
    clips = page.locator("#clip input[type=file]")
    clips.set_input_files(tmp_path / f"{name}.mp4")
    page.get_by_text("Now follow the people").wait_for()
    page.get_by_role("button", name="Follow the people").click()
    page.locator("#clip_notice").get_by_role("alert").wait_for()
    page.locator("#clip").get_by_role("button", name="Clear").click()
    page.get_by_text("Drop a video").wait_for()
    clips.set_input_files(tmp_path / f"{name}.txt")
    page.get_by_text("Now follow the people").wait_for()
    assert page.evaluate("window.harm") is None
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_boxes_are_typed(page, people, tmp_path):
    box, other = ([round(edge) for edge in box] for box in people[1])
    Image.fromarray(people[0]).save(tmp_path / "people.png")
    drop(page, tmp_path / "people.png")
    page.locator("#overlay img").first.wait_for()
    page.wait_for_timeout(SETTLED)
    page.evaluate("window.scrollTo(0, 0)")
    for each in (box, other):
        mark(page, each, (640, 480))
    page.get_by_text("2 persons marked").wait_for()
    before = page.locator("#picture img").first.get_attribute("src")
    page.get_by_text("Boxes in numbers").click()
    for column, text, answer in (
        (0, "abc", "Box 1: fill in four numbers"),
        (0, "-500", "2 persons marked"),  # over the edge
        (2, "-100", "is outside the 640x480 picture"),
        (2, "-600", "has no area"),
        (2, str(box[2] + 40), "2 persons marked"),
        (0, str(box[0] + 30), "2 persons marked"),
        (1, str(box[1]), "2 persons marked"),
        (3, str(box[3]), "2 persons marked"),
    ):
        write(page, 0, column, text)
        page.locator("#notice").get_by_text(answer).wait_for()
        check_width(page)
    box = [box[0] + 30, box[1], box[2] + 40, box[3]]

    page.get_by_role("button", name="Find poses").click()
    page.get_by_text("2 poses found.", exact=True).wait_for()
    rows = json.loads(download(page, "Keypoints (JSON)")[1])
    assert rows[0]["box"] == box
    assert np.abs(np.array(rows[1]["box"]) - other).max() < 4
    assert page.locator("#picture img").first.get_attribute("src") != before
    shown = pixels(page, "#picture").astype(int)[(box[1] + box[3]) // 2, : box[2] + 20]
    yellow = np.flatnonzero(np.abs(shown - (255, 208, 64)).max(axis=1) < 60)
    assert np.abs(yellow[[0, -1]] - (box[0], box[2])).max() < 4, "the box is drawn where it was typed"
    assert page.complaints == []


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_a_clip_is_followed(page, people, clip, tmp_path):
    av = pytest.importorskip("av")
    still = np.ascontiguousarray(people[0][::2, ::2])
    (tmp_path / "notes.mp4").write_text("no video")
    page.get_by_role("tab", name="Clip").click()
    for path, answer in (
        (tmp_path / "notes.mp4", "notes.mp4: is no video that can be read"),
        (clip(10, size=(320, 240), still=still), "10 frames, 1 person."),
    ):
        page.locator("#clip input[type=file]").set_input_files(path)
        page.get_by_text("Now follow the people").wait_for()
        page.get_by_role("button", name="Follow the people").click()
        page.locator("#clip_notice").get_by_text(answer).wait_for()
        check_width(page)
        if path.name == "notes.mp4":
            assert page.locator("#clip_notice").get_by_role("alert").is_visible()
            page.locator("#clip").get_by_role("button", name="Clear").click()
            page.get_by_text("Drop a video").wait_for()

    video = page.locator("#clip_video video")
    page.wait_for_function("document.querySelector('#clip_video video')?.currentTime > 0")
    sync_api.expect(video).to_be_in_viewport(timeout=PATIENCE)
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [320, 240]
    answer = page.request.get(video.evaluate("video => video.currentSrc"))
    assert answer.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(answer.body())) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) == 10
    assert (np.abs(frames[0] - still).max(axis=2) > 100).sum() > 300, "a skeleton is drawn"
    check_width(page)
    name, text = download(page, "Keypoints (JSON lines)")
    assert name == "clip.jsonl"
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["frame"] for row in rows] == list(range(10))
    assert page.complaints == []
