"""The job of ``diffusionpose data audit``: the list, its page with pictures, and the corrections."""

import base64
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from diffusionpose import __version__
from diffusionpose.app.options import counted, make_folder, say, stamp
from diffusionpose.data.annotations import Annotations, read_annotations
from diffusionpose.data.audit import Evidence, Suspicion, look, rank
from diffusionpose.data.pictures import find_pictures
from diffusionpose.errors import InputError, file_digest, write_file
from diffusionpose.geometry import Crop
from diffusionpose.journal import Journal
from diffusionpose.json_files import Id, as_id, id_key, read_json, write_json
from diffusionpose.poses import Pose
from diffusionpose.runtime.drawing import draw_poses
from diffusionpose.runtime.networks import Network
from diffusionpose.skeletons import Skeleton

LIST, PAGE, CORRECTED, PROGRESS = "audit.json", "audit.html", "corrected.json", "progress.jsonl"
VIEW, QUALITY = (240, 320), 80  # (width, height) of a crop on the page, pixels; of its JPEG
RING, RING_COLOR = 8, (255, 0, 255)  # around joints in doubt: radius in pixels of a crop, RGB
VERBS = {"sides exchanged": "exchange sides", "missing joint": "add", "no person": "remove the label"}


def audit(
    file: Path,
    folder: Path,
    output: Path,
    networks: Sequence[Network],
    skeleton: Skeleton | None,
    most: int,
    job: Any,
) -> int:
    """Write the list and the page with its first ``most`` entries; 0 if every label could be looked at.

    Args:
        file: of annotations, with joints of the networks or some of them.
        folder: of the pictures.
        networks: of several, each looks at the fold that it was not trained on (:func:`split`).
        skeleton: of the file, where it does not name its joints.
        job: by what the networks are known again; JSON values.
    """
    annotations = read_annotations(file, skeleton)
    folds = _folds(annotations, len(networks))
    shared = list(annotations.skeleton.joints)
    for network in networks:
        shared = [joint for joint in shared if joint in network.skeleton.joints]
        if not shared:
            raise InputError(f"{file}: has no joint of {network.name}; give other --weights")
    problems = list(annotations.dropped)
    annotations = annotations.to_skeleton(annotations.skeleton.select(shared)).labelled()
    make_folder(output)
    job = {"version": __version__, "annotations": stamp(file), "images": str(folder), "weights": job}
    with closing(Journal(output / PROGRESS, job)) as journal:
        looking = {image_id: networks[fold] for image_id, fold in folds.items()}
        evidence = _gather(looking, annotations, folder, journal, problems)
        for problem in problems:
            say(problem)
        if not evidence:
            raise InputError(f"{file}: no label could be looked at; check it, and --images")
        rows = sorted(evidence)
        annotations = replace(annotations, persons=[annotations.persons[row] for row in rows])
        found = [evidence[row] for row in rows]
        suspicions = rank(annotations.persons, found, annotations.skeleton)
        labels = [_row(annotations, suspicion) for suspicion in suspicions]
        digest = file_digest(file)
        write_json(output / LIST, {"annotations": digest, "labels": labels})
        cards = list(_cards(annotations, folder, suspicions[:most], problems))
        facts = {
            "name": file.name,
            "digest": digest,
            "persons": f"{len(labels):,}",
            "shown": f"{len(cards):,}",
        }
        words = ["diffusionpose", "data", "audit", "--annotations", str(file), "--output", str(output)]
        facts["command"] = shlex.join([*words, "--accept", "accepted.json"])
        facts = {name: escape(text) for name, text in facts.items()}
        page = Template(Path(__file__).with_name("data_audit.html").read_text(encoding="utf-8"))
        filled = page.substitute(facts, cards="\n".join(cards))
        write_file(output / PAGE, filled.encode("utf-8", "replace"))
        if not problems:
            journal.remove()
    kinds = Counter(label["fault"] for label in labels[:most]).most_common()
    print(f"{counted(len(labels), 'label')}: {output / PAGE}, {output / LIST}")
    print(f"the first {len(cards)}: " + ", ".join(f"{number} {fault}" for fault, number in kinds))
    return 1 if problems else 0


