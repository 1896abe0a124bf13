import json
from pathlib import Path

import numpy as np
import pytest

from diffusionpose.errors import InputError
from diffusionpose.poses import Pose
from diffusionpose.runtime.video.following import Person
from diffusionpose.runtime.video.reading import Frame
from diffusionpose.runtime.video.writing import FrameLines, frame_line
from diffusionpose.skeletons import get_skeleton

SKELETON = get_skeleton("crowdpose")
POSE = Pose(SKELETON, np.full((14, 2), 1 / 3), np.full(14, 0.5), np.array([0, 1, 2, 3.126]), 0.7)
LINES = [(Frame(i, i / 30, i, np.empty(0)), [Person(4, POSE)] * (i % 3)) for i in range(9)]


def write(path: Path, count: int = 9, finish: bool = True) -> bytes:
    with FrameLines(path) as lines:
        for line in LINES[:count]:
            lines.write(*line)
        if finish:
            lines.finish()
    return path.read_bytes()


def test_a_line_says_who_is_where(tmp_path: Path) -> None:
    entries = [json.loads(line) for line in write(tmp_path / "out.jsonl").splitlines()]
    assert [entry["frame"] for entry in entries] == list(range(9))
    assert entries[1]["time"] == 0.033333
    (person,) = entries[1]["persons"]
    assert person == {
        "id": 4,
        "box": [0, 1, 2, 3.13],
        "score": 0.7,
        "keypoints": [0.333, 0.333, 0.5] * 14,
    }
    assert entries[2]["persons"] == [person] * 2
    assert entries[3]["persons"] == []


@pytest.mark.parametrize("torn", [b"", b'{"frame": 5, "ti'])
def test_what_is_there_stays_and_the_rest_is_added(tmp_path: Path, torn: bytes) -> None:
    whole = write(tmp_path / "whole.jsonl")
    part = tmp_path / "part.jsonl"
    write(part, 5, finish=False)
    part.write_bytes(part.read_bytes() + torn)
    assert write(part) == whole


def test_what_differs_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = write(path)
    path.write_bytes(whole.replace(b'"frame": 3', b'"frame": 33'))
    assert write(path) == whole
    path.write_bytes(whole + b"left over\n" * 5)
    assert write(path, 4) == b"".join(frame_line(*line) for line in LINES[:4])


def test_a_run_stopped_while_it_catches_up_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = write(path)
    assert write(path, 3, finish=False) == whole


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.jsonl: cannot be written"):
        FrameLines(tmp_path / "no folder" / "out.jsonl")
