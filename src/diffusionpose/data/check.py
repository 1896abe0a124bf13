"""The check of a data set: a table of small functions, each of which finds one kind of fault.

The reader of annotation files finds what cannot be read. Pictures must be whole, each listed once, and none
both in training and validation.
"""

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from diffusionpose.data.annotations import Annotations, Finding, Severity, read_annotations
from diffusionpose.data.check_sides import facing_camera, file_exchanged, find_exchanged
from diffusionpose.data.pictures import PackedPictures, find_pictures
from diffusionpose.errors import InputError
from diffusionpose.runtime.estimator import in_order
from diffusionpose.runtime.images import exif_orientation, read_recorded_image
from diffusionpose.skeletons import CROWDPOSE, Skeleton, unpaired

BORDER = 1.0  # px; real sets round boxes and keypoints to the pixel beyond the border
FAR_FROM_BOX = 0.5  # of the box's longer side; measured in docs/checks.md
FIRST_PIXEL = 2.0  # px; a file whose boxes all end before it has normalised coordinates
LARGE_AREA, SMALL_AREA = 1.1, 0.01  # of the box's; a segment fills a part of its box
SAME_POSE = 0.02  # of the root of the smaller box's area: mean distance of the joints of two annotations
SAME_JOINTS = 4  # at least so many joints labelled in both
EXCHANGED = "look at it: also a twist, crossed limbs or a face turned away"
MOST_CORNERS = 0.5  # share of the boxes that make sense only as x0, y0, x1, y1
FLAT = 2.0  # grey levels of deviation; a picture flatter than this has no look of its own
# Bits of 63 in which near-copies may differ; measured in docs/checks.md. Mirror images get fewer.
NEAR, NEAR_MIRRORED = 6, 4
ROWS = 64  # validation pictures compared at a time, to keep memory flat


class SetToCheck(NamedTuple):
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
    """Everything wrong or suspicious in the sets that a training would take together.

    Args:
        sets: for training and validation.
        skeleton: of the files; by default that of each one's joint names.
        workers, progress: see :func:`check_pictures`.

    Raises:
        InputError: a file that cannot be read at all or lists nothing, a folder that is missing or empty.
    """
    for folder in filter(None, (one.images for one in sets)):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of images; check --images and --val-images")
        if next(folder.iterdir(), None) is None:
            raise InputError(f"{folder}: an empty folder; give the one that holds the images")
    counts, findings, pictures = [], [], []
    for one in sets:
        annotations = read_annotations(one.annotations, skeleton, allow_empty=True)
        file, images, persons = str(one.annotations), annotations.images, annotations.persons
        if not persons and not annotations.findings:
            raise InputError(f"{file}: lists no persons; give a file with annotations")
        findings += [*annotations.findings, *check_annotations(annotations)]
        labelled = annotations.labelled().persons
        counts.append(Count(file, annotations.skeleton.name, len(images), len(persons), len(labelled)))
        if one.images is not None:
            found = find_pictures(annotations, one.images)
            if isinstance(found, PackedPictures):
                raise InputError(f"{one.images}: packed; check the pictures that it was made of")
            cure = "write names relative to the folder, with slashes"
            findings += [Finding("file names", "warning", file, note, cure) for note in found.notes]
            names = {images[person.image_id].file_name for person in labelled}
            for image_id, record in images.items():
                picture = PictureFile(found.paths[image_id], record.width, record.height)
                used = record.file_name in names
                pictures.append(ListedPicture(file, record.file_name, picture, one.validation, used))
    return CheckReport(counts, findings + check_pictures(pictures, workers, progress))


# What each check of annotations means: its severity, and the cure
KINDS: dict[str, tuple[Severity, str]] = {
    "annotation id twice": ("error", "give every annotation its own id; COCO's tools keep one of the two"),
    "file under two ids": ("warning", "list it once and give its annotations that id"),
    "joint without mirror": ("warning", "write 'mirror' for both: flips show and teach the wrong side"),
    "normalised numbers": ("error", "multiply them by the picture's size"),
    "boxes as corners": ("error", "write x, y, width, height"),
    "box outside picture": ("warning", "check the picture's size and the box; it is clipped"),
    "labelled at (0, 0)": ("error", "visibility 0 for what is not labelled"),
    "keypoint outside picture": ("warning", "check the picture's size and these keypoints"),
    "keypoint far from box": ("warning", "keypoint of another person, or a wrong box"),
    "negative area": ("error", "square pixels; OKS means nothing with this"),
    "zero area": ("warning", "square pixels, or leave the key out; no pose can be right with it"),
    "area and box differ": ("warning", "check both: OKS, and so AP, go by the area"),
    "num_keypoints": ("warning", "count anew: AP leaves out persons with 0"),
    "nobody labelled": ("error", "give a file with labelled persons"),
    "joint never labelled": ("warning", "a model of this file alone cannot learn it"),
    "person without joints": ("warning", "fine where meant so; the person is not trained on"),
    "person annotated twice": ("warning", "keep one of the two"),
    "left/right, file": ("warning", "most people do: left and right seem exchanged in the whole file"),
    "left/right, limbs": ("warning", EXCHANGED),
    "left/right, torso": ("warning", EXCHANGED),
    "left/right, face": ("warning", EXCHANGED),
}


