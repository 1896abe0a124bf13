"""Results of others: what is read, what is left out, and which picture an entry means."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusionpose import InputError
from diffusionpose.data.annotations import ImageRecord
from diffusionpose.data.boxes import PictureFinder, read_given_poses, read_listed_pictures

GOOD = {"image_id": 7, "keypoints": [10, 20, 0.9, 30, 60, 2, -9999, 0, 0]}


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_scores_boxes_and_order(tmp_path):
    entries = [
        GOOD,
        {**GOOD, "bbox": [1, 2, 30, 40], "score": 0.25},
        {**GOOD, "bbox": [1, 2, 30, 40], "box": [0, 0, 5, 6]},
        {**GOOD, "keypoints": [1, 1, 0, 2, 2, -0.1, 3, 3, 0], "box": [0, 0, 5, 6]},
    ]
    poses, problems = read_given_poses(written(tmp_path, entries), 3)
    assert problems == []
    assert [pose.index for pose in poses] == [0, 1, 2, 3]
    assert [pose.score for pose in poses] == [1, 0.25, 1, 1]
    # without a box: the extent of the two given joints, 20 by 40, and a tenth on every side
    assert np.allclose([pose.box for pose in poses[:3]], [[8, 16, 32, 64], [1, 2, 31, 42], [0, 0, 5, 6]])
    assert np.allclose(poses[0].triplets, [[10, 20, 0.9], [30, 60, 2], [0, 0, 0]])
    assert not poses[3].triplets.any(), "negative scores are of joints that are not given"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([1], "is \\[1\\], not an object"),
        ({**GOOD, "image_id": None}, "has None as 'image_id'"),
        ({**GOOD, "keypoints": None}, "has None as 'keypoints'"),
        ({**GOOD, "keypoints": ["a"] * 9}, "give numbers"),
        ({**GOOD, "keypoints": [float("nan"), 1, 1] * 3}, "a given joint that is not finite"),
        ({**GOOD, "keypoints": [1, 1, float("nan")] * 3}, "a given joint that is not finite"),
        ({**GOOD, "keypoints": [0] * 9}, "neither a given joint nor a box"),
        ({**GOOD, "bbox": [1, 2, 3]}, "has 3 numbers in 'bbox'"),
        ({**GOOD, "box": "large"}, "has 'large' as 'box'"),
        ({**GOOD, "keypoints": [1e39, 1, 1] * 3}, "a given joint that is not finite"),
        ({**GOOD, "score": float("nan")}, "has nan as 'score'; mend it"),
        ({**GOOD, "score": "high"}, "as 'score'; give numbers"),
    ],
)
def test_an_entry_that_cannot_be_used_costs_no_other(tmp_path, entry, message):
    poses, problems = read_given_poses(written(tmp_path, [GOOD, entry, GOOD]), 3)
    assert [pose.index for pose in poses] == [0, 2]
    (problem,) = problems
    assert problem.startswith(f"{tmp_path / 'results.json'}: entry 1 ")
    assert re.search(message, problem)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "an empty list; there is no pose to refine"),
        ({"annotations": []}, "not a list of poses; give COCO results"),
        ("[{", "not a JSON file"),
        ([{**GOOD, "keypoints": [1, 2, 1] * 17}], "entry 0 has 17 joints .* the model has 3; give weights"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"results\.json: {message}"):
        read_given_poses(written(tmp_path, content), 3)


def test_which_picture_an_entry_means(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name in ("000000000785.jpg", "dog.png", "a_12.jpg", "b_12.jpg", "a_785.txt", "sub/x.jpg"):
        (folder / name).touch()
    finder = PictureFinder(folder)
    assert finder.path({"image_id": 785}) == folder / "000000000785.jpg"
    assert finder.path({"image_id": "dog"}) == folder / "dog.png"
    assert finder.path({"image_id": 785, "file_name": "sub/x.jpg"}) == folder / "sub/x.jpg"
    for entry, message in (
        ({"image_id": 12}, "image 12: 2 pictures of that number"),
        ({"image_id": 99}, "image 99: no picture of that number in .*; give --annotations"),
        ({"image_id": 785, "file_name": "none.jpg"}, r"none\.jpg: no such picture"),
    ):
        with pytest.raises(InputError, match=message):
            finder.path(entry)
    named = PictureFinder(
        folder, {785: ImageRecord(785, "dog.png", 0, 0), 1: ImageRecord(1, "none.jpg", 8, 8)}
    )
    assert named.path({"image_id": 785, "file_name": "sub/x.jpg"}) == folder / "dog.png"
    for image_id, message in ((1, "no such picture"), (2, "image 2: not listed by the annotations")):
        with pytest.raises(InputError, match=message):
            named.path({"image_id": image_id})
    with pytest.raises(InputError, match="no such folder"):
        PictureFinder(tmp_path / "nowhere")


def test_a_picture_is_turned_as_its_annotations_saw_it(tmp_path):
    """Stored 6 wide and 4 high, shown upright: 4 wide and 6 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "7.jpg", exif=exif)
    for size, shape in (((6, 4), (4, 6)), ((4, 6), (6, 4)), ((0, 0), (6, 4)), (None, (6, 4))):
        listed = None if size is None else {7: ImageRecord(7, "7.jpg", *size)}
        finder = PictureFinder(tmp_path, listed)
        assert finder.image(finder.path(GOOD)).shape[:2] == shape
    finder = PictureFinder(tmp_path, {7: ImageRecord(7, "7.jpg", 8, 8)})
    with pytest.raises(InputError, match="its annotations were made at 8x8"):
        finder.image(finder.path(GOOD))


def test_listed_pictures_of_annotations(tmp_path):
    images = [
        {"id": 3, "file_name": "x.jpg"},
        {"id": "four", "file_name": "y/z.jpg", "width": 4, "height": 3},
    ]
    listed = read_listed_pictures(written(tmp_path, {"images": images}))
    assert listed == {3: ImageRecord(3, "x.jpg", 0, 0), "four": ImageRecord("four", "y/z.jpg", 4, 3)}
    with pytest.raises(InputError, match="lists no 'images'"):
        read_listed_pictures(written(tmp_path, [GOOD]))
    with pytest.raises(InputError, match="no key 'file_name'"):
        read_listed_pictures(written(tmp_path, {"images": [{"id": 3}]}))
