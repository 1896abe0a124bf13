"""Sets of persons made by hand, and random results around a known truth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusionpose.data.annotations import Annotations, ImageRecord, Person
from diffusionpose.skeletons import COCO, Skeleton

Rows = list[dict[str, Any]]


@pytest.fixture
def make_annotations() -> Callable[..., Annotations]:
    """Random persons, ``persons`` in each of ``images`` pictures of 600 x 400 pixels."""

    def make(
        images: int = 3, persons: int = 2, skeleton: Skeleton = COCO, crowd_indices: Any = None, seed: int = 0
    ) -> Annotations:
        generator = np.random.default_rng(seed)
        records: dict[int | str, ImageRecord] = {}
        people = []
        for number in range(images):
            crowd_index = None if crowd_indices is None else crowd_indices[number]
            records[number] = ImageRecord(number, f"{number}.png", 600, 400, crowd_index)
            for place in range(persons):
                x0, y0 = 20.0 + 280 * place, 30.0 + 10 * number
                box = np.asarray([x0, y0, x0 + 150, y0 + 300], np.float32)
                keypoints = (box[:2] + generator.random((skeleton.num_joints, 2)) * [150, 300]).astype(
                    np.float32
                )
                visible = np.full(skeleton.num_joints, 2)
                people.append(Person(number, len(people), box, keypoints, visible, area=30000.0))
        return Annotations(Path("made.json"), skeleton, records, people)

    return make


@pytest.fixture
def rows_of() -> Callable[[Annotations], Rows]:
    """The true poses as results."""

    def make(annotations: Annotations) -> Rows:
        return [
            {
                "image_id": person.image_id,
                "category_id": 1,
                "keypoints": np.column_stack([person.keypoints, np.ones(len(person.keypoints))])
                .ravel()
                .tolist(),
                "score": 1.0,
                "box": person.box.tolist(),
            }
            for person in annotations.persons
        ]

    return make


@pytest.fixture
def random_rows() -> Callable[..., Rows]:
    """Results at random distances from a COCO dict's truth: some missed, some twice, some scores equal."""

    def make(truth: dict[str, Any], seed: int) -> Rows:
        generator = np.random.default_rng(seed)
        rows = []
        for annotation in truth["annotations"]:
            corner, size = np.split(np.asarray(annotation["bbox"], float), 2)
            for _ in range(generator.choice([0, 1, 1, 1, 1, 2])):
                keypoints = np.reshape(annotation["keypoints"], (-1, 3)).astype(float)
                hidden = keypoints[:, 2] == 0
                keypoints[hidden, :2] = corner + generator.random((hidden.sum(), 2)) * size
                error = np.sqrt(size.prod()) * generator.choice([0.01, 0.03, 0.08, 0.3])
                keypoints[:, :2] += error * generator.standard_normal((len(keypoints), 2))
                keypoints[:, 2] = generator.random(len(keypoints))
                rows.append(
                    {
                        "image_id": annotation["image_id"],
                        "category_id": 1,
                        "keypoints": keypoints.ravel().tolist(),
                        "score": round(float(generator.random()), 2),
                    }
                )
        return rows

    return make
