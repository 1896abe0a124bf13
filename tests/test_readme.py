"""What the README and the docs say works: code runs, commands parse, links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import pytest

from diffusionpose.app import cli
from diffusionpose.bundled import PORTRAIT
from diffusionpose.skeletons import Skeleton
from diffusionpose.training.recipes import get_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Every ``diffusionpose ..`` line of the shell blocks, split into words."""
    lines = "\n".join(blocks("bash", text)).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and Path(line[0]).name == "diffusionpose"]


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A folder to work in, with a photograph in the public domain as photo.jpg."""
    (tmp_path / "photo.jpg").write_bytes(PORTRAIT.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photo.jpg"


def test_the_first_python_block_finds_a_pose(photo, capsys):
    names = {}
    exec(blocks("python")[0], names)
    (pose,) = names["poses"]
    assert pose.keypoints.shape == (19, 2)
    assert capsys.readouterr().out


def test_the_first_command_leaves_picture_and_json(photo):
    assert cli.main(commands(README)[0]) == 0
    assert (photo.parent / "output" / "photo.png").stat().st_size > 10_000
    assert (photo.parent / "output" / "keypoints.json").is_file()


def test_the_synthetic_block_draws_what_the_next_command_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    block = next(b for b in blocks("python", page) if "write_synthetic" in b)
    exec(re.sub(r"\b(300|60)\b", "2", block), {})
    train = next(c for c in commands(page) if "diffusionpose_tiny_synthetic" in c)
    paths = [Path(word) for word in train if word.startswith(("people/train", "people/val"))]
    assert len(paths) == 4
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse_and_recipes_exist(page):
    for words in commands(page.read_text(encoding="utf-8")):
        command = cli._parse(words)
        if words[0] == "train" and command.recipe != "RECIPE":  # a page's word for any of them
            get_recipe(command.recipe)


def test_the_skeleton_of_the_docs_is_one():
    assert Skeleton.from_yaml(ROOT / "examples" / "arms.yaml").num_joints == 6


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(
        r"(?:^|`)make ([a-z]+)", "\n".join(page.read_text(encoding="utf-8") for page in PAGES), re.MULTILINE
    )
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_of_the_tables_is_what_the_command_prints():
    from diffusionpose.app.models import markdown

    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    page = [line for line in text.splitlines() if line]
    printed = [line for line in markdown() if line]
    start = page.index(printed[0])
    assert page[start : start + len(printed)] == printed


REPORTS = sorted((ROOT / "docs" / "ablations").glob("*.json"))


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_the_page_of_the_tables_has_the_numbers_of_the_reports(report):
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    section = page.partition(f"[Report](ablations/{report.stem}.md)")[2].partition("\n### ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    assert rows
    for row in rows:
        measured = [run["result"]["metrics"] for run in row["runs"]]
        (cells,) = [cells for cells in lines if cells[0] == row["label"]]
        assert len(measured) == 1
        ours = [f"{100 * measured[0][name]:.1f}" for name in ("AP", "AR", "PCK")]
        assert [cells[1], cells[2], cells[3].split()[0]] == ours
        paper = [row["paper"].get(name) for name in ("AP", "AR")]
        assert cells[4:] == ["-" if value is None else str(value) for value in paper]


def test_the_reports_name_no_place_of_the_machine_they_ran_on():
    assert len(REPORTS) >= 3
    for report in REPORTS:
        for file in (report, report.with_suffix(".md")):
            assert not re.search(r"/(?:home|root|work|tmp|Users)/", file.read_text(encoding="utf-8")), file
