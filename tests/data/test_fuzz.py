"""Thousands of damaged files of annotations, results and boxes: each is read, or refused by one message."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusionpose.data.annotations import read_annotations, read_boxes
from diffusionpose.data.check import check_annotations
from diffusionpose.errors import InputError
from diffusionpose.evaluation.metrics import average_precision, match_results, read_results
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE

MUTATIONS = 700  # of each kind of file
VALUES = [
    None, True, False, 0, -1, 1, 2, 1e308, -1e308, 10**30, 10**400, float("nan"), float("inf"), 0.5, "", "1",
    "left", "x" * 3000, "\x1b[31m<b>$\\alpha$</b>", "..\\..\\a.jpg", "/etc/passwd", [], {}, [[]], [None],
    {"id": 1}, [[[[1]]]], "\ud800", "1e9", -0.0, [0] * 51, ["a"] * 51, [10**400] * 4,
]  # fmt: skip


def coco() -> Any:
    joints = list(COCO.joints)
    people = [
        {
            "id": p,
            "image_id": 1 + p % 2,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [10 + p, 20, 30, 40],
            "area": 600.0,
            "num_keypoints": 17,
            "keypoints": [v for j in range(17) for v in (10 + j, 20 + 2 * j, 2)],
        }
        for p in range(3)
    ]
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80, "crowdIndex": 0.1} for i in (1, 2)
    ]
    categories = [{"id": 1, "name": "person", "keypoints": joints, "skeleton": [[1, 2], [2, 3]]}]
    return {"images": images, "annotations": people, "categories": categories}


def native() -> Any:
    person = {"human1": [v for j in range(14) for v in (20 + j, 30 + 2 * j, 1)]}
    return [
        {"image_id": name, "keypoint_annotations": person, "human_annotations": {"human1": [10, 20, 50, 80]}}
        for name in ("a", "b")
    ]


def results() -> Any:
    keypoints = [v for j in range(17) for v in (10.0 + j, 20.0 + 2 * j, 0.9)]
    return [
        {"image_id": i, "category_id": 1, "keypoints": keypoints, "score": 0.5, "box": [10, 20, 40, 60]}
        for i in (1, 2)
    ]


def boxes() -> Any:
    return [{"image_id": i, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9} for i in (1, 2)]


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON value, as keys and indices; the numbers of one list are one place of several."""
    found = [path] if path else []
    if isinstance(content, dict):
        for key, value in content.items():
            found += places(value, (*path, key))
    elif isinstance(content, list):
        for index, value in enumerate(content[:4]):
            found += places(value, (*path, index))
    return found


def mutated(content: Any, draw: random.Random) -> str:
    content = copy.deepcopy(content)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        path = draw.choice(places(content) or [()])
        if not path:
            continue
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        kind = draw.random()
        if kind < 0.7:
            inner[path[-1]] = copy.deepcopy(draw.choice(VALUES))
        elif kind < 0.85:
            del inner[path[-1]]
        elif isinstance(inner, list):
            inner.append(copy.deepcopy(inner[path[-1]]))
        else:
            inner[str(draw.choice(["id", "bbox", "joints", "score", "box"]))] = copy.deepcopy(
                draw.choice(VALUES)
            )
    text = json.dumps(content)
    if draw.random() < 0.05:
        text = text[: draw.randrange(len(text) + 1)]
    if draw.random() < 0.02:
        text = "[" * 100_000 + text
    return text


def use_annotations(path: Path) -> None:
    annotations = read_annotations(path, draw_skeleton(path))
    check_annotations(annotations)
    annotations.labelled()
    assert all(isinstance(message, str) for message in [*annotations.dropped, *annotations.doubts])


def draw_skeleton(path: Path) -> Any:
    return random.Random(path.stat().st_size).choice([None, None, None, COCO, CROWDPOSE])


def use_truth(path: Path) -> None:
    annotations = read_annotations(path)
    if annotations.skeleton.joints == COCO.joints:
        average_precision(
            *match_results(annotations, [row for row in results() if row["image_id"] in annotations.images])
        )


def use_results(path: Path, truth: Path) -> None:
    average_precision(*match_results(read_annotations(truth), read_results(path), source=path))


def use_native(path: Path, truth: Path) -> None:
    read_annotations(path, AIC)


def use_boxes(path: Path, truth: Path) -> None:
    read_boxes(path, read_annotations(truth))


KINDS: list[tuple[str, Callable[[], Any], Callable[..., None], int]] = [
    ("annotations", coco, lambda path, truth: use_annotations(path), MUTATIONS),
    ("truth", coco, lambda path, truth: use_truth(path), MUTATIONS // 4),
    ("native", native, use_native, MUTATIONS),
    ("results", results, use_results, MUTATIONS // 2),
    ("boxes", boxes, use_boxes, MUTATIONS),
]


@pytest.mark.parametrize(("name", "content", "use", "count"), KINDS, ids=[kind[0] for kind in KINDS])
def test_damaged_files_are_read_or_refused(
    name: str, content: Callable[[], Any], use: Callable[[Path, Path], None], count: int, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(coco()))
    path = tmp_path / f"{name}.json"
    original, read = content(), 0
    told: list[tuple[int, str]] = []
    for seed in range(count):
        path.write_text(mutated(original, random.Random(f"{name} {seed}")), errors="surrogatepass")
        try:
            use(path, truth)
            read += 1
        except InputError as error:
            told.append((seed, str(error)))
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}: {error!r}") from error
    assert [one for one in told if path.name not in one[1] or len(one[1]) > 5000] == []
    assert read > count / 10  # not everything is refused
