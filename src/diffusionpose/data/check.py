"""The check of a data set: its annotation files, its pictures, training against validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from diffusionpose.data.annotations import (
    Annotations,
    Finding,
    Severity,
    find_pictures,
    read_annotations,
)
from diffusionpose.data.check_pictures import SetPictures, check_pictures
from diffusionpose.data.check_sides import facing_camera, file_exchanged, find_exchanged
from diffusionpose.errors import InputError
from diffusionpose.json_files import Id
from diffusionpose.skeletons import CROWDPOSE, Skeleton, unpaired

BORDER = 1.0  # px; real sets round boxes and keypoints to the pixel beyond the border
FAR_FROM_BOX = 0.5  # of the box's longer side; measured in docs/checks.md
FIRST_PIXEL = 2.0  # px; a file whose boxes all end before it has normalised coordinates
LARGE_AREA, SMALL_AREA = 1.1, 0.01  # of the box's; a segment fills a part of its box
SAME_POSE = 0.02  # of the root of the smaller box's area: mean distance of the joints of two annotations
SAME_JOINTS = 4  # at least so many joints labelled in both
MOST_CORNERS = 0.8  # share of the boxes that make sense only as x0, y0, x1, y1


@dataclass(frozen=True)
class SetToCheck:
    """An annotation file and the folder of its pictures; None leaves the pictures out."""

    annotations: Path
    images: Path | None = None
    validation: bool = False


@dataclass(frozen=True)
class Count:
    """How much a file lists."""

    file: str
    skeleton: str
    images: int
    persons: int
    labelled: int


@dataclass(frozen=True)
class CheckReport:
    """What a check found, and in how much."""

    counts: list[Count]
    findings: list[Finding]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)


def check_sets(
    sets: Sequence[SetToCheck],
    skeleton: Skeleton | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Everything wrong or suspicious in some training and validation sets.

    Args:
        sets: those that a training would take together.
        skeleton: of the files; by default that of each one's joint names.
        workers: processes that open pictures; None takes one a core.
        progress: gets the number of pictures opened and that of all.

    Raises:
        InputError: a file that cannot be read at all, one that lists nothing, a folder that is missing or
            empty, a skeleton that is not known.
    """
    for one in sets:
        if one.images is not None:
            _require_pictures(one.images)
    counts, findings, pictures = [], [], []
    for one in sets:
        annotations = read_annotations(one.annotations, skeleton, allow_empty=True)
        file, persons = str(one.annotations), annotations.persons
        if not persons and not annotations.findings:
            raise InputError(f"{file}: lists no persons; give a file with annotations")
        findings += [*annotations.findings, *check_annotations(annotations)]
        labelled = len(annotations.labelled().persons)
        counts.append(Count(file, annotations.skeleton.name, len(annotations.images), len(persons), labelled))
        if one.images is not None:
            found = find_pictures(annotations, one.images)
            cure = "write names relative to the folder, with slashes"
            findings += [Finding("file names", "warning", file, note, cure) for note in found.notes]
            pictures.append(SetPictures(annotations, found.paths, one.validation))
    return CheckReport(counts, findings + check_pictures(pictures, workers, progress))


