"""Pose: the keypoints of one person in image pixels; and its ways out: COCO result, table, supervision."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionpose.errors import InputError, needs_extra
from diffusionpose.skeletons import Skeleton

if TYPE_CHECKING:
    import pandas
    import supervision

VISIBLE_SCORE = 0.2  # HRNet's in_vis_thre: a joint that scores less counts as not seen
MARGIN = 0.1  # joints lie inside the body; annotated boxes reach about so far beyond their extent
ABSENT, HIDDEN, VISIBLE = 0, 1, 2  # COCO's flags: not to be labelled (outside the picture), covered, seen
# a person's area over that of the box: COCO's mean, and what CrowdPose and AI Challenger go by
BOX_SHARE = 0.53
REGION = 4.605  # of a Gaussian in two dimensions, 90 % lies within this squared Mahalanobis distance


@dataclass(frozen=True, eq=False)
class Confidence:
    """What a calibrated model says of one person's J joints (docs/confidence.md); arrays are float32.

    Attributes:
        right: (J,) probability that a joint is right: exp(-d^2 / (2 area (2 sigma)^2)) of its distance d from
            the true place is at least 0.5, with the skeleton's sigma and 0.53 of the box's area.
        visibility: (J,) int, ``ABSENT``, ``HIDDEN`` or ``VISIBLE``.
        covariances: (J, 2, 2) square image pixels; in 90 % of cases the true place lies within the squared
            Mahalanobis distance ``REGION`` of the keypoint.
        oks: expected OKS of the person.
    """

    right: np.ndarray
    visibility: np.ndarray
    covariances: np.ndarray
    oks: float

    def to_dict(self) -> dict[str, Any]:
        """``probabilities``, ``visibility``, ``covariances`` (xx, xy, yy each) and ``expected_oks``."""
        flat = self.covariances.reshape(-1, 4)[:, [0, 1, 3]]
        return {
            "probabilities": [round(number, 4) for number in self.right.tolist()],
            "visibility": self.visibility.tolist(),
            "covariances": [[round(number, 3) for number in each] for each in flat.tolist()],
            "expected_oks": round(self.oks, 4),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Confidence | None:
        """What :meth:`to_dict` wrote, which may be among other things; None where there is none."""
        if "probabilities" not in entry:
            return None
        right, spread = (np.array(entry[key], np.float32) for key in ("probabilities", "covariances"))
        spread = spread.reshape(-1, 3)[:, [0, 1, 1, 2]].reshape(-1, 2, 2)
        return cls(right, np.array(entry["visibility"], int), spread, float(entry["expected_oks"]))


@dataclass(frozen=True, eq=False)
class Pose:
    """One person.

    Attributes:
        skeleton: names the joints.
        keypoints: (J, 2) float32, x and y in image pixels.
        scores: (J,) float32, how sure the model is of each joint: the heatmap's maximum, about 1 at most.
        box: (4,) float32, x0, y0, x1, y1 in image pixels: the person box the pose was found in.
        score: confidence of the whole pose.
        confidence: calibrated statements, of a model that has been calibrated; else None.
        alternatives: other poses that the person may have, the likeliest first, where several hypotheses were
            asked for; each has a weight, and none has a confidence.
        weight: of the pose beside its alternatives, which sum to 1; None where there was one hypothesis.

    Raises:
        InputError: an array of another shape, or a number that is not finite.
    """

    skeleton: Skeleton
    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    score: float
    confidence: Confidence | None = None
    alternatives: tuple[Pose, ...] = ()
    weight: float | None = None

    def __post_init__(self) -> None:
        joints = self.skeleton.num_joints
        for name, shape in (("keypoints", (joints, 2)), ("scores", (joints,)), ("box", (4,))):
            values = np.asarray(getattr(self, name), dtype=np.float32)
            if values.shape != shape:
                raise InputError(f"Pose.{name} has shape {values.shape}, the skeleton needs {shape}")
            if not np.isfinite(values).all():
                raise InputError(f"Pose.{name} holds a number that is not finite")
            object.__setattr__(self, name, values)

    @property
    def rounded_box(self) -> list[float]:
        """``box`` as files have it, to a hundredth of a pixel."""
        return [round(number, 2) for number in self.box.tolist()]

    def to_coco_result(self, image_id: int | str, category_id: int = 1) -> dict[str, Any]:
        """The pose as an entry of a COCO keypoint results file: flat x, y, score triplets; its confidence.

        Where several hypotheses were asked for, its ``weight`` and ``alternatives`` (keypoints, score and
        weight each) as well.
        """
        row = {"image_id": image_id, "category_id": category_id, **self._numbers()}
        if self.weight is not None:
            row["alternatives"] = [pose._numbers() for pose in self.alternatives]
        return {**row, **(self.confidence.to_dict() if self.confidence else {})}

    def _numbers(self) -> dict[str, Any]:
        triplets = np.column_stack([self.keypoints, self.scores]).astype(float)
        row = {
            "keypoints": [round(number, 3) for number in triplets.ravel().tolist()],
            "score": float(self.score),
        }
        return row if self.weight is None else {**row, "weight": round(self.weight, 4)}


def box_around(keypoints: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The person box (4,) xyxy that (n, 2) keypoints suggest: their extent and ``margin`` of it all round."""
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    grown = margin * (high - low)
    return np.concatenate([low - grown, high + grown]).astype(np.float32)


