"""What a check of a data set says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffusionpose.data.annotations import Listing, boxes_inside, without_area
from diffusionpose.runtime.json_files import Fault
from diffusionpose.skeletons import Skeleton

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or looks wrong.

    Attributes:
        check: which check found it.
        severity: "error": training or evaluation would fail, lose a person, learn or measure something
            wrong, or know the answers. "warning": suspicious, for somebody to look at.
        file: the annotation file.
        message: what, naming the entry.
        cure: what to do, in one phrase.
        image: file name of the picture, or "".
        annotation: id of the annotation, where one is concerned.
        joints: names of the joints concerned.
    """

    check: str
    severity: Severity
    file: str
    message: str
    cure: str
    image: str = ""
    annotation: int | str | None = None
    joints: tuple[str, ...] = ()


class KeepFaults:
    """Keeps every fault that the reader of a file finds; the reader goes on without those entries."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Fault, str]] = []

    def add(self, kind: str, faults: Sequence[Fault], cure: str) -> None:
        """Remember them."""
        self.found.extend((kind, fault, cure) for fault in faults)

    def findings(self, file: str, file_names: dict[int | str, str]) -> list[Finding]:
        """As errors: what the reader refuses, training refuses.

        Args:
            file: the annotation file.
            file_names: of its pictures, by id.
        """
        return [
            Finding(
                kind,
                "error",
                file,
                fault.message,
                cure,
                image=_name(file_names, fault.image_id),
                annotation=fault.annotation_id,
            )
            for kind, fault, cure in self.found
        ]


def _name(file_names: dict[int | str, str], image_id: object) -> str:
    return file_names.get(image_id, "") if isinstance(image_id, (int, str)) else ""


# Left and right exchanged: what the geometry of a pose and of a whole file can tell

# A pair of two or more limbs seldom has both shorter by exchange; one limb alone is often just crossed
# (folded arms, crossed legs), so it must become much shorter.
SHORTER, SHORTER_ALONE = 0.9, 0.5
SAVED = 0.2  # of the square root of the box's area: below this the two joints are too near each other
TWISTED = 0.15  # breadth of shoulders and of hips, in torso lengths
EYES, BROAD_SHOULDERS = 0.03, 0.5  # in distances from the shoulders to the eyes
DEVIATIONS = 3.0  # of a fair coin, below one half, for a file


@dataclass(frozen=True)
class Suspicion:
    """A pair of a person that seems exchanged.

    Attributes:
        row: of the person in the listing.
        pair: joint indices, (left, right).
        rule: "limbs", "torso" or "face".
        score: the smaller, the more suspicious; comparable within a rule.
    """

    row: int
    pair: tuple[int, int]
    rule: str
    score: float


def find_exchanged(listing: Listing) -> list[Suspicion]:
    """At most one suspicion of limbs or torso and one of the face for each person, worst first."""
    rows = np.flatnonzero(listing.labelled())
    points, visible = listing.triplets[rows, :, :2], listing.triplets[rows, :, 2]
    seen = visible > 0
    sizes = np.sqrt(np.clip(listing.boxes[rows, 2] * listing.boxes[rows, 3], 1.0, None))
    skeleton = listing.skeleton
    most = np.zeros(len(rows))  # pixels that exchanging the pair so far would save: it is the likeliest
    worst: dict[int, Suspicion] = {}
    for pair in skeleton.pairs:
        ratio, saved, limbs = _exchange(points, seen, skeleton, pair)
        suspect = (saved > SAVED * sizes) & (ratio < np.where(limbs > 1, SHORTER, SHORTER_ALONE))
        twisted = _twisted(points, seen, skeleton, pair) & (limbs > 1) & (ratio < SHORTER)
        for i in np.flatnonzero((suspect | twisted) & (saved > most)):
            most[i] = saved[i]
            rule = "limbs" if suspect[i] else "torso"
            worst[int(i)] = Suspicion(int(rows[i]), pair, rule, float(ratio[i]))
    found = [*worst.values(), *_faces(points, visible, skeleton, rows)]
    return sorted(found, key=lambda suspicion: suspicion.score)


def facing_camera(listing: Listing) -> tuple[int, int]:
    """How many persons' shoulders face the camera, and of how many that can be told."""
    ends = _indices(listing.skeleton, "shoulder", "hip")
    if ends is None:
        return 0, 0
    points, seen = listing.triplets[:, :, :2], listing.triplets[:, :, 2] > 0
    told = listing.labelled() & seen[:, ends].all(axis=1)
    shoulders, _ = _breadths(points[told], ends)
    return int(np.count_nonzero(shoulders > 0)), int(np.count_nonzero(told))


