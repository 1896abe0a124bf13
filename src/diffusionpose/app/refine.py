"""``diffusionpose refine``: poses of another model, or rough clicks, as the start of the reverse process."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from diffusionpose.app.options import Folder, NetworkOptions, Output, counted, make_folder, refuse, say
from diffusionpose.errors import InputError
from diffusionpose.json_files import write_json
from diffusionpose.poses import Pose
from diffusionpose.runtime.boxes import ListedPerson, PeopleFile, listed_pictures, usable_boxes
from diffusionpose.runtime.estimator import PoseEstimator, Request, fixed_joints, named_joints
from diffusionpose.runtime.images import PICTURE_SUFFIXES, read_recorded_image
from diffusionpose.runtime.networks import load_network
from diffusionpose.skeletons import Skeleton, get_skeleton

ANNOTATIONS = (
    "COCO annotation file that tells the file name of each image_id. Without it: the entries' own file_name, "
    "else the picture whose name ends in the number."
)
BY_NUMBER = "(default: by their number in RESULTS)"


@dataclass(frozen=True)
class RefineCommand:
    """Refine poses that another model or a hand has made.

    RESULTS is a COCO results list: [{"image_id": 785, "keypoints": [x, y, score, ...]}, ...], with the joints
    of the model, or of COCO or CrowdPose where it has these, in their order; or AlphaPose's results,
    OpenPose's JSON (a file or a folder of them), or keypoints.json or keypoints.csv of predict. Joints with a
    score (or visibility) of 0 are not given: the model looks for them by itself. The person is looked for in
    the entry's box (x0, y0, x1, y1), else its bbox (x, y, width, height), else the extent of its given
    joints and 10 % of that on every side.

    Writes OUTPUT/keypoints.json: the same list, its order and ids, with the refined keypoints, the
    score (the old one times the mean of the joints' new scores above 0.2), file_name and box (x0, y0,
    x1, y1). Entries that cannot be used are reported and left out, the others are done, and the exit
    status is 1. docs/refine.md tells when it helps.
    """

    results: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RESULTS.json")]]
    """Poses to refine."""
    images: Folder
    """Folder of the pictures."""
    output: Output
    annotations: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help=ANNOTATIONS, help_behavior_hint="")
    ] = None
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=BY_NUMBER)] = None
    """Joints of the poses, where the model has more: coco or crowdpose."""
    fix: Annotated[tuple[str, ...], tyro.conf.arg(metavar="JOINT...", help_behavior_hint="")] = ()
    """Joints that stay exactly where RESULTS have them while the others follow: left_wrist right_ankle;
    'given' alone for all with a score above 0."""
    options: Annotated[NetworkOptions, tyro.conf.arg(name="")] = field(default_factory=NetworkOptions)

    def run(self) -> int:
        """Refine and write; 0 if every entry could be used."""
        options = self.options
        turned = "--rotation-test: the poses say how the persons are turned; leave it out"
        refuse(
            (options.steps == 0, "--steps 0: would leave the poses as they are; take 1 or more"),
            (options.rotation_test, turned),
        )
        make_folder(self.output)
        output = self.output / "keypoints.json"
        if output.resolve() in {path.resolve() for path in (self.results, self.annotations) if path}:
            raise InputError(f"{output}: would be overwritten by the result; name another --output")
        if not self.images.is_dir():
            raise InputError(f"{self.images}: no such folder; give that of the pictures")
        listed = listed_pictures(self.annotations) if self.annotations else None
        names = None if listed is None else {image_id: name for image_id, (name, _, _) in listed.items()}
        file = PeopleFile(self.results, names)
        if not file.people:
            raise InputError(f"{self.results}: an empty list; there is no pose to refine")
        network = load_network(options.weights, options.device)
        network.check(start=True)
        others = {name: value for name, value in vars(options).items() if name not in ("weights", "device")}
        skeleton = self.skeleton or _part(network.skeleton, file)
        estimator = PoseEstimator(network, device=options.device, skeleton=skeleton, **others)
        sizes = {name: (width, height) for name, width, height in (listed or {}).values()}
        fix = named_joints(self.fix, estimator.skeleton)
        return _Job(estimator, file, self.images, sizes, fix).run(output)


def _part(skeleton: Skeleton, file: PeopleFile) -> str | None:
    """The part of a union of skeletons that has as many joints as most poses without names of joints."""
    unnamed = [person.keypoints for person in file.people if not person.joints]
    numbers = Counter(len(keypoints) for keypoints in unnamed if keypoints is not None).most_common(1)
    if not numbers or "+" not in skeleton.name or numbers[0][0] == skeleton.num_joints:
        return None
    parts = skeleton.name.split("+")
    return next((part for part in parts if numbers[0][0] == get_skeleton(part).num_joints), None)


class _Job:
    """One run over the poses, picture by picture."""

    def __init__(
        self,
        estimator: PoseEstimator,
        file: PeopleFile,
        folder: Path,
        sizes: dict[str, tuple[int, int]],
        fix: np.ndarray,
    ) -> None:
        self.estimator, self.folder, self.sizes, self.fix = estimator, folder, sizes, fix
        self.people = file.keypoints_for(estimator.skeleton)
        self.rows: dict[ListedPerson, dict[str, Any]] = {}
        self.problems = 0
        for problem in file.problems:
            self._report(problem)
        self.pictures = self._pictures(file)

    def run(self, output: Path) -> int:
        began = time.perf_counter()
        try:
            with tqdm(total=len(self.people), unit="pose", disable=None) as bar:
                for request, poses in self.estimator.stream(self._requests()):
                    self._note(request, poses)
                    bar.update(len(poses))
        finally:  # also after Ctrl-C: what is refined is in the JSON
            write_json(output, [self.rows[person] for person in self.people if person in self.rows])
        print(f"{counted(len(self.rows), 'pose')} refined, {time.perf_counter() - began:.1f} s: {output}")
        if self.problems:
            say(f"{counted(self.problems, 'problem')}, listed above; the rest is done")
        return 1 if self.problems else 0

    def _pictures(self, file: PeopleFile) -> dict[str, Path]:
        """The picture of each of the file's names for one."""
        inside = [path for path in sorted(self.folder.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES]
        named = [self.folder / name for name in file.pictures if os.path.isfile(self.folder / name)]
        owners, _ = file.match(dict.fromkeys([*named, *inside]))
        missing = []
        for name, count in Counter(person.picture for person in self.people).items():
            found = len(owners.get(name, []))
            if found != 1:
                what = f"fits {found} pictures of" if found else "no such picture in"
                missing.append(
                    f"{name}: {what} {self.folder}; give --annotations, or a file_name in each entry "
                    f"({counted(count, 'pose')})"
                )
        if not owners:
            raise InputError(f"none of the pictures is to be found; the first: {missing[0]}")
        for message in missing:
            self._report(message)
        return {name: paths[0] for name, paths in owners.items() if len(paths) == 1}

    def _requests(self) -> Iterator[Request]:
        """Each picture with the entries that are of it; a message for what cannot be used."""
        for name, path in self.pictures.items():
            people = [person for person in self.people if person.picture == name]
            try:
                image = read_recorded_image(path, *self.sizes.get(name, (0, 0)))
            except InputError as error:
                self._report(f"{error} ({len(people)} poses)")
                continue
            size, usable, stay = image.shape[1::-1], [], []
            for person in people:
                start, who = np.asarray(person.keypoints, np.float32), f"{path}: entry {person.index}"
                try:
                    fixed = fixed_joints(start, self.fix, self.estimator.skeleton, size, who)
                    for problem in usable_boxes(person.box, *size)[2]:
                        raise InputError(f"{who}: {problem}")
                except InputError as error:
                    self._report(str(error))
                else:
                    usable.append(person)
                    stay.append(fixed)
            boxes = np.reshape([person.box for person in usable], (-1, 4)).astype(np.float32)
            scores = np.array([person.score for person in usable], np.float32)
            starts = np.array([person.keypoints for person in usable], np.float32) if usable else None
            yield Request(image, boxes, scores, (path, usable), starts, np.array(stay) if usable else None)

    def _note(self, request: Request, poses: list[Pose]) -> None:
        path, people = request.source
        name = (path.relative_to(self.folder) if path.is_relative_to(self.folder) else path).as_posix()
        for person, pose in zip(people, poses, strict=True):
            row = {**pose.to_coco_result(name), **person.ids}  # an entry without image_id gets the name
            self.rows[person] = {**row, "box": pose.rounded_box, "file_name": name}

    def _report(self, problem: str) -> None:
        self.problems += 1
        say(problem)