def split(file: Path, output: Path, folds: int, skeleton: Skeleton | None) -> int:
    """Write OUTPUT/train1.json, ..: the annotations without those of the pictures of one fold each; 0."""
    annotations, content = read_annotations(file, skeleton), read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: AI Challenger's own format; folds are made of COCO's only")
    if not 2 <= folds <= len(annotations.images):
        raise InputError(f"--folds {folds}: must be 2 to {len(annotations.images)}, the pictures of {file}")
    of, names = _folds(annotations, folds), []
    make_folder(output)
    for fold in range(folds):
        kept = [
            entry
            for entry in content["annotations"]
            if isinstance(entry, dict) and of.get(annotations.find_image(entry.get("image_id"))) != fold
        ]
        names.append(str(output / f"train{fold + 1}.json"))
        write_json(Path(names[-1]), _finite({**content, "annotations": kept}))
    print(f"train a model on each of {', '.join(names)}, and give them to --weights in this order")
    return 0


def _folds(annotations: Annotations, count: int) -> dict[Id | None, int]:
    """The fold of each picture: one after the other, so that no person of a picture is in another."""
    return {image_id: index % count for index, image_id in enumerate(annotations.images)}


def correct(file: Path, output: Path, accepted: Path, skeleton: Skeleton | None) -> int:
    """Write the annotations of a file with the corrections in a list that its page saved; 0."""
    listed, wanted, content = read_json(output / LIST), read_json(accepted), read_json(file)
    ids = {id_key(number) for number in wanted} if isinstance(wanted, list) else None
    try:
        digest = listed["annotations"]
        corrections = {id_key(label["annotation"]): label["correction"] for label in listed["labels"]}
    except (TypeError, LookupError):
        digest, ids = None, None
    if ids is None:
        raise InputError(f"{output / LIST} or {accepted}: not a list of an audit; make it again")
    if not isinstance(content, dict):
        raise InputError(f"{file}: AI Challenger's own format; corrections are made in COCO's only")
    if digest != file_digest(file):
        raise InputError(
            f"{file}: is not the file that {output / LIST} is of, or has changed; audit it again"
        )
    if (output / CORRECTED).resolve() == file.resolve():
        raise InputError(f"{file}: would be overwritten by the result; name another --output")
    if len(corrections) < len(listed["labels"]):
        raise InputError(f"{file}: has annotations of one id; give every one its own, and audit it again")
    if unknown := ids - corrections.keys():
        raise InputError(f"{accepted}: {min(unknown)!r:.60} is no label of {output / LIST}")
    joints, kept = read_annotations(file, skeleton).skeleton.joints, []
    for index, entry in enumerate(content["annotations"]):
        given = as_id(entry.get("id")) if isinstance(entry, dict) else None
        key = id_key(index if given is None else given)
        if key in ids:
            if corrections[key] is None:
                continue
            for name, numbers in corrections[key].items():
                place = 3 * joints.index(name)
                entry["keypoints"][place : place + 3] = numbers
            entry["num_keypoints"] = sum(flag > 0 for flag in entry["keypoints"][2::3])
        kept.append(entry)
    write_json(output / CORRECTED, _finite({**content, "annotations": kept}))
    print(f"{counted(len(ids), 'label')} corrected: {output / CORRECTED}")
    return 0