def to_supervision(poses: Sequence[Pose]) -> supervision.KeyPoints:
    """Poses of one picture as ``supervision.KeyPoints``, for supervision's annotators and trackers.

    ``xy`` (n, J, 2) and ``keypoint_confidence`` (n, J) are keypoints and scores, ``detection_confidence``
    (n,) the scores of the poses, ``class_id`` 0 for a person. ``data`` has an entry for each person of
    ``class_name`` ("person"), ``box`` (n, 4), the xyxy boxes, for which KeyPoints has no place of its own,
    and ``joint_names`` (n, J).
    """
    with needs_extra("supervision", "poses for supervision need supervision"):
        import supervision

    if not poses:
        return supervision.KeyPoints.empty()
    return supervision.KeyPoints(
        xy=np.stack([pose.keypoints for pose in poses]),
        class_id=np.zeros(len(poses), int),
        keypoint_confidence=np.stack([pose.scores for pose in poses]),
        detection_confidence=np.array([pose.score for pose in poses], np.float32),
        data={
            "class_name": np.array(["person"] * len(poses)),
            "box": np.stack([pose.box for pose in poses]),
            "joint_names": np.array([pose.skeleton.joints for pose in poses]),
        },
    )


def keypoint_similarity(
    apart: np.ndarray, areas: np.ndarray | float, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:
    """(..., J) COCO's exp(-d^2 / (2 area (2 sigma)^2)), whose mean over joints is OKS.

    Args:
        apart: (..., J, 2) differences of keypoints, image pixels.
        areas: of the persons, square pixels; broadcast to (..., J).
        sigmas: (J,) of the joints.
    """
    squared = (apart**2).sum(-1)
    similarity: np.ndarray = np.exp(-squared / (2 * (2 * np.asarray(sigmas)) ** 2 * areas))
    return similarity


def pose_score(box_score: float, scores: np.ndarray, threshold: float = VISIBLE_SCORE) -> float:
    """The box's score times the mean of the (J,) keypoint scores above ``threshold``; 0 without any."""
    sure = scores[scores > threshold]
    return float(box_score) * float(sure.mean()) if sure.size else 0.0


# A table: one row for each person and joint, as CSV or as a pandas DataFrame, and back

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
PERSON_COLUMNS = ("file_name", "image_id", "person", "person_score", *BOX_COLUMNS)  # same for all joints
COLUMNS = ("file_name", "image_id", "person", "joint", "x", "y", "score", "person_score", *BOX_COLUMNS)
KINDS: dict[str, Any] = {"file_name": str, "joint": str, "image_id": int, "person": int}  # others: float
# a file name may hold bytes that are no UTF-8; they are kept as they are
TEXT: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
Row = dict[str, Any]


def pose_rows(poses: Sequence[Pose], file_name: str = "", image_id: int = 1) -> Iterator[Row]:
    """The rows of one picture's poses, all digits of their float32 numbers kept."""
    for person, pose in enumerate(poses):
        picture = {"file_name": file_name, "image_id": image_id, "person": person}
        triplets = np.column_stack([pose.keypoints, pose.scores]).astype(float)
        yield from _rows(picture, pose.skeleton.joints, triplets.tolist(), pose.score, pose.box.tolist())


def result_rows(results: Iterable[Mapping[str, Any]], joints: Sequence[str]) -> Iterator[Row]:
    """The rows of keypoints.json, the very numbers that stand there.

    Args:
        results: its entries, with ``file_name`` and ``box``; one is read at a time.
        joints: names of the keypoints; InputError where an entry has another number of them.
    """
    persons: Counter[int] = Counter()
    for result in results:
        image_id, numbers = result["image_id"], result["keypoints"]
        if len(numbers) != 3 * len(joints):
            raise InputError(
                f"a result of {result['file_name']} has not the {len(joints)} joints of the model"
            )
        picture = {"file_name": result["file_name"], "image_id": image_id, "person": persons[image_id]}
        persons[image_id] += 1
        triplets = [numbers[start : start + 3] for start in range(0, len(numbers), 3)]
        yield from _rows(picture, joints, triplets, result["score"], result["box"])


def poses_of(rows: Iterable[Mapping[str, Any]], skeleton: Skeleton) -> dict[str, list[Pose]]:
    """The poses that rows were made of, by ``file_name``: of a list, or ``DataFrame.to_dict("records")``.

    InputError where a person has not all joints of the skeleton, or one of another.
    """
    persons: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        persons.setdefault((row["file_name"], row["person"]), {})[row["joint"]] = row
    poses: dict[str, list[Pose]] = {}
    for (name, person), joints in persons.items():
        if joints.keys() != set(skeleton.joints):
            raise InputError(f"{name}: person {person} has not the joints of the skeleton {skeleton.name!r}")
        ordered = [joints[joint] for joint in skeleton.joints]
        points = np.array([[row["x"], row["y"], row["score"]] for row in ordered])
        box = np.array([ordered[0][corner] for corner in BOX_COLUMNS])
        pose = Pose(skeleton, points[:, :2], points[:, 2], box, float(ordered[0]["person_score"]))
        poses.setdefault(name, []).append(pose)
    return poses


def to_dataframe(
    poses: Sequence[Pose] | Mapping[str, Sequence[Pose]], wide: bool = False
) -> pandas.DataFrame:
    """Poses as a pandas DataFrame.

    Args:
        poses: of one picture, or of pictures by their ``file_name``.
        wide: one row for each person, with columns ``nose_x``, ``nose_y``, ``nose_score``, ...; else one
            for each person and joint.

    Raises:
        InputError: pandas, the extra ``table``, is not installed.
    """
    pictures = poses if isinstance(poses, Mapping) else {"": poses}
    numbered = enumerate(pictures.items(), start=1)
    rows = [row for image_id, (name, found) in numbered for row in pose_rows(found, name, image_id)]
    if not wide:
        return _frame(rows, COLUMNS)
    persons: dict[tuple[str, int], Row] = {}
    for row in rows:
        key, own = (row["file_name"], row["person"]), {name: row[name] for name in PERSON_COLUMNS}
        person = persons.setdefault(key, own)
        person.update({f"{row['joint']}_{name}": row[name] for name in ("x", "y", "score")})
    wide_rows = list(persons.values())
    return _frame(wide_rows, tuple(wide_rows[0]) if wide_rows else PERSON_COLUMNS)


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> pandas.DataFrame:
    """Rows as a DataFrame; file names as Python's own text, as pandas' takes no bytes that are no UTF-8."""
    with needs_extra("table", "a DataFrame needs pandas"):
        import pandas
    content = {name: [row[name] for row in rows] for name in columns}
    return pandas.DataFrame({**content, "file_name": pandas.Series(content["file_name"], dtype=object)})


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, one at a time."""
    with path.open("w", **TEXT) as file:  # type: ignore[call-overload]
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: str | Path) -> list[Row]:
    """The rows of a file of :func:`write_csv`; InputError where it is damaged or another file."""
    rows: list[Row] = []
    try:
        with Path(path).open(**TEXT) as file:  # type: ignore[call-overload]
            reader = csv.DictReader(file)
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(f"{path}: has no column {lacking[0]!r}; give a keypoints.csv of predict")
            for row in reader:
                rows.append({name: KINDS.get(name, float)(row[name]) for name in COLUMNS})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: line {reader.line_num} is damaged ({error})") from error
    return rows


def _rows(
    picture: Row, joints: Sequence[str], triplets: Sequence[Any], score: float, box: Sequence[float]
) -> Iterator[Row]:
    person = {"person_score": score, **dict(zip(BOX_COLUMNS, box, strict=True))}
    for joint, (x, y, sure) in zip(joints, triplets, strict=True):
        yield {**picture, "joint": joint, "x": x, "y": y, "score": sure, **person}
