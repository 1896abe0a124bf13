"""The page in a real browser, as wide as a desk and as narrow as a phone."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120_000  # milliseconds; on an idle machine nothing takes more than a few seconds
SETTLED = 1000  # ms
SIZES = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        # --no-sandbox: root in a container has no other way
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE)
        yield chromium
        chromium.close()


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
        place = page.locator("#picture img").first.bounding_box()
        assert place["width"] / place["height"] == pytest.approx(size[0] / size[1], rel=0.02), "shown whole"
        page.point(place["x"] + x * place["width"] / size[0], place["y"] + y * place["height"] / size[1])
        page.get_by_text(answer).wait_for()


def test_from_a_picture_to_its_poses(page, served, people, tmp_path):
    image, boxes = people
    Image.fromarray(image).save(tmp_path / "people.png")
    drop(page, tmp_path / "people.png")
    page.get_by_text("The whole picture counts as one person").wait_for()
    box = [max(boxes[1][0], 2), max(boxes[1][1], 2), min(boxes[1][2], 637), min(boxes[1][3], 477)]
    mark(page, box, (640, 480))
    page.get_by_text("1 person marked").wait_for()
    page.get_by_role("button", name="Find poses").click()
    page.get_by_text("1 pose found").wait_for()
    page.locator("#overlay img").first.wait_for()

    drawn = pixels(page, "#overlay").astype(int)
    assert drawn.shape == image.shape
    changed = np.abs(drawn - image).max(axis=2) > 100  # far more than JPEG does to noise
    assert changed.sum() > 1000, "a skeleton is drawn"
    x0, y0, x1, y1 = (round(edge) for edge in box)
    assert changed[y0:y1, x0:x1].sum() > 0.9 * changed.sum(), "on the person marked"

    with page.expect_download() as download:
        page.get_by_role("link", name="Keypoints (JSON)").or_(
            page.get_by_role("button", name="Keypoints (JSON)")
        ).first.click()
    assert download.value.suggested_filename == "keypoints.json"
    (row,) = json.loads(Path(download.value.path()).read_text())
    assert row["file_name"] == "people.png"
    assert np.abs(np.array(row["box"]) - box).max() < 2.5, "taps land where they are seen"
    assert len(row["keypoints"]) == 3 * 14

    page.get_by_role("tab", name="Joints").click()
    page.locator("#joints table").wait_for()
    assert page.locator("#joints tr").count() == 14
    page.get_by_role("tab", name="Heatmaps").click()
    page.locator("#heat img").first.wait_for()
    assert np.abs(pixels(page, "#heat").astype(int) - image).max() > 100
    page.get_by_role("tab", name="Steps").click()
    page.get_by_text("Step 1 of 1").wait_for()
    assert page.locator("#steps img").count() == 2

    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    local = ("data:", "blob:", served.url)
    assert [url for url in page.requested if not url.startswith(local)] == [], "nothing comes from elsewhere"
    assert page.complaints == []


def test_bad_files_are_refused_on_the_page(page, tmp_path):
    (tmp_path / "notes.png").write_text("these are my notes")
    drop(page, tmp_path / "notes.png")
    page.get_by_role("alert").get_by_text("notes.png: not a picture").wait_for()
    (tmp_path / "large.png").write_bytes(bytes(9_000_000))
    drop(page, tmp_path / "large.png")
    page.get_by_text("exceed").first.wait_for()  # gradio's words for a file that is too large
    page.get_by_role("button", name="Try a portrait").click()
    page.get_by_text("1 person marked").wait_for()
