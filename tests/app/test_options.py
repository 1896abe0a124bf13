"""By what a job knows its inputs again."""

from pathlib import Path

import pytest

from diffusionpose.app.options import stamp


def test_a_changed_file_is_another_one(tmp_path: Path) -> None:
    assert stamp(None) == []
    assert stamp("a-bundled-model") == ["a-bundled-model", []]
    (tmp_path / "boxes.json").write_text("[]")
    before = stamp(tmp_path), stamp(tmp_path / "boxes.json")
    (tmp_path / "boxes.json").write_text("[1]")
    assert stamp(tmp_path) != before[0]
    assert stamp(tmp_path / "boxes.json") != before[1]


def test_an_openvino_model_is_known_by_the_file_of_its_numbers_too(tmp_path: Path) -> None:
    graph, numbers = tmp_path / "m.xml", tmp_path / "m.bin"
    graph.write_bytes(b"graph")
    numbers.write_bytes(b"one training")
    before = stamp(str(graph))
    assert stamp(str(graph)) == before
    numbers.write_bytes(b"another training")
    assert stamp(str(graph)) != before


def test_a_model_is_known_by_its_calibration_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "m.onnx").write_bytes(b"graph")
    monkeypatch.chdir(tmp_path / "folder")
    before = stamp("../m.onnx"), stamp(".")
    for name in ("m", "folder"):
        (tmp_path / f"{name}.calibration.json").write_text("{}")
    assert stamp("../m.onnx") != before[0]
    assert stamp(".") != before[1]