def file_exchanged(facing: int, persons: int) -> bool:
    """Whether so few of so many persons facing the camera say that left and right are exchanged."""
    return persons > 0 and facing / persons < 0.5 - DEVIATIONS * 0.5 / np.sqrt(persons)


def _exchange(
    points: np.ndarray, seen: np.ndarray, skeleton: Skeleton, pair: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What exchanging a pair does to the limbs at it, each (n,).

    Returns:
        Their length after, over that before; pixels saved; number of limbs a side that could be measured.
    """
    left, right = pair
    mirror = skeleton.flip_order
    others = {a + b - left for a, b in skeleton.limbs if left in (a, b)}
    before, after = np.zeros(len(points)), np.zeros(len(points))
    limbs = np.zeros(len(points), dtype=np.int64)
    for end in others:
        twin = mirror[end]
        if twin == end or end in pair:  # such a limb is as long after the exchange
            continue
        known = seen[:, [left, right, end, twin]].all(axis=1)
        before += known * (_distance(points, left, end) + _distance(points, right, twin))
        after += known * (_distance(points, left, twin) + _distance(points, right, end))
        limbs += known
    ratio = np.where(before > 0, after / np.where(before > 0, before, 1.0), np.inf)
    return ratio, before - after, limbs


def _twisted(points: np.ndarray, seen: np.ndarray, skeleton: Skeleton, pair: tuple[int, int]) -> np.ndarray:
    """(n,) bool: the pair is shoulders or hips, and the two run opposite ways."""
    ends = _indices(skeleton, "shoulder", "hip")
    if ends is None or list(pair) not in (ends[:2], ends[2:]):
        return np.zeros(len(points), dtype=bool)
    shoulders, hips = _breadths(points, ends)
    opposite = (shoulders * hips < 0) & (np.minimum(abs(shoulders), abs(hips)) > TWISTED)
    return np.asarray(opposite & seen[:, ends].all(axis=1))


def _faces(points: np.ndarray, visible: np.ndarray, skeleton: Skeleton, rows: np.ndarray) -> list[Suspicion]:
    ends = _indices(skeleton, "eye", "shoulder")
    if ends is None:
        return []
    seen = visible > 0
    known = seen[:, ends].all(axis=1) & (visible[:, ends[:2]] == 2).all(axis=1)
    known &= ~_bowed(points, seen, skeleton, ends)
    eyes, shoulders = _breadths(points, ends)
    turned = known & (eyes < -EYES)
    backwards = known & (eyes > EYES) & (shoulders < -BROAD_SHOULDERS)
    pairs = (ends[0], ends[1]), (ends[2], ends[3])
    return [
        Suspicion(int(rows[i]), pair, "face", float(breadth[i]))
        for mask, pair, breadth in ((turned, pairs[0], eyes), (backwards, pairs[1], shoulders))
        for i in np.flatnonzero(mask)
    ]


def _bowed(points: np.ndarray, seen: np.ndarray, skeleton: Skeleton, ends: list[int]) -> np.ndarray:
    """(n,) bool: the eyes lie on the hips' side of the shoulders, where the way to them tells nothing."""
    torso = _indices(skeleton, "shoulder", "hip")
    if torso is None:
        return np.zeros(len(points), dtype=bool)
    shoulders = points[:, ends[2:]].mean(axis=1)
    towards_eyes = points[:, ends[:2]].mean(axis=1) - shoulders
    towards_hips = points[:, torso[2:]].mean(axis=1) - shoulders
    same_side = (towards_eyes * towards_hips).sum(axis=1) > 0
    return np.asarray(same_side & seen[:, torso].all(axis=1))


def _breadths(points: np.ndarray, ends: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Breadths of two pairs across the way from the lower's middle to the upper's, over its length.

    Args:
        points: (n, J, 2) pixels.
        ends: left and right of the upper pair, left and right of the lower.

    Returns:
        (n,) each; above 0 where the person faces the camera, however turned in the picture.
    """
    a, b, c, d = (points[:, joint] for joint in ends)
    up = (a + b - c - d) / 2
    squared = np.maximum((up**2).sum(axis=1), 1e-9)

    def across(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        side = left - right
        return np.asarray((up[:, 0] * side[:, 1] - up[:, 1] * side[:, 0]) / squared)

    return across(a, b), across(c, d)


def _indices(skeleton: Skeleton, upper: str, lower: str) -> list[int] | None:
    names = [f"{side}_{part}" for part in (upper, lower) for side in ("left", "right")]
    return [skeleton.index(name) for name in names] if set(names) <= set(skeleton.joints) else None


def _distance(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.asarray(np.hypot(*(points[:, a] - points[:, b]).T))


# Checks of what an annotation file lists, beyond what its reader refuses. No picture is opened

BORDER = 1.0  # px; real sets round boxes and keypoints to the pixel beyond the border
FAR_FROM_BOX = 0.5  # of the box's longer side; measured in docs/checks.md


def check_listing(listing: Listing) -> list[Finding]:
    """Everything wrong or suspicious in what a file lists, check by check."""
    checks = (_ids, _file_names, _boxes, _areas, _keypoints, _labels, _joint_names)
    return [finding for check in checks for finding in check(listing)]


def person_finding(
    listing: Listing,
    row: int,
    check: str,
    severity: Severity,
    what: str,
    cure: str,
    joints: tuple[str, ...] = (),
) -> Finding:
    """A finding about the person in a row of the listing; ``what`` follows the person's name."""
    image = listing.images[listing.image_ids[row]].file_name
    message = f"{listing.names[row]}: {what}"
    return Finding(check, severity, str(listing.path), message, cure, image, listing.ids[row], joints)


def _ids(listing: Listing) -> Iterator[Finding]:
    cure = "give every annotation its own id; COCO's tools keep one of the two"
    rows: dict[int | str, list[int]] = {}
    for row, number in enumerate(listing.ids):
        rows.setdefault(number, []).append(row)
    for several in rows.values():
        if len(several) > 1:
            what = f"{len(several)} annotations have this id"
            yield person_finding(listing, several[0], "annotation id twice", "error", what, cure)
    cure = "list it once"
    for number, count in Counter(record.id for record in listing.repeated).items():
        message = f"image {number} is listed {count + 1} times, word for word"
        name = listing.images[number].file_name
        yield Finding("image listed again", "warning", str(listing.path), message, cure, name)


def _file_names(listing: Listing) -> Iterator[Finding]:
    ids: dict[str, list[int | str]] = {}
    for record in listing.records:
        ids.setdefault(record.file_name, []).append(record.id)
    cure = "list it once and give its annotations that id"
    for name, several in ids.items():
        if len(several) > 1:
            message = f"one file under the ids {', '.join(map(str, several))}"
            yield Finding("file under two ids", "warning", str(listing.path), message, cure, name)


def _boxes(listing: Listing) -> Iterator[Finding]:
    sizes = listing.sizes()
    _, usable = boxes_inside(listing.boxes, sizes)
    for row in _true(~usable):
        what = without_area(listing.boxes[row], listing.images[listing.image_ids[row]])
        cure = "x, y, width, height in pixels; training leaves the person out"
        yield person_finding(listing, row, "box without area", "error", what, cure)
    reach = np.maximum(-listing.boxes[:, :2], listing.boxes[:, :2] + listing.boxes[:, 2:] - sizes).max(axis=1)
    for row in _true(usable & (sizes[:, 0] > 0) & (reach > BORDER)):
        what = f"its box reaches {reach[row]:.0f} px out of the picture"
        cure = "check the picture's size and the box; it is clipped"
        yield person_finding(listing, row, "box outside picture", "warning", what, cure)


def _areas(listing: Listing) -> Iterator[Finding]:
    for row, area in enumerate(listing.areas):
        if area < 0 or np.isinf(area):
            what, cure = f"its area is {area:g}", "square pixels; OKS means nothing with this"
            yield person_finding(listing, row, "negative area", "error", what, cure)
        elif area == 0:
            what, cure = "its area is 0", "the box's is taken; leave the key out to mean that"
            yield person_finding(listing, row, "zero area", "warning", what, cure)


def _keypoints(listing: Listing) -> Iterator[Finding]:
    points, seen = listing.triplets[:, :, :2], listing.triplets[:, :, 2] > 0
    zero = seen & np.all(points == 0, axis=2)
    for row, joints in _rows(listing, zero):
        what, cure = f"{_list(joints)} labelled at exactly (0, 0)", "visibility 0 for what is not labelled"
        yield person_finding(listing, row, "labelled at (0, 0)", "error", what, cure, joints)

    sizes = listing.sizes()[:, None]
    reach = np.maximum(-points, points - sizes).max(axis=2)
    outside = seen & (sizes[:, :, 0] > 0) & (reach > BORDER)
    for row, joints in _rows(listing, outside):
        what = f"{_list(joints)} up to {reach[row][outside[row]].max():.0f} px outside the picture"
        cure = "check the picture's size and these keypoints"
        yield person_finding(listing, row, "keypoint outside picture", "warning", what, cure, joints)

    starts, spans = listing.boxes[:, None, :2], listing.boxes[:, None, 2:]
    beyond = np.maximum(starts - points, points - starts - spans).max(axis=2)
    _, usable = boxes_inside(listing.boxes, listing.sizes())
    distance = beyond / np.where(usable, listing.boxes[:, 2:].max(axis=1), np.inf)[:, None]
    far = seen & ~zero & ~outside & usable[:, None] & (distance > FAR_FROM_BOX)
    for row, joints in _rows(listing, far):
        what = f"{_list(joints)} up to {distance[row][far[row]].max():.1f} box sides from its box"
        cure = "keypoint of another person, or a wrong box"
        yield person_finding(listing, row, "keypoint far from box", "warning", what, cure, joints)


def _labels(listing: Listing) -> Iterator[Finding]:
    seen = (listing.triplets[:, :, 2] > 0) & ~listing.crowd[:, None]
    if not seen.any():
        message, cure = "no person with a labelled joint", "give a file with labelled persons"
        yield Finding("nobody labelled", "error", str(listing.path), message, cure)
        return
    for joint, count in zip(listing.skeleton.joints, seen.sum(axis=0), strict=True):
        if count == 0:
            message, cure = f"{joint} is labelled for nobody", "a model of this file alone cannot learn it"
            file = str(listing.path)
            yield Finding("joint never labelled", "warning", file, message, cure, joints=(joint,))
    for row in _true(~seen.any(axis=1) & ~listing.crowd):
        what, cure = "no joint is labelled", "fine where meant so; the person is not trained on"
        yield person_finding(listing, row, "person without joints", "warning", what, cure)


def _joint_names(listing: Listing) -> Iterator[Finding]:
    names, joints = listing.joint_names, listing.skeleton.joints
    if names and set(names) != set(joints):
        message = f"its joints are {', '.join(names)}; read by place as {', '.join(joints)}"
        cure = "name them alike in the file and in --skeleton"
        yield Finding("joints by place", "warning", str(listing.path), message, cure)


def _rows(listing: Listing, mask: np.ndarray) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Rows of an (n, J) mask that hold any, and the names of the joints they hold."""
    for row in _true(np.any(mask, axis=1)):
        yield row, tuple(listing.skeleton.joints[j] for j in _true(mask[row]))


def _true(mask: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)]


def _list(joints: tuple[str, ...]) -> str:
    return ", ".join(joints[:3]) + (f" and {len(joints) - 3} more" if len(joints) > 3 else "")
