"""In what our numbers differ from the paper's protocol."""

from dataclasses import replace
from pathlib import Path

from diffusionpose.training.reproduce import differences
from diffusionpose.training.settings import Machine
from diffusionpose.training.studies import BUDGETS

COCO_VAL = {"file": "person_keypoints_val2017.json", "pictures": 5000, "persons": 6352}
FACTS = {"skeleton": "coco", "joints": 17, "val": COCO_VAL}


def test_the_papers_own_protocol_differs_in_nothing_and_all_others_do(ask, tmp_path):
    usual = ask(tmp_path)
    boxes = replace(usual.data, boxes=Path("COCO_val2017_detections_AP_H_56_person.json"))
    paper = replace(usual, budget=BUDGETS["full"], data=boxes, machine=Machine(devices=8))
    assert differences(paper, FACTS) == []
    subset = {**FACTS, "val": {**COCO_VAL, "pictures": 76, "persons": 195}}
    others = {
        "195 persons of person_keypoints_val2017.json": (paper, subset),
        "14 joints, skeleton crowdpose": (paper, {**FACTS, "skeleton": "crowdpose", "joints": 14}),
        "annotated boxes": (replace(paper, data=usual.data), FACTS),
        "MobileNetV2 at 96x64": (replace(paper, budget=BUDGETS["tiny"]), FACTS),
        "32 persons a step": (replace(paper, machine=Machine()), FACTS),
    }
    for words, (request, facts) in others.items():
        (found,) = differences(request, facts)
        assert words in found