def check_annotations(annotations: Annotations) -> list[Finding]:
    """Everything wrong or suspicious in what a file lists, beyond what its reader found; without pictures."""
    people = People(annotations)
    return [finding for check in CHECKS for finding in check(people)]


class People:
    """The n persons of a file as arrays."""

    def __init__(self, annotations: Annotations) -> None:
        persons, self.skeleton = annotations.persons, annotations.skeleton
        self.file, self.persons, self.images = str(annotations.path), persons, annotations.images
        records = [self.images[person.image_id] for person in persons]
        self.sizes = np.reshape([(record.width, record.height) for record in records], (-1, 2))
        self.boxes = np.reshape([person.xywh for person in persons], (-1, 4))
        self.points = annotations.keypoints.astype(np.float64)
        self.seen = annotations.visible > 0
        self.crowd = np.array([person.is_crowd for person in persons], bool)
        self.visible = annotations.visible * ~self.crowd[:, None]  # what counts as labelled
        self.usable = np.array([person.has_box for person in persons], bool)
        self.areas = np.array([person.area for person in persons], np.float64)
        self.box_areas = np.where(self.usable, np.abs(self.boxes[:, 2] * self.boxes[:, 3]), 1.0)

    @cached_property
    def normalised(self) -> str:
        """What of them is in shares of the picture, not in pixels: boxes, keypoints, both or nothing."""
        ends = (self.boxes[:, :2] + self.boxes[:, 2:]).max(axis=1, initial=0)
        furthest = np.where(self.seen[..., None], self.points, 0).max(axis=(1, 2), initial=0)
        tiny = {
            name: (far <= FIRST_PIXEL) & (far > 0) for name, far in (("boxes", ends), ("keypoints", furthest))
        }
        labelled = self.seen.any(axis=1)
        return " and ".join(name for name, mask in tiny.items() if mask.any() and mask[labelled].all())

    def finding(
        self, check: str, what: str, row: int | None = None, joints: tuple[str, ...] = (), image: str = ""
    ) -> Finding:
        """About a person, by row, or the file."""
        severity, cure = KINDS[check]
        if row is None:
            return Finding(check, severity, self.file, what, cure, image, joints=joints)
        person = self.persons[row]
        image, what = self.images[person.image_id].file_name, f"annotation {person.id}: {what}"
        return Finding(check, severity, self.file, what, cure, image, person.id, joints)

    def joints(self, mask: np.ndarray) -> Iterator[tuple[int, tuple[str, ...], str]]:
        """Rows of an (n, J) mask that hold any, the names of the joints they hold, and those as text."""
        for row in _true(np.any(mask, axis=1)):
            names = tuple(self.skeleton.joints[joint] for joint in _true(mask[row]))
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield row, names, ", ".join(names[:3]) + more


def _true(mask: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)]