def _require_pictures(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images; check --images and --val-images")
    if next(folder.iterdir(), None) is None:
        raise InputError(f"{folder}: an empty folder; give the one that holds the images")


def check_annotations(annotations: Annotations) -> list[Finding]:
    """Everything wrong or suspicious in what a file lists, beyond what its reader found; without pictures."""
    return list(_Checks(annotations).all())


class _Checks:
    """The checks of one file, on its n persons as arrays."""

    def __init__(self, annotations: Annotations) -> None:
        self.annotations = annotations
        self.persons, self.skeleton = annotations.persons, annotations.skeleton
        count, joints = len(self.persons), self.skeleton.num_joints
        self.boxes = np.reshape([person.xywh for person in self.persons], (count, 4))
        self.points = np.reshape([person.keypoints for person in self.persons], (count, joints, 2)).astype(
            np.float64
        )
        self.visible = np.reshape([person.visible for person in self.persons], (count, joints))
        self.seen = self.visible > 0
        self.crowd = np.array([person.is_crowd for person in self.persons], bool)
        self.usable = np.array([person.has_box for person in self.persons], bool)
        records = [annotations.images[person.image_id] for person in self.persons]
        self.sizes = np.reshape([(record.width, record.height) for record in records], (count, 2))

    @cached_property
    def box_areas(self) -> np.ndarray:
        """(n,) square pixels; 1 for boxes without area."""
        return np.where(self.usable, np.abs(self.boxes[:, 2] * self.boxes[:, 3]), 1.0)

    def all(self) -> Iterator[Finding]:
        yield from self.ids()
        yield from self.file_names()
        yield from self.mirrors()
        if self.persons:
            normalised = list(self.normalised())
            yield from normalised
            if not normalised:
                yield from self.box_checks()
                yield from self.keypoints()
            yield from self.areas()
            yield from self.counts()
            yield from self.labels()
            yield from self.twice()
            yield from self.sides()

    def of_file(self, check: str, severity: Severity, what: str, cure: str, **more: object) -> Finding:
        return Finding(check, severity, str(self.annotations.path), what, cure, **more)  # type: ignore[arg-type]

    def of_person(
        self, row: int, check: str, severity: Severity, what: str, cure: str, joints: tuple[str, ...] = ()
    ) -> Finding:
        """A finding about a person; ``what`` follows the person's name."""
        person = self.persons[row]
        image = self.annotations.images[person.image_id].file_name
        return self.of_file(
            check,
            severity,
            f"annotation {person.id}: {what}",
            cure,
            image=image,
            annotation=person.id,
            joints=joints,
        )

    def ids(self) -> Iterator[Finding]:
        rows: dict[Id, list[int]] = {}
        for row, person in enumerate(self.persons):
            rows.setdefault(person.id, []).append(row)
        cure = "give every annotation its own id; COCO's tools keep one of the two"
        for several in rows.values():
            if len(several) > 1:
                what = f"{len(several)} annotations have this id"
                yield self.of_person(several[0], "annotation id twice", "error", what, cure)

    def file_names(self) -> Iterator[Finding]:
        ids: dict[str, list[Id]] = {}
        for record in self.annotations.images.values():
            ids.setdefault(record.file_name, []).append(record.id)
        for name, several in ids.items():
            if len(several) > 1:
                what = f"one file under the ids {', '.join(map(str, several[:9]))}"
                cure = "list it once and give its annotations that id"
                yield self.of_file("file under two ids", "warning", what, cure, image=name)

    def mirrors(self) -> Iterator[Finding]:
        for left, right in unpaired(self.skeleton):
            what = f"{left} and {right} are no pair of the skeleton {self.skeleton.name!r}"
            cure = "write 'mirror' for both: mirrored pictures and the flip test teach the wrong side"
            yield self.of_file("joint without mirror", "warning", what, cure, joints=(left, right))

    def normalised(self) -> Iterator[Finding]:
        """Boxes and keypoints as shares of the picture instead of pixels."""
        ends = np.maximum((self.boxes[:, :2] + self.boxes[:, 2:]).max(axis=1), 0)
        furthest = np.where(self.seen[..., None], self.points, 0).max(axis=(1, 2))
        tiny = (ends <= FIRST_PIXEL) & (furthest <= FIRST_PIXEL) & ((ends > 0) | (furthest > 0))
        if tiny.any() and tiny[self.seen.any(axis=1)].all():
            what = f"boxes and keypoints of {tiny.sum()} persons lie in the first pixel: they look normalised"
            yield self.of_file("normalised numbers", "error", what, "multiply them by the picture's size")

    def box_checks(self) -> Iterator[Finding]:
        x, y, width, height = self.boxes.T
        reach = np.maximum(-self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:] - self.sizes).max(axis=1)
        outside = self.usable & (self.sizes[:, 0] > 0) & (reach > BORDER)
        # as x0, y0, x1, y1 they would lie in the picture and hold the joints
        margin = 0.1 * np.maximum(width - x, height - y)[:, None, None]
        low, high = self.boxes[:, None, :2] - margin, self.boxes[:, None, 2:] + margin
        held = ((self.points >= low) & (self.points <= high)).all(axis=2) | ~self.seen
        corners = held.all(axis=1) & self.seen.any(axis=1) & (width > x) & (height > y) & outside
        if corners.sum() >= SAME_JOINTS and corners.sum() > MOST_CORNERS * self.usable.sum():
            what = f"{corners.sum()} boxes reach out of their pictures, and would not as x0, y0, x1, y1"
            yield self.of_file("boxes as corners", "error", what, "write x, y, width, height")
            return
        for row in _true(outside):
            what = f"its box reaches {reach[row]:.0f} px out of the picture"
            cure = "check the picture's size and the box; it is clipped"
            yield self.of_person(row, "box outside picture", "warning", what, cure)

    def areas(self) -> Iterator[Finding]:
        for row, person in enumerate(self.persons):
            share = person.area / self.box_areas[row]
            if person.area < 0:
                what, cure = f"its area is {person.area:g}", "square pixels; OKS means nothing with this"
                yield self.of_person(row, "negative area", "error", what, cure)
            elif person.area == 0 and self.usable[row]:
                what, cure = (
                    "its area is 0",
                    "square pixels, or leave the key out; no pose can be right with it",
                )
                yield self.of_person(row, "zero area", "warning", what, cure)
            elif (
                person.file_box is not None
                and self.usable[row]
                and not self.crowd[row]
                and not SMALL_AREA <= share <= LARGE_AREA
            ):
                what = f"its area is {share:.3g} of its box's"
                cure = "check both: OKS, and so AP, go by the area"
                yield self.of_person(row, "area and box differ", "warning", what, cure)

    def counts(self) -> Iterator[Finding]:
        limbs = self.seen
        if set(self.skeleton.joints) == set(CROWDPOSE.joints):  # its files leave head and neck out
            limbs = self.seen[:, [joint not in ("head", "neck") for joint in self.skeleton.joints]]
        for row, person in enumerate(self.persons):
            fitting = {int(self.seen[row].sum()), int(limbs[row].sum())}
            if person.num_keypoints is not None and person.num_keypoints not in fitting:
                what = f"its num_keypoints is {person.num_keypoints}, and {max(fitting)} joints are labelled"
                cure = "count anew: AP leaves out persons with 0"
                yield self.of_person(row, "num_keypoints", "warning", what, cure)

    def keypoints(self) -> Iterator[Finding]:
        points, seen = self.points, self.seen
        zero = seen & np.all(points == 0, axis=2)
        for row, joints in self.rows(zero):
            what, cure = (
                f"{_list(joints)} labelled at exactly (0, 0)",
                "visibility 0 for what is not labelled",
            )
            yield self.of_person(row, "labelled at (0, 0)", "error", what, cure, joints)
        sizes = self.sizes[:, None]
        reach = np.maximum(-points, points - sizes).max(axis=2)
        outside = seen & (sizes[:, :, 0] > 0) & (reach > BORDER)
        for row, joints in self.rows(outside):
            what = f"{_list(joints)} up to {reach[row][outside[row]].max():.0f} px outside the picture"
            cure = "check the picture's size and these keypoints"
            yield self.of_person(row, "keypoint outside picture", "warning", what, cure, joints)
        starts, spans = self.boxes[:, None, :2], self.boxes[:, None, 2:]
        beyond = np.maximum(starts - points, points - starts - spans).max(axis=2)
        distance = beyond / np.where(self.usable, self.boxes[:, 2:].max(axis=1), np.inf)[:, None]
        far = seen & ~zero & ~outside & self.usable[:, None] & (distance > FAR_FROM_BOX)
        for row, joints in self.rows(far):
            what = f"{_list(joints)} up to {distance[row][far[row]].max():.1f} box sides from its box"
            cure = "keypoint of another person, or a wrong box"
            yield self.of_person(row, "keypoint far from box", "warning", what, cure, joints)

    def labels(self) -> Iterator[Finding]:
        seen = self.seen & ~self.crowd[:, None]
        if not seen.any():
            cure = "give a file with labelled persons"
            yield self.of_file("nobody labelled", "error", "no person with a labelled joint", cure)
            return
        for joint, count in zip(self.skeleton.joints, seen.sum(axis=0), strict=True):
            if count == 0:
                what, cure = f"{joint} is labelled for nobody", "a model of this file alone cannot learn it"
                yield self.of_file("joint never labelled", "warning", what, cure, joints=(joint,))
        for row in _true(~seen.any(axis=1) & ~self.crowd):
            what, cure = "no joint is labelled", "fine where meant so; the person is not trained on"
            yield self.of_person(row, "person without joints", "warning", what, cure)

    def twice(self) -> Iterator[Finding]:
        """Two annotations of one pose in one picture."""
        rows: dict[Id, list[int]] = {}
        for row in _true((self.seen.sum(axis=1) >= SAME_JOINTS) & ~self.crowd):
            rows.setdefault(self.persons[row].image_id, []).append(row)
        for several in rows.values():
            for place, row in enumerate(several[1:], start=1):
                others = several[:place]
                both = self.seen[others] & self.seen[row]
                distance = np.linalg.norm(self.points[others] - self.points[row], axis=2)
                mean = np.where(both, distance, 0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
                size = np.sqrt(np.minimum(self.box_areas[others], self.box_areas[row]))
                same = (mean < SAME_POSE * size) & (both.sum(axis=1) >= SAME_JOINTS)
                if same.any():
                    twin = self.persons[others[int(np.flatnonzero(same)[0])]].id
                    what = f"has the joints of annotation {twin} of the same picture"
                    yield self.of_person(
                        row, "person annotated twice", "warning", what, "keep one of the two"
                    )

    def sides(self) -> Iterator[Finding]:
        """Left and right exchanged, the most suspicious persons first."""
        visible = np.where(self.crowd[:, None], 0, self.visible)
        facing, persons = facing_camera(self.points, visible, self.skeleton)
        if file_exchanged(facing, persons):
            what = f"only {facing} of {persons} persons face the camera by their shoulders"
            cure = "most people do: left and right seem exchanged in the whole file"
            yield self.of_file("left/right, file", "warning", what, cure)
        for suspicion in find_exchanged(self.points, visible, np.sqrt(self.box_areas), self.skeleton):
            left, right = (self.skeleton.joints[joint] for joint in suspicion.pair)
            what = f"{left} and {right} may be exchanged"
            cure = "look at it: also a twist, crossed limbs or a face turned away"
            check = f"left/right, {suspicion.rule}"
            yield self.of_person(suspicion.row, check, "warning", what, cure, (left, right))

    def rows(self, mask: np.ndarray) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Rows of an (n, J) mask that hold any, and the names of the joints they hold."""
        for row in _true(np.any(mask, axis=1)):
            yield row, tuple(self.skeleton.joints[joint] for joint in _true(mask[row]))


def _true(mask: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)]


def _list(joints: tuple[str, ...]) -> str:
    return ", ".join(joints[:3]) + (f" and {len(joints) - 3} more" if len(joints) > 3 else "")
