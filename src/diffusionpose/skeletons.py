"""Skeletons: which joints a pose has, which limbs join them, and how the metric weighs them.

A skeleton is data, not code: joints in the order of the annotation file, limbs as joint pairs,
left-right pairs for mirroring, and the OKS sigma of every joint. The three of the paper are
constants here; one of your own comes from a small YAML file (:meth:`Skeleton.from_yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusionpose.errors import InputError
from diffusionpose.json_files import as_number

MOST_JOINTS, MOST_SIGMA = 1000, 10.0
MOST_YAML = 1_000_000  # bytes
LOWER_BODY = ("hip", "knee", "ankle", "foot", "heel", "toe")


@dataclass(frozen=True)
class Skeleton:
    """Joints, limbs, left-right pairs and OKS sigmas of one kind of body.

    ``limbs`` and ``pairs`` hold joint indices, a pair as (left, right). ``sigmas`` follow COCO's
    convention: OKS of a joint at distance d is ``exp(-d^2 / (2 area (2 sigma)^2))``.

    Raises:
        InputError: a joint listed twice, an index outside the joints, a joint in two pairs, or a
            number of sigmas other than the number of joints.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        def refuse(problem: str) -> None:
            raise InputError(f"skeleton {str(self.name)!r:.80}: {problem}")

        count = len(self.joints)
        if not all(isinstance(name, str) for name in (self.name, *self.joints)):
            refuse("its name and joints must be words")
        if not 0 < count <= MOST_JOINTS or len(set(self.joints)) != count:
            refuse(f"joints must be 1 to {MOST_JOINTS}, each listed once")
        if len(self.sigmas) != count:
            refuse(f"{count} joints but {len(self.sigmas)} sigmas; give every joint a sigma")
        if any(not 0 < sigma < MOST_SIGMA for sigma in self.sigmas):
            refuse(f"every sigma must be a number above 0 and below {MOST_SIGMA:g}")
        for what, entries in (("limb", self.limbs), ("pair", self.pairs)):
            for a, b in entries:
                if a == b or not (0 <= a < count and 0 <= b < count):
                    refuse(f"{what} ({a}, {b}) is not two of its joints")
        paired = [joint for pair in self.pairs for joint in pair]
        if len(set(paired)) != len(paired):
            refuse("a joint stands in two left-right pairs")

    @property
    def num_joints(self) -> int:
        """How many joints a pose has (the paper's J)."""
        return len(self.joints)

    @cached_property
    def flip_order(self) -> tuple[int, ...]:
        """The permutation of joints that a mirrored picture needs: ``joints[flip_order[i]]`` mirrors i."""
        order = list(range(self.num_joints))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @cached_property
    def upper_body(self) -> tuple[int, ...]:
        """Joints above the hips, for half-body augmentation."""
        return tuple(
            i for i, joint in enumerate(self.joints) if not any(part in joint for part in LOWER_BODY)
        )

    def index(self, joint: str) -> int:
        """Index of a joint by name; InputError where the skeleton has none of that name."""
        if joint not in self.joints:
            raise InputError(
                f"skeleton {self.name!r} has no joint {joint!r}; it has: {', '.join(self.joints)}"
            )
        return self.joints.index(joint)

    @property
    def limb_joints(self) -> tuple[int, ...]:
        """Indices of the joints from shoulders to wrists and hips to ankles: 12 in all known skeletons."""
        parts = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        names = {f"{side}_{part}" for side in ("left", "right") for part in parts}
        return tuple(index for index, joint in enumerate(self.joints) if joint in names)

    def select(self, joints: Sequence[str]) -> Skeleton:
        """The skeleton with these of its joints, in this order; limbs and pairs that lose an end go."""
        if tuple(joints) == self.joints:
            return self
        old = [self.index(joint) for joint in joints]
        new = {index: place for place, index in enumerate(old)}
        limbs, pairs = (
            tuple((new[a], new[b]) for a, b in ends if a in new and b in new)
            for ends in (self.limbs, self.pairs)
        )
        return Skeleton(self.name, tuple(joints), limbs, pairs, tuple(self.sigmas[index] for index in old))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that JSON can hold and :meth:`from_dict` takes back."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "limbs": [list(limb) for limb in self.limbs],
            "pairs": [list(pair) for pair in self.pairs],
            "sigmas": list(self.sigmas),
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Skeleton:
        """The inverse of :meth:`to_dict`."""
        return cls(
            name=entries["name"],
            joints=tuple(entries["joints"]),
            limbs=tuple((int(a), int(b)) for a, b in entries["limbs"]),
            pairs=tuple((int(a), int(b)) for a, b in entries["pairs"]),
            sigmas=tuple(float(sigma) for sigma in entries["sigmas"]),
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Skeleton:
        """A skeleton from a YAML file; InputError names the file, the entry at fault and the cure.

        ::

            name: horse
            joints:
              nose: {sigma: 0.03}
              left_eye: {sigma: 0.03, mirror: right_eye}
              right_eye: {sigma: 0.03, mirror: left_eye}
            limbs: [[nose, left_eye], [nose, right_eye]]
        """
        return _skeleton_from_entries(Path(path), _read_yaml(Path(path)))


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if (path.exists() and not path.is_file()) or path.stat().st_size > MOST_YAML:
            raise InputError(f"{path}: not a YAML file of a skeleton; check the path")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError(f"{path}: has aliases (*name), which can grow without bound; write them out")
        entries = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file") from error
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(entries, dict) or not isinstance(entries.get("joints"), dict):
        raise InputError(f"{path}: needs 'joints', a mapping from joint name to {{sigma: .., mirror: ..}}")
    return entries


def _skeleton_from_entries(path: Path, entries: dict[str, Any]) -> Skeleton:
    joints = tuple(map(str, entries["joints"]))  # YAML makes numbers of some names
    sigmas: list[float] = []
    mirrors: dict[str, str] = {}
    for joint, fact in zip(joints, entries["joints"].values(), strict=True):
        sigma = as_number(fact.get("sigma")) if isinstance(fact, dict) else None
        if sigma is None:
            raise InputError(f"{path}: joint {joint!r} has no sigma; write '{joint}: {{sigma: 0.05}}'")
        sigmas.append(sigma)
        if fact.get("mirror") is not None:
            mirrors[joint] = str(fact["mirror"])
    pairs = []
    for joint, mirror in mirrors.items():
        if mirror not in joints:
            raise InputError(f"{path}: joint {joint!r} mirrors {mirror!r}, which is not one of the joints")
        if mirrors.get(mirror) != joint:
            raise InputError(
                f"{path}: {joint!r} mirrors {mirror!r} but not the other way round; "
                f"write 'mirror: {joint}' at {mirror!r}"
            )
        a, b = joints.index(joint), joints.index(mirror)
        if a < b:
            pairs.append((b, a) if joint.startswith("right") else (a, b))
    limbs, given = [], entries.get("limbs") or []
    if not isinstance(given, list) or len(given) > MOST_JOINTS**2:
        raise InputError(f"{path}: 'limbs' must be a list of pairs of joint names")
    for limb in given:
        ends = [str(joint) for joint in limb] if isinstance(limb, list) else []
        if len(ends) != 2 or not set(ends) <= set(joints):
            raise InputError(f"{path}: limb {limb!r:.60} must be a list of two names of its joints")
        limbs.append((joints.index(ends[0]), joints.index(ends[1])))
    try:
        name = str(entries.get("name", path.stem))
        return Skeleton(name, joints, tuple(limbs), tuple(pairs), tuple(sigmas))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def opposite(joint: str) -> str | None:
    """The name of a joint's mirror image, "left_hip" of "right_hip", "hipR" of "hipL"; None in the middle."""
    for pattern in (r"left|right", r"Left|Right", r"LEFT|RIGHT"):
        if len(found := re.findall(pattern, joint)) == 1:
            left, right = pattern.split("|")
            return joint.replace(found[0], right if found[0] == left else left)
    letter = re.search(r"(?:^|(?<=[_ .-]))[lrLR](?=[_ .-])|(?<=[_ .-])[lrLR]$|(?<=[a-z])[LR]$", joint)
    if letter is None:
        return None
    other = {"l": "r", "r": "l", "L": "R", "R": "L"}[letter.group()]
    return joint[: letter.start()] + other + joint[letter.end() :]


def pair_by_name(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) indices of the joints whose names say left and right."""
    others = ((joint, opposite(joint)) for joint in joints)
    return tuple(
        (joints.index(joint), joints.index(other))
        for joint, other in others
        if other is not None and other in joints and joint < other  # "left" comes before "right"
    )


def unpaired(skeleton: Skeleton) -> list[tuple[str, str]]:
    """Joints named left and right that the skeleton does not pair: a mirrored picture mislabels them."""
    known = {frozenset(pair) for pair in skeleton.pairs}
    missing = [pair for pair in pair_by_name(skeleton.joints) if frozenset(pair) not in known]
    return [(skeleton.joints[left], skeleton.joints[right]) for left, right in missing]


def _named(name: str, joints: str, limbs: Iterable[str], sigmas: Iterable[float]) -> Skeleton:
    """A skeleton from joint names and limbs written 'a-b'; left_x pairs with right_x."""
    names = tuple(joints.split())
    ends = (limb.split("-") for limb in limbs)
    limb_indices = tuple((names.index(a), names.index(b)) for a, b in ends)
    return Skeleton(name, names, limb_indices, pair_by_name(names), tuple(sigmas))


_ARMS_AND_LEGS = [
    f"{side}_{a}-{side}_{b}"
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
]
_TRUNK = ["left_shoulder-left_hip", "right_shoulder-right_hip", "left_hip-right_hip"]

COCO = _named(
    "coco",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle",
    [
        *_ARMS_AND_LEGS,
        *_TRUNK,
        *("left_shoulder-right_shoulder", "nose-left_eye", "nose-right_eye", "left_eye-right_eye"),
        *("left_eye-left_ear", "right_eye-right_ear", "left_ear-left_shoulder", "right_ear-right_shoulder"),
    ],
    (0.026, *2 * (0.025,), *2 * (0.035,), *2 * (0.079,), *2 * (0.072,), *2 * (0.062,))
    + (*2 * (0.107,), *2 * (0.087,), *2 * (0.089,)),
)
CROWDPOSE = _named(
    "crowdpose",
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip "
    "left_knee right_knee left_ankle right_ankle head neck",
    [*_ARMS_AND_LEGS, *_TRUNK, "neck-left_shoulder", "neck-right_shoulder", "head-neck"],
    (*2 * (0.079,), *2 * (0.072,), *2 * (0.062,), *2 * (0.107,), *2 * (0.087,), *2 * (0.089,), 0.079, 0.079),
)
AIC = _named(
    "aic",
    "right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle head_top neck",
    [*_ARMS_AND_LEGS, *_TRUNK, "neck-left_shoulder", "neck-right_shoulder", "head_top-neck"],
    (0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642)
    + (0.03686941, 0.01981803, 0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173),
)


def union(*skeletons: Skeleton) -> Skeleton:
    """The joints of several skeletons, matched by name; limbs and sigmas of a shared joint from the first.

    Models of a union train on data sets with different joints at once: a joint that a data set does not have
    is unlabelled in it.

    Raises:
        InputError: a joint has another mirror image in one of them than in another.
    """
    joints = tuple(dict.fromkeys(joint for skeleton in skeletons for joint in skeleton.joints))
    sigmas: dict[str, float] = {}
    limbs: dict[frozenset[str], tuple[int, int]] = {}
    pairs: dict[frozenset[str], tuple[int, int]] = {}
    for skeleton in skeletons:
        for joint, sigma in zip(skeleton.joints, skeleton.sigmas, strict=True):
            sigmas.setdefault(joint, sigma)
        for known, own in ((limbs, skeleton.limbs), (pairs, skeleton.pairs)):
            for a, b in own:
                names = skeleton.joints[a], skeleton.joints[b]
                known.setdefault(frozenset(names), (joints.index(names[0]), joints.index(names[1])))
    return Skeleton(
        "+".join(skeleton.name for skeleton in skeletons),
        joints,
        tuple(limbs.values()),
        tuple(pairs.values()),
        tuple(sigmas[joint] for joint in joints),
    )


SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, CROWDPOSE, AIC)}


def get_skeleton(skeleton: str | Path | Skeleton) -> Skeleton:
    """A skeleton by name ("coco", "crowdpose", "aic", "coco+crowdpose"), of a YAML file, or as it is."""
    if isinstance(skeleton, Skeleton):
        return skeleton
    if str(skeleton) in SKELETONS:
        return SKELETONS[str(skeleton)]
    parts = str(skeleton).split("+")
    if len(parts) > 1 and all(part in SKELETONS for part in parts):
        return union(*(SKELETONS[part] for part in parts))
    if Path(skeleton).suffix in {".yaml", ".yml"}:
        return Skeleton.from_yaml(skeleton)
    raise InputError(f"no skeleton {str(skeleton)!r}; give one of {', '.join(SKELETONS)} or a YAML file")