def _groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """Places of equal keys, two and more."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def _ids_and_names(people: People) -> Iterator[Finding]:
    for rows in _groups(person.id for person in people.persons):
        yield people.finding("annotation id twice", f"{len(rows)} annotations have this id", rows[0])
    records = list(people.images.values())
    for group in _groups(record.file_name for record in records):
        ids = ", ".join(str(records[place].id) for place in group[:9])
        name = records[group[0]].file_name
        yield people.finding("file under two ids", f"one file under the ids {ids}", image=name)


def _mirrors(people: People) -> Iterator[Finding]:
    for pair in unpaired(people.skeleton):
        what = f"{' and '.join(pair)} are no pair of the skeleton {people.skeleton.name!r}"
        yield people.finding("joint without mirror", what, joints=pair)


def _positions(people: People) -> Iterator[Finding]:
    if people.normalised:
        what = f"{people.normalised} lie in the first pixel: they look normalised"
        yield people.finding("normalised numbers", what)
        return
    boxes, points, seen, usable = people.boxes, people.points, people.seen, people.usable
    known = people.sizes[:, 0] > 0
    reach = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - people.sizes).max(axis=1)
    outside = usable & known & (reach > BORDER)
    # as x0, y0, x1, y1 they would lie in the picture and hold the joints
    x, y, right, bottom = boxes.T
    margin = 0.1 * np.maximum(right - x, bottom - y)[:, None, None]
    inside = (points >= boxes[:, None, :2] - margin) & (points <= boxes[:, None, 2:] + margin)
    held = (inside.all(axis=2) | ~seen).all(axis=1) & seen.any(axis=1)
    corners = held & (right > x) & (bottom > y) & outside
    if corners.sum() >= max(SAME_JOINTS, MOST_CORNERS * usable.sum()):
        what = f"{corners.sum()} boxes reach out of their pictures, and would not as x0, y0, x1, y1"
        yield people.finding("boxes as corners", what)
    else:
        for row in _true(outside):
            what = f"its box reaches {reach[row]:.0f} px out of the picture"
            yield people.finding("box outside picture", what, row)
    zero = seen & np.all(points == 0, axis=2)
    for row, names, listed in people.joints(zero):
        yield people.finding("labelled at (0, 0)", f"{listed} labelled at exactly (0, 0)", row, names)
    beyond = np.maximum(-points, points - people.sizes[:, None]).max(axis=2)
    out = seen & known[:, None] & (beyond > BORDER)
    for row, names, listed in people.joints(out):
        what = f"{listed} up to {beyond[row][out[row]].max():.0f} px outside the picture"
        yield people.finding("keypoint outside picture", what, row, names)
    starts, spans = boxes[:, None, :2], boxes[:, None, 2:]
    from_box = np.maximum(starts - points, points - starts - spans).max(axis=2)
    distance = from_box / np.where(usable, boxes[:, 2:].max(axis=1), np.inf)[:, None]
    far = seen & ~zero & ~out & (distance > FAR_FROM_BOX)
    for row, names, listed in people.joints(far):
        what = f"{listed} up to {distance[row][far[row]].max():.1f} box sides from its box"
        yield people.finding("keypoint far from box", what, row, names)


def _areas(people: People) -> Iterator[Finding]:
    share = people.areas / people.box_areas
    doubtful = ((share < SMALL_AREA) | (share > LARGE_AREA)) & people.usable & ~people.crowd
    for row, person in enumerate(people.persons):
        if person.area < 0:
            yield people.finding("negative area", f"its area is {person.area:g}", row)
        elif person.area == 0 and people.usable[row]:
            yield people.finding("zero area", "its area is 0", row)
        elif doubtful[row] and person.file_box is not None:
            yield people.finding("area and box differ", f"its area is {share[row]:.3g} of its box's", row)


def _counts(people: People) -> Iterator[Finding]:
    joints = people.skeleton.joints
    left_out = ("head", "neck") if set(joints) == set(CROWDPOSE.joints) else ()  # in its files
    limbs = [joint not in left_out for joint in joints]
    for row, (person, seen) in enumerate(zip(people.persons, people.seen, strict=True)):
        fitting = {None, int(seen.sum()), int(seen[limbs].sum())}
        if person.num_keypoints not in fitting:
            what = f"its num_keypoints is {person.num_keypoints}, and {seen.sum()} joints are labelled"
            yield people.finding("num_keypoints", what, row)


def _labels(people: People) -> Iterator[Finding]:
    if not people.persons:
        return
    if not people.visible.any():
        yield people.finding("nobody labelled", "no person with a labelled joint")
        return
    for joint, known in zip(people.skeleton.joints, people.visible.any(axis=0), strict=True):
        if not known:
            yield people.finding("joint never labelled", f"{joint} is labelled for nobody", joints=(joint,))
    for row in _true(~people.seen.any(axis=1) & ~people.crowd):
        yield people.finding("person without joints", "no joint is labelled", row)


def _twice(people: People) -> Iterator[Finding]:
    """Two annotations of one pose in one picture."""
    if people.normalised:  # and so all of them on one spot
        return
    labelled = _true((people.visible > 0).sum(axis=1) >= SAME_JOINTS)
    for group in _groups(people.persons[row].image_id for row in labelled):
        rows = [labelled[place] for place in group]
        for place, row in enumerate(rows[1:], start=1):
            others = rows[:place]
            both = people.seen[others] & people.seen[row]
            distance = np.linalg.norm(people.points[others] - people.points[row], axis=2)
            mean = np.where(both, distance, 0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
            size = np.sqrt(np.minimum(people.box_areas[others], people.box_areas[row]))
            if same := _true((mean < SAME_POSE * size) & (both.sum(axis=1) >= SAME_JOINTS)):
                what = (
                    f"has the joints of annotation {people.persons[others[same[0]]].id} of the same picture"
                )
                yield people.finding("person annotated twice", what, row)


def _sides(people: People) -> Iterator[Finding]:
    """Left and right exchanged, the most suspicious persons first."""
    facing, told = facing_camera(people.points, people.visible, people.skeleton)
    if file_exchanged(facing, told):
        what = f"only {facing} of {told} persons face the camera by their shoulders"
        yield people.finding("left/right, file", what)
    for found in find_exchanged(people.points, people.visible, np.sqrt(people.box_areas), people.skeleton):
        left, right = (people.skeleton.joints[joint] for joint in found.pair)
        yield people.finding(
            f"left/right, {found.rule}", f"{left} and {right} may be exchanged", found.row, (left, right)
        )


CHECKS = (_ids_and_names, _mirrors, _positions, _areas, _counts, _labels, _twice, _sides)


# --- pictures ---

# What stands at the end of the message of the reader of pictures, as the cure in a finding
FAULTS = {
    "missing picture": "check the path",
    "unreadable picture": "copy or download it again",
    "picture size": "use the picture they belong to",
}


class PictureFile(NamedTuple):
    """A picture to open, with the (width, height) its annotations were made at; 0 where unknown."""

    path: Path
    width: int
    height: int


class PictureFacts(NamedTuple):
    """What opening a picture found."""

    fault: str  # a key of FAULTS; "" where the picture can be used
    message: str
    file_digest: bytes  # SHA-256; b"" where it cannot be read
    pixel_digest: bytes = b""  # SHA-256 of size and RGB pixels; b"" where it cannot be decoded
    look: int | None = None  # see look_of; None where it cannot be decoded or is of one colour
    mirrored: int | None = None
    turned: str = ""  # what to say of an EXIF orientation that may not be that of the annotations


class ListedPicture(NamedTuple):
    """A picture of an annotation file; ``used``: labelled persons are in it."""

    source: str  # the annotation file
    name: str
    file: PictureFile
    validation: bool
    used: bool


Copy = tuple[ListedPicture, PictureFacts]


def check_pictures(
    pictures: Sequence[ListedPicture],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Pictures that cannot be used, that may be meant another way up, and that are there more than once.

    Args:
        pictures: of all sets.
        workers: threads that decode; None takes one a core, up to 8.
        progress: gets the number of pictures opened and that of all.
    """
    facts = open_pictures([picture.file for picture in pictures], workers, progress)
    copies: dict[tuple[str, bool, str], Copy] = {}
    for one in pictures:  # one name twice in one file: that is the check of file names
        copies.setdefault((one.source, one.validation, one.name), (one, facts[one.file]))
    found: list[Finding] = []
    groups: dict[bytes, list[Copy]] = {}
    for one, fact in copies.values():
        found += _faults(one, fact)
        if digest := fact.pixel_digest or fact.file_digest:
            groups.setdefault(digest, []).append((one, fact))
    found += [_repeated(group) for group in groups.values() if len(group) > 1]
    leaked = {digest for digest, group in groups.items() if len({one.validation for one, _ in group}) > 1}
    usable = [copy for copy in copies.values() if copy[1].pixel_digest not in leaked]
    return [*found, *_near_copies(usable)]