def _finite(content: Any) -> Any:
    """JSON values with a null for every number that is not finite, which JSON cannot hold."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _gather(
    networks: dict[Id | None, Network],
    annotations: Annotations,
    folder: Path,
    journal: Journal,
    problems: list[str],
) -> dict[int, Evidence]:
    """What the network of its picture says of each label, by row of ``annotations.persons``."""
    evidence = {row: Evidence.from_rows(numbers) for entry in journal for row, numbers in entry}
    if evidence:
        say(f"going on with an audit that was stopped: {counted(len(evidence), 'label')} done")
    pictures = find_pictures(annotations, folder, persons_only=True)
    left: dict[Id, list[int]] = {}
    for row, person in enumerate(annotations.persons):
        if row not in evidence:
            left.setdefault(person.image_id, []).append(row)
    with tqdm(total=len(annotations.persons), initial=len(evidence), unit="label", disable=None) as bar:
        for image_id, rows in left.items():
            record, persons = annotations.images[image_id], [annotations.persons[row] for row in rows]
            try:
                image = pictures.read(record)
            except InputError as error:
                problems.append(f"{error} ({counted(len(rows), 'label')})")
                continue
            found = [one.rows() for one in look(networks[image_id], image, persons, annotations.skeleton)]
            journal.append(list(zip(rows, found, strict=True)))
            evidence.update(
                (row, Evidence.from_rows(numbers)) for row, numbers in zip(rows, found, strict=True)
            )
            bar.update(len(rows))
    return evidence


def _row(annotations: Annotations, suspicion: Suspicion) -> dict[str, Any]:
    """An entry of the list."""
    person, names = annotations.persons[suspicion.row], annotations.skeleton.joints
    moved = suspicion.correction
    return {
        "annotation": person.id,
        "image_id": person.image_id,
        "file_name": annotations.images[person.image_id].file_name,
        "doubt": round(suspicion.doubt, 3),
        "fault": suspicion.fault,
        "correction": None if moved is None else {names[joint]: numbers for joint, numbers in moved.items()},
    }


def _cards(
    annotations: Annotations, folder: Path, suspicions: Sequence[Suspicion], problems: list[str]
) -> Iterator[str]:
    """The entries of the page: what seems wrong, the label as it is and as corrected in the picture.

    A picture that is gone since it was looked at has no entry, and is one of the problems.
    """
    pictures = find_pictures(annotations, folder, persons_only=True)
    for place, suspicion in enumerate(suspicions, start=1):
        row, person = _row(annotations, suspicion), annotations.persons[suspicion.row]
        try:
            image = pictures.read(annotations.images[person.image_id])
        except InputError as error:
            problems.append(str(error))
            say(problems[-1])
            continue
        crop = Crop.from_boxes(person.box[None], VIEW)
        label = np.column_stack([person.keypoints, person.visible]).astype(np.float32)
        corrected = label.copy() if suspicion.correction is not None else np.zeros_like(label)
        for joint, numbers in (suspicion.correction or {}).items():
            corrected[joint] = numbers
        views = []
        for triplets in (label, corrected):
            points, seen = crop.image_to_input(triplets[None, :, :2])[0], triplets[:, 2] > 0
            pose = Pose(annotations.skeleton, points, seen, np.array([0, 0, *VIEW]), 1.0)
            drawn = draw_poses(crop.cut(image), [pose])
            for joint in suspicion.correction or ():
                if seen[joint]:
                    x, y = points[joint].round().astype(int).tolist()
                    cv2.circle(drawn, (x, y), RING, RING_COLOR, 1, cv2.LINE_AA)
            _, jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            views.append(f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}")
        names = [name.replace("_", " ") for name in row["correction"] or ()]
        if row["fault"] == "sides exchanged":
            names = list(dict.fromkeys(name.removeprefix("left ").removeprefix("right ") for name in names))
        proposal = escape(": ".join(filter(None, (VERBS.get(row["fault"], "move"), ", ".join(names)))))
        yield (
            f"<article><b>{place}. {row['fault']}</b> <small>doubt {row['doubt']}, annotation "
            f"{escape(str(row['annotation']))}, {escape(row['file_name'])}</small><br>"
            + "".join(
                f'<figure><img src="{view}" width="{VIEW[0]}" height="{VIEW[1]}" alt="">'
                f"<figcaption>{caption}</figcaption></figure>"
                for view, caption in zip(views, ("label", "corrected"), strict=True)
            )
            + f'<label><input type="checkbox" value="{escape(str(row["annotation"]))}"> '
            f"{proposal}</label></article>"
        )
