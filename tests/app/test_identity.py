"""By what a job knows its inputs again."""

from pathlib import Path

import pytest

from diffusionpose import InputError
from diffusionpose.app.options import file_digest, weights_digest


def test_an_openvino_model_is_known_by_the_file_of_its_numbers_too(tmp_path: Path) -> None:
    graph, numbers = tmp_path / "m.xml", tmp_path / "m.bin"
    graph.write_bytes(b"graph")
    numbers.write_bytes(b"one training")
    before = weights_digest(graph)
    assert weights_digest(graph) == before
    numbers.write_bytes(b"another training")
    assert weights_digest(graph) != before
    numbers.unlink()
    with pytest.raises(InputError, match=r"m\.bin: cannot be read"):
        weights_digest(graph)


def test_other_weights_are_known_by_their_file(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"a")
    (tmp_path / "m.bin").write_bytes(b"of something else")
    assert weights_digest(tmp_path / "m.safetensors") == file_digest(tmp_path / "m.safetensors")
