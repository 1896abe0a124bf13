"""Official annotation files of every format are read whole."""

from pathlib import Path

import pytest

from diffusionpose.data.annotations import read_annotations
from diffusionpose.skeletons import AIC, COCO, CROWDPOSE, Skeleton


@pytest.mark.parametrize(
    ("file", "skeleton", "images", "persons", "labelled"),
    [
        ("lspet14/annotations/lspet14_train.json", CROWDPOSE, 7682, 7682, 7682),
        ("lspet14/annotations/lspet14_val.json", CROWDPOSE, 977, 977, 977),
        ("coco_subset/annotations/person_keypoints_train2017.json", COCO, 103, 383, 282),
        ("coco_subset/annotations/person_keypoints_val2017.json", COCO, 76, 231, 195),
        ("formats/coco/test_coco.json", COCO, 4, 14, 12),
        (
            "formats/coco/person_keypoints_val2017_2213.json",
            COCO,
            538,
            2213,
            1354,
        ),  # images listed repeatedly
        ("formats/crowdpose/crowdpose_val.json", CROWDPOSE, 2000, 8527, 7962),
        ("formats/aic/test_aic.json", AIC, 3, 9, 9),
        ("formats/aic_native/keypoint_annotations_example.json", AIC, 1000, 2761, 2761),
        ("formats/ochuman/test_ochuman.json", COCO, 3, 5, 5),
    ],
)
def test_official_files(
    file: str, skeleton: Skeleton, images: int, persons: int, labelled: int, data_dir: Path
) -> None:
    annotations = read_annotations(data_dir / file)
    assert annotations.skeleton is skeleton
    assert annotations.dropped == []
    assert (len(annotations.images), len(annotations.persons)) == (images, persons)
    assert len(annotations.labelled().persons) == labelled


def test_crowd_index_and_area_of_crowdpose(data_dir: Path) -> None:
    annotations = read_annotations(data_dir / "formats/crowdpose/crowdpose_val.json")
    assert annotations.images[114203].crowd_index == 0.76
    first = annotations.persons[0]
    assert first.area == pytest.approx(129.44 * 271.82)
    assert first.keypoints[0].tolist() == [181, 164]
