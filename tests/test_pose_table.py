import sys

import numpy as np
import pytest

from diffusionpose import InputError, Pose, get_skeleton, to_dataframe
from diffusionpose.poses import COLUMNS, pose_rows, poses_of, read_csv, result_rows, write_csv

SKELETON = get_skeleton("crowdpose")
NAMES = ["a.jpg", 'b, "c"\n.jpg', "é\udcff.jpg"]  # a comma, a quote, a line's end, a byte that is no UTF-8


def random_pose(seed):
    random = np.random.default_rng(seed)
    numbers = random.normal(100, 1000, (14, 2)), random.random(14), random.normal(0, 500, 4)
    return Pose(SKELETON, *numbers, score=float(random.random()))


def rows_of(poses):
    return [
        row for number, (name, found) in enumerate(poses.items()) for row in pose_rows(found, name, number)
    ]


@pytest.fixture
def poses():
    return {name: [random_pose(10 * n + i) for i in range(n + 1)] for n, name in enumerate(NAMES)}


def same(left, right):
    assert left.keys() == right.keys()
    for name, found in left.items():
        for a, b in zip(found, right[name], strict=True):
            assert (a.keypoints.tobytes(), a.scores.tobytes()) == (b.keypoints.tobytes(), b.scores.tobytes())
            assert (a.box.tobytes(), a.score) == (b.box.tobytes(), b.score)


def test_csv_gives_back_every_bit(tmp_path, poses):
    write_csv(tmp_path / "poses.csv", rows_of(poses))
    rows = read_csv(tmp_path / "poses.csv")
    assert rows == rows_of(poses)
    assert rows[-1]["joint"] == SKELETON.joints[-1]
    same(poses_of(rows, SKELETON), poses)


def test_rows_of_results_are_the_numbers_that_stand_there():
    pose = random_pose(0)
    results = [
        {**pose.to_coco_result(image_id), "file_name": f"{image_id}.jpg", "box": [1, 2, 3.5, 4]}
        for image_id in (7, 8, 7)
    ]
    rows = list(result_rows(iter(results), SKELETON.joints))
    assert [(row["image_id"], row["person"]) for row in rows[::14]] == [(7, 0), (8, 0), (7, 1)]
    assert [n for row in rows[:14] for n in (row["x"], row["y"], row["score"])] == results[0]["keypoints"]
    assert (rows[0]["x1"], rows[0]["person_score"]) == (3.5, pose.score)
    with pytest.raises(InputError, match="13 joints"):
        list(result_rows(results, SKELETON.joints[:13]))


@pytest.mark.parametrize("wide", [False, True])
def test_dataframe(poses, wide):
    pytest.importorskip("pandas")
    frame = to_dataframe(poses, wide=wide)
    pose = poses["a.jpg"][0]
    if wide:
        assert len(frame) == 6
        assert frame["left_knee_x"][0] == pose.keypoints[SKELETON.joints.index("left_knee"), 0]
        assert frame["person_score"][0] == pose.score
    else:
        assert list(frame.columns) == list(COLUMNS)
        assert len(frame) == 6 * 14
        same(poses_of(frame.to_dict("records"), SKELETON), poses)
    assert len(to_dataframe([], wide=wide)) == 0
    assert to_dataframe([pose], wide=wide)["x1"][0] == pose.box[2]


def test_without_pandas_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"diffusionpose\[table\]"):
        to_dataframe([])


def test_another_skeletons_rows_are_refused(poses):
    with pytest.raises(InputError, match=r"a\.jpg: person 0 has not the joints"):
        poses_of(rows_of(poses), get_skeleton("coco"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no column 'file_name'"),
        ("a,b\n1,2\n", "no column"),
        (",".join(COLUMNS) + "\na,1,0,nose,1,2\n", "line 2 is damaged"),
        (",".join(COLUMNS) + "\na,1,0,nose,x,2,3,4,5,6,7,8\n", "line 2 is damaged"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, complaint):
    (tmp_path / "poses.csv").write_text(content)
    with pytest.raises(InputError, match=rf"poses\.csv: .*{complaint}"):
        read_csv(tmp_path / "poses.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_csv(tmp_path / "nowhere.csv")
