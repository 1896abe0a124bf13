import json
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]


def test_the_demo_poses_its_pictures(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("demo", "--output", tmp_path / "out")
    assert status == 0
    for name in ("grace_hopper.png", "drawn_people.png", "keypoints.json"):
        assert str(tmp_path / "out" / name) in out
    assert (tmp_path / "out" / "grace_hopper.png").stat().st_size > 100_000
    rows = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [row["file_name"] for row in rows] == ["grace_hopper.jpg"] + 3 * ["drawn_people.jpg"]
    assert all(max(row["keypoints"][2::3]) > 0.2 for row in rows)
