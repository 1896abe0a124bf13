"""Measure several hypotheses: the best of them against the first, how they differ, and their regions.

python examples/hypotheses.py ANNOTATIONS.json IMAGES [HYPOTHESES [PERSONS]]   # 8; all, or drawn with seed 0

Needs `pip install '.[train]'`, which brings AP.
"""

import sys
from dataclasses import replace
from itertools import combinations, groupby

import numpy as np

from diffusionpose import PoseEstimator
from diffusionpose.data.annotations import Annotations, Person, read_annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.evaluation.metrics import average_precision
from diffusionpose.poses import BOX_SHARE, REGION, Pose, keypoint_similarity
from diffusionpose.runtime.estimator import Request

DRAWS = 200  # from a mixture, by which the density is known that bounds its 90 % region


def drawn(path: str, persons: int | None) -> Annotations:
    """The labelled persons of a file, or so many of them."""
    truth = read_annotations(path).labelled()
    chosen = np.random.default_rng(0).permutation(len(truth.persons))[:persons]
    return replace(truth, persons=[truth.persons[row] for row in sorted(chosen)])


def in_mixture(poses: list[Pose], person: Person, generator: np.random.Generator) -> np.ndarray:
    """(labelled,) whether joints lie where the mixture of all hypotheses is densest, with 90 %."""
    seen = person.visible > 0
    places = np.stack([pose.keypoints for pose in poses])[:, seen].astype(float)
    covariances = poses[0].confidence.covariances[seen].astype(float)
    inverse, weights = np.linalg.inv(covariances), np.array([pose.weight for pose in poses])

    def density(points: np.ndarray) -> np.ndarray:
        apart = points[:, None] - places
        distance = np.einsum("nkjx,jxy,nkjy->njk", apart, inverse, apart)
        return np.exp(-distance / 2) @ weights

    chosen = generator.choice(len(poses), (DRAWS, places.shape[1]), p=weights / weights.sum())
    normal = generator.normal(size=(*chosen.shape, 2))
    spread = np.einsum("jxy,njy->njx", np.linalg.cholesky(covariances), normal)
    samples = places[chosen, np.arange(places.shape[1])] + spread
    return density(person.keypoints[None, seen])[0] >= np.quantile(density(samples), 0.1, axis=0)


def measure(truth: Annotations, folder: str, count: int) -> str:
    """AP of the first and of the best, and what else is asked."""
    estimator = PoseEstimator.from_pretrained(skeleton=truth.skeleton, hypotheses=count)
    pictures, sigmas = find_pictures(truth, folder, persons_only=True), np.array(truth.skeleton.sigmas)
    by_image = [(key, list(group)) for key, group in groupby(truth.persons, key=lambda one: one.image_id)]
    requests = (
        Request(pictures.read(truth.images[key]), np.stack([one.box for one in group]), np.ones(len(group)))
        for key, group in by_image
    )
    first, best, alike, inside, generator = [], [], [], [], np.random.default_rng(0)
    chosen, numbers, weights = [], [], []
    for (key, group), (_, answers) in zip(by_image, estimator.stream(requests), strict=True):
        for person, pose in zip(group, answers, strict=True):
            poses, seen = [pose, *pose.alternatives], person.visible > 0
            area = BOX_SHARE * float((person.box[2:] - person.box[:2]).prod())
            right = [
                keypoint_similarity(p.keypoints - person.keypoints, person.area, sigmas)[seen].mean()
                for p in poses
            ]
            winner = int(np.argmax(right))
            chosen.append(winner > 0)
            numbers.append(len(poses))
            weights.append(poses[winner].weight)
            names = {"file_name": truth.images[key].file_name, "box": pose.rounded_box}
            first.append({**pose.to_coco_result(key), **names})
            best.append({**replace(poses[winner], score=pose.score).to_coco_result(key), **names})
            pairs = [
                keypoint_similarity(a.keypoints - b.keypoints, area, sigmas).mean()
                for a, b in combinations(poses, 2)
            ]
            alike += [np.mean(pairs)] if pairs else []
            apart = pose.keypoints - person.keypoints
            one = np.einsum("jx,jxy,jy->j", apart, np.linalg.inv(pose.confidence.covariances), apart)
            inside.append(np.stack([one[seen] <= REGION, in_mixture(poses, person, generator)]))
    ap = [100 * average_precision(truth, rows)["AP"] for rows in (first, best)]
    share = np.concatenate(inside, axis=1).mean(1)
    return (
        f"{len(first)} persons: AP {ap[0]:.1f}, best of {count} {ap[1]:.1f}\n"
        f"{np.mean(numbers):.1f} distinct, OKS among them {np.mean(alike):.2f}\n"
        f"an alternative is best {np.mean(chosen):.2f}, mean weight of the best {np.mean(weights):.2f}\n"
        f"in the 90 % region of the first {share[0]:.3f}, of the mixture {share[1]:.3f}"
    )


if __name__ == "__main__":
    annotations, images, *numbers = sys.argv[1:]
    hypotheses, persons = map(int, [*numbers, *("8", str(10**9))[len(numbers) :]])
    print(measure(drawn(annotations, persons), images, hypotheses))
