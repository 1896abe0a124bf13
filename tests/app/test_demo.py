import json
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]


def test_the_demo_poses_its_photograph(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("demo", "--output", tmp_path / "out")
    assert status == 0
    picture, results = tmp_path / "out" / "grace_hopper.png", tmp_path / "out" / "keypoints.json"
    assert str(picture) in out
    assert str(results) in out
    assert picture.stat().st_size > 100_000
    (row,) = json.loads(results.read_text())
    assert row["file_name"] == "grace_hopper.jpg"
    assert max(row["keypoints"][2::3]) > 0.2
