"""Checks of what an annotation file lists, beyond what its reader refuses. No picture is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from diffusionpose.data.checks.findings import Finding, Severity
from diffusionpose.data.listing import Listing, without_area
from diffusionpose.data.persons import boxes_inside

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
