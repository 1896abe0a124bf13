"""Measure how many clicks a pose needs to reach OKS 0.9 where clicked joints stay and the others follow.

python examples/clicks.py ANNOTATIONS.json IMAGES [PERSONS]   # so many, drawn with seed 0; else all

Each click puts the worst joint of a person to its true place. Beside it: the same clicks when they correct
nothing but their joint, and a click for every labelled joint. Who never reaches it counts as all joints.
"""

import sys
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from diffusionpose.data.annotations import read_annotations
from diffusionpose.data.pictures import find_pictures
from diffusionpose.geometry import Array, Crop, Start, to_numpy
from diffusionpose.poses import keypoint_similarity
from diffusionpose.runtime.estimator import as_batch
from diffusionpose.runtime.networks import Network, load_network

GOAL = 0.9


def clicks(
    first: np.ndarray, true: np.ndarray, alike: Callable[..., np.ndarray], follow: Callable[..., np.ndarray]
) -> int:
    """How many until the mean of the similarities is ``GOAL``.

    Args:
        first, true: (J, 2) the pose to begin with, and the true one.
        alike: (J,) similarities of a pose to the true one.
        follow: the pose that follows from a pose and its fixed joints (J,) bool.
    """
    pose, fixed = first.copy(), np.zeros(len(first), bool)
    while alike(pose).mean() < GOAL and not fixed.all():
        worst = int(np.argmin(np.where(fixed, np.inf, alike(pose))))
        fixed[worst] = True
        pose[worst] = true[worst]
        pose = np.where(fixed[:, None], true, follow(pose, fixed))
    return int(fixed.sum())


def reverse(
    network: Network, features: tuple[Array, Array], points: np.ndarray, fixed: np.ndarray
) -> np.ndarray:
    """(J, 2) heatmap pixels: what follows from points (J, 2) in input pixels, of which some are fixed."""
    start = Start(points[None].astype(np.float32), np.ones((1, len(points)), np.float32), fixed[None])
    keypoints, _ = network.codec.decode(network.reverse(*features, None, start)[-1], "dark")
    return to_numpy(keypoints)[0]


def measure(annotations: str, folder: str, persons: int | None, network: Network) -> str:
    """Clicks a person, and their share of clicking every joint, with the model and without."""
    truth = read_annotations(annotations).labelled()
    codec, places = network.codec, [network.skeleton.index(joint) for joint in truth.skeleton.joints]
    sigmas, pictures = np.array(truth.skeleton.sigmas), find_pictures(truth, folder, persons_only=True)
    counts = []
    for row in tqdm(sorted(np.random.default_rng(0).permutation(len(truth.persons))[:persons])):
        person = truth.persons[row]
        crop = Crop.from_boxes(person.box[None], codec.input_size, unbiased=codec.unbiased)
        features = network.encode(as_batch([crop.cut(pictures.read(truth.images[person.image_id]))]))
        seen = np.flatnonzero(person.visible > 0)
        own = np.array(places)[seen]

        def to_image(points: np.ndarray, crop: Crop = crop) -> np.ndarray:
            return crop.heatmap_to_image(points[None].astype(np.float32), codec.size)[0]

        def alike(pose: np.ndarray, true: np.ndarray = person.keypoints[seen], person=person, seen=seen):
            return keypoint_similarity(pose - true, person.area, sigmas[seen])

        answer, _ = codec.decode(network.reverse(*features)[-1], "dark")
        everything = to_image(to_numpy(answer)[0])

        def follow(pose, fixed, crop=crop, own=own, features=features, everything=everything):
            points, stays = everything.copy(), np.zeros(len(everything), bool)
            points[own], stays[own] = pose, fixed
            points = crop.image_to_input(points[None])[0]
            everything[:] = to_image(reverse(network, features, points, stays))
            return everything[own]

        first, true = everything[own].copy(), person.keypoints[seen]
        alone = clicks(first, true, alike, lambda pose, fixed: pose)
        counts.append((clicks(first, true, alike, follow), alone, len(seen), alike(first).mean() >= GOAL))
    with_model, alone, every, good = np.mean(counts, axis=0)
    return (
        f"{len(counts)} persons, {every:.1f} labelled joints each, {good:.2f} need no click\n"
        f"the others follow: {with_model:.2f} clicks a person, {with_model / every:.1%} of all joints\n"
        f"clicks alone:      {alone:.2f} clicks a person, {alone / every:.1%} of all joints"
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    print(measure(given[0], given[1], int(given[2]) if len(given) > 2 else None, load_network()))
