"""AI Challenger's native format: flags, boxes, faults, and agreement with its COCO form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.errors import InputError
from diffusionpose.skeletons import AIC, COCO

Content = dict[str, Any]


def write(folder: Path, content: Any) -> Path:
    path = folder / "persons.json"
    path.write_text(json.dumps(content))
    return path


def native_entry() -> Content:
    flags = [1, 2, 3] + [1] * 11
    keypoints = [v for j, flag in enumerate(flags) for v in (10 + j, 20 + j, flag)]
    return {
        "image_id": "abc",
        "keypoint_annotations": {"human1": keypoints},
        "human_annotations": {"human1": [1, 2, 31, 42]},
    }


def test_aic_native(tmp_path: Path) -> None:
    annotations = read_annotations(write(tmp_path, [native_entry()]))
    assert annotations.skeleton is AIC
    record = annotations.images["abc"]
    assert (record.file_name, record.width, record.height) == ("abc.jpg", 0, 0)
    (person,) = annotations.persons
    assert person.visible.tolist() == [2, 1, 0] + [2] * 11
    assert person.box.tolist() == [1, 2, 31, 42]
    assert person.area == 1200
    np.testing.assert_array_equal(person.keypoints[13], [23, 33])


def _without(*keys: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        inner: Any = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return change


def _human(change: Callable[[list[Any]], list[Any]]) -> Callable[[Content], None]:
    def fault(entry: Content) -> None:
        entry["keypoint_annotations"]["human1"] = change(entry["keypoint_annotations"]["human1"])

    return fault


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (_without("human_annotations"), "has no key 'human_annotations'"),
        (_without("human_annotations", "human1"), "image abc, human1: has keypoints but no box"),
        (_human(lambda k: k[:-3]), "39 keypoint numbers"),
        (_human(lambda k: [float("nan"), *k[1:]]), "NaN"),
        (_human(lambda k: [*k[:-1], 7]), "a flag other than"),
    ],
)
def test_faults_of_native_files(fault: Callable[[Content], None], complaint: str, tmp_path: Path) -> None:
    entry = native_entry()
    fault(entry)
    with pytest.raises(InputError, match=rf"persons\.json: .*{complaint}"):
        read_annotations(write(tmp_path, [entry]))
    with pytest.raises(InputError, match="always 'aic'"):
        read_annotations(write(tmp_path, [native_entry()]), COCO)


def test_both_forms_of_ai_challenger_agree(data_dir: Path) -> None:
    coco_form = read_annotations(data_dir / "formats/aic/test_aic.json")
    native = read_annotations(data_dir / "formats/aic_native/keypoint_annotations_example.json")
    compared = 0
    for person in coco_form.persons:
        name = Path(coco_form.images[person.image_id].file_name).stem
        for twin in native.persons:
            if twin.image_id == name and np.abs(twin.box - person.box).max() < 3:
                labelled = (person.visible > 0) & (twin.visible > 0)
                assert labelled.any()
                np.testing.assert_array_equal(person.keypoints[labelled], twin.keypoints[labelled])
                compared += 1
    assert compared >= 6
