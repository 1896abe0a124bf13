"""By what a job knows its weights again."""

from pathlib import Path

from diffusionpose.app.options import weights_stamp


def test_an_openvino_model_is_known_by_the_file_of_its_numbers_too(tmp_path: Path) -> None:
    graph, numbers = tmp_path / "m.xml", tmp_path / "m.bin"
    graph.write_bytes(b"graph")
    numbers.write_bytes(b"one training")
    before = weights_stamp(str(graph))
    assert weights_stamp(str(graph)) == before
    numbers.write_bytes(b"another training")
    assert weights_stamp(str(graph)) != before