def open_pictures(
    files: Sequence[PictureFile],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[PictureFile, PictureFacts]:
    """The facts of every picture, each opened once; some 400 bytes a picture stay in memory."""
    unique = list(dict.fromkeys(files))
    facts = {}
    with closing(in_order(facts_of, unique, threads=workers)) as opened:
        for file, found in zip(unique, opened, strict=True):
            facts[file] = found
            if progress is not None:
                progress(len(facts), len(unique))
    return facts


def facts_of(file: PictureFile) -> PictureFacts:
    """Open one picture."""
    fault, message, image, digest = "", "", None, b""
    try:
        image = read_recorded_image(*file)
    except InputError as error:
        message = str(error)
        fault = "unreadable picture" if os.path.exists(file.path) else "missing picture"
        with suppress(InputError):  # of another size than recorded?
            image = read_recorded_image(file.path, 0, 0)
            fault = "picture size"
    with suppress(OSError):  # said already by the reader of pictures
        if os.path.isfile(file.path):  # a pipe or a device may never end
            digest = hashlib.sha256(file.path.read_bytes()).digest()
    if image is None:
        return PictureFacts(fault, message, digest)
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    return PictureFacts(fault, message, digest, pixels, *look_of(image), "" if fault else _turned(file))


def _turned(file: PictureFile) -> str:
    orientation, stored = exif_orientation(file.path)
    if orientation == 1 or not file.width:
        return ""
    if orientation < 5 or stored[0] == stored[1]:
        return f"has the EXIF orientation {orientation}, and the recorded size fits it turned or not"
    if stored == (file.width, file.height):
        return f"has the EXIF orientation {orientation}, and the recorded size is that before turning it"
    return ""


def look_of(image: np.ndarray) -> tuple[int | None, int | None]:
    """A perceptual hash of 63 bits, and that of the mirror image; None and None for a picture of one colour.

    Each bit says whether one of the 63 lowest frequencies of the (H, W, 3) picture, in grey at 32 x 32, is
    above their median; so scale, compression, brightness and contrast hardly matter.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < FLAT:
        return None, None
    low = cv2.dct(small)[:8, :8]
    mirrored = low * np.where(np.arange(8) % 2, -1, 1)  # the odd horizontal frequencies change their sign
    bits = (each.ravel()[1:] > np.median(each.ravel()[1:]) for each in (low, mirrored))  # without the mean
    look, twin = (int.from_bytes(np.packbits(each).tobytes()) for each in bits)
    return look, twin


def _faults(one: ListedPicture, facts: PictureFacts) -> Iterator[Finding]:
    if facts.fault:
        cure = FAULTS[facts.fault]
        message = facts.message.removesuffix(f"; {cure}")
        severity: Severity = "error" if one.used else "warning"
        cure += "" if one.used else "; it has no labelled person"
        yield Finding(facts.fault, severity, one.source, message, cure, one.name)
    if facts.turned:
        cure = "it is turned where that fits the record; check that its annotations are made so, too"
        message = f"{one.name} {facts.turned}"
        yield Finding("EXIF orientation", "warning", one.source, message, cure, one.name)


def _repeated(group: list[Copy]) -> Finding:
    """Training and validation share the picture, or one of them has it several times."""
    (first, facts), *others = sorted(group, key=lambda copy: copy[0].validation)
    leaks = others[-1][0].validation and not first.validation
    second, twin = next(copy for copy in others if copy[0].validation or not leaks)
    same = "the same file" if facts.file_digest == twin.file_digest else "saved anew"
    more = f", {len(group)} times in all" if len(group) > 2 else ""
    message = f"{first.file.path} and {second.file.path} have the same pixels ({same}){more}"
    if leaks:
        cure = "remove it from one of the two: the validation knows the answer"
        return Finding("picture in train and val", "error", second.source, message, cure, second.name)
    cure = "keep one, with the annotations of all"
    return Finding("picture listed twice", "warning", second.source, message, cure, second.name)


def _near_copies(copies: Sequence[Copy]) -> Iterator[Finding]:
    """For each validation picture the training picture that looks most like it, where that is close."""
    train, validation = (
        [(one, f.look, f.mirrored) for one, f in copies if one.validation == side and f.look is not None]
        for side in (False, True)
    )
    if not train:
        return
    looks = np.asarray([both for _, *both in train], dtype=np.uint64)
    for start in range(0, len(validation), ROWS):
        part = validation[start : start + ROWS]
        wanted = np.asarray([look for _, look, _ in part], dtype=np.uint64)
        bits = np.bitwise_count(wanted[:, None, None] ^ looks)  # (validation, train, plain or mirrored)
        for (one, *_), differing in zip(part, bits, strict=True):
            for kind, most, what in ((0, NEAR, ""), (1, NEAR_MIRRORED, "the mirror image of ")):
                twin = differing[:, kind].argmin()
                if differing[twin, kind] <= most:
                    check, path = "near-copy in train and val", f"{what}{train[twin][0].file.path}"
                    message = f"{one.file.path} looks like {path} ({differing[twin, kind]} of 63 bits differ)"
                    cure = "look at both; pictures of one scene belong to one of the two sets"
                    yield Finding(check, "warning", one.source, message, cure, one.name)
                    break
