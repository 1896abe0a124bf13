"""A detector run over the pictures of a data set, for an evaluation that uses its boxes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from diffusionpose.app.output import write_json
from diffusionpose.errors import InputError

if TYPE_CHECKING:
    from diffusionpose.data.persons import Annotations
    from diffusionpose.inference.detectors import PersonDetector

# AP counts the surest persons first, so that many unsure ones cost it nothing but time.
LEAST_SCORE = 0.05


def write_detections(detector: PersonDetector, truth: Annotations, folder: Path, path: Path) -> list[str]:
    """Look for persons in the pictures of a data set, and write them as a COCO detection list.

    Args:
        detector: looks for them.
        truth: lists the pictures; its persons are not looked at.
        folder: that the file names are relative to.
        path: of the file to write.

    Returns:
        a message for each picture that cannot be read.

    Raises:
        InputError: the file cannot be written.
    """
    from diffusionpose.data.images import read_recorded_image
    from diffusionpose.inference.detectors import find_persons

    records, size = list(truth.images.values()), getattr(detector, "batch_size", 1)
    entries: list[dict[str, Any]] = []
    failures: list[str] = []
    with tqdm(total=len(records), unit=" pictures", desc="detector", disable=None, file=sys.stderr) as bar:
        for first in range(0, len(records), size):
            read = []
            for record in records[first : first + size]:
                try:
                    image = read_recorded_image(folder / record.file_name, record.width, record.height)
                    read.append((record, image))
                except InputError as error:
                    failures.append(str(error))
            found = find_persons(detector, [image for _, image in read])
            for (record, _), (boxes, scores) in zip(read, found, strict=True):
                for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
                    box = [round(number, 2) for number in (x0, y0, x1 - x0, y1 - y0)]
                    entry = {"image_id": record.id, "category_id": 1, "bbox": box, "score": round(score, 5)}
                    entries.append(entry)
            bar.update(len(records[first : first + size]))
    write_json(path, entries)
    return failures
