"""``diffusionpose compare``: from files to the table, and bad input."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def results(synthetic_set, tmp_path):
    """The truth of the synthetic set, and the same with every joint moved, as results files."""
    _, annotations = synthetic_set
    content = json.loads(annotations.read_text())
    paths = []
    for name, share in (("moved", 0.03), ("true", 0.0)):
        rows = []
        for person in content["annotations"]:
            triplets = np.reshape(person["keypoints"], (-1, 3)).astype(float)
            x, y, width, height = person["bbox"]
            triplets[:, 0] += share * (width * height) ** 0.5
            row = {"image_id": person["image_id"], "keypoints": triplets.ravel().tolist(), "score": 1.0}
            rows.append({**row, "box": [x, y, x + width, y + height]})
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(rows))
    return paths, annotations


def test_table_and_file(run, results, tmp_path):
    (moved, true), annotations = results
    words = ["--annotations", annotations, "--rounds", 20, "--output", tmp_path / "out"]
    ended = run("compare", moved, true, *words)
    assert (ended.status, ended.err) == (0, "")
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    assert lines["first"].split()[1] == str(moved)
    assert lines["second"].split()[1] == str(true)
    assert "second is better" in lines["AP"]
    assert lines["AP"].split()[2] == "1.0000"
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.width > 2 * picture.height
    entries = json.loads((tmp_path / "out" / "comparison.json").read_text())
    found = entries["metrics"]["AP"]
    assert found["second"] == pytest.approx(1)
    assert found["difference"] == pytest.approx(1 - found["first"])
    assert 0 < found["interval_95"][0] <= found["difference"] <= found["interval_95"][1]
    assert run("compare", true, moved, *words).out.count("first is better") >= 1
    assert "not clear" in run("compare", true, true, *words).out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("[{", "not a JSON file"),
        ("{}", "not a list of poses"),
        ('[{"image_id": 1, "keypoints": []}]', "entry 0 has no score"),
        ('[{"image_id": 987654, "keypoints": [], "score": 1}]', "987654"),
    ],
)
def test_bad_results(run, results, tmp_path, content, message):
    (_, true), annotations = results
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    ended = run("compare", true, bad, "--annotations", annotations)
    assert ended.status == 1
    assert message in ended.err
    assert run("compare", true, true, "--annotations", annotations, "--rounds", 0).status == 1
