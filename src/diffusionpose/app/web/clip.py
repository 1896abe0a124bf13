"""The tab for clips, without its layout: persons of a video's first seconds, followed in bounded time."""

import os
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from html import escape
from pathlib import Path

import numpy as np

from diffusionpose.app.options import counted
from diffusionpose.app.web.limits import FRAME_MEGAPIXELS, MILLION, MOST_FRAMES, MOST_IN_FRAME
from diffusionpose.app.web.picture import Handlers, Parts, best_of, new_folder, notice, shown
from diffusionpose.errors import InputError
from diffusionpose.runtime.boxes import Boxes
from diffusionpose.runtime.people import PersonDetector, WholeImage
from diffusionpose.runtime.video.following import VideoPoses
from diffusionpose.runtime.video.reading import VideoFile
from diffusionpose.runtime.video.writing import draw_video

WELCOME = f"Drop a video of people above. At most {MOST_FRAMES} frames are used."
LOADED = "Now follow the people."
NOTHING = "There is no video yet: drop one."
GONE = "This video was loaded long ago and is no longer kept: please load it again."
SHOWN_EVERY = 0.3  # seconds between two answers while a clip is at work
STARTS = '<progress></progress><p class="summary">Waiting for the first frame</p>'


class BestPersons(PersonDetector):
    """A detector that finds at most ``MOST_IN_FRAME`` persons; ``left_out``: whether there were others."""

    def __init__(self, detector: PersonDetector) -> None:
        self.detector = detector
        self.detect_every = detector.detect_every
        self.left_out = False

    def __call__(self, image: np.ndarray) -> Boxes:
        """Boxes (n, 4) and scores (n,), in the detector's order."""
        boxes, scores = self.detector(image)
        self.left_out |= len(boxes) > MOST_IN_FRAME
        kept = best_of(scores, MOST_IN_FRAME)
        return boxes[kept], scores[kept]


def load_clip(path: str | None) -> Parts:
    """A clip was loaded, or taken off (None): nothing of the one before stays."""
    return {"clip_notice": notice(LOADED if path else WELCOME), "clip_bar": "", **shown(False, "clip_")}


def run_clip(handlers: Handlers, path: str | None, steps: int, flip: bool, smooth: bool) -> Iterator[Parts]:
    """What the tab shows from the press of its button on; without a clip (None) that there is none."""
    if path is None or not Path(path).is_file():
        yield {"clip_notice": notice(NOTHING if path is None else GONE, alert=True)}
        return
    said = notice("Finding the poses, one frame after the other.")
    yield {"clip_bar": STARTS, "clip_notice": said, **shown(False, "clip_")}
    try:
        yield from follow(handlers, Path(path), steps, flip, smooth)
    except (InputError, OSError) as error:
        yield {"clip_notice": notice(handlers.reason(error), alert=True), "clip_bar": ""}


def follow(handlers: Handlers, path: Path, steps: int, flip: bool, smooth: bool) -> Generator[Parts]:
    """Find and follow the persons of a clip: how far it is, now and then, and what came of it.

    The results are in a new folder below that of the handlers, which is removed again where there are none:
    InputError for no clip that can be used, options that are out of range, or a full disk.
    """
    detector = BestPersons(handlers.estimator.detector)
    estimator = handlers.estimator_with(steps, flip, detector)
    whole = isinstance(detector.detector, WholeImage)
    pixels = int(min(handlers.limits.megapixels, FRAME_MEGAPIXELS) * MILLION)
    with ExitStack() as stack:
        source = stack.enter_context(VideoFile(path, MOST_FRAMES, max_pixels=pixels))
        place = new_folder(handlers.folder)
        unfinished = stack.enter_context(ExitStack())
        unfinished.callback(shutil.rmtree, place, ignore_errors=True)
        output, ids, count, last = place / f"{path.stem}.mp4", set(), 0, 0.0
        poses = VideoPoses(estimator, float(source.facts.rate), smooth=smooth)
        drawn = stack.enter_context(closing(draw_video(source, poses, output, boxes=not whole)))
        for frame, persons in drawn:
            ids |= {person.id for person in persons}
            count = frame.index + 1
            os.utime(place)  # what is at work is not old, and not swept away
            if time.monotonic() - last >= SHOWN_EVERY:
                yield {"clip_bar": progress_bar(count, max(count, source.facts.frames or 0))}
                last = time.monotonic()
        unfinished.pop_all()
        remarks = [
            *([f"At most {MOST_FRAMES} frames of a clip are used."] if count >= MOST_FRAMES else []),
            *(["No detector looks for persons, so each whole frame counts as one."] if whole else []),
            *([f"Of the persons in a frame the best {MOST_IN_FRAME} are used."] if detector.left_out else []),
            *(f"{problem.replace(source.name, path.name)}." for problem in source.problems),
        ]
        said = notice(f"{counted(count, 'frame')}, {counted(len(ids), 'person')}.")
        yield {
            "clip_notice": said + "".join(f'<p class="summary">{escape(remark)}</p>' for remark in remarks),
            "clip_bar": "",
            **shown(True, "clip_"),
            "clip_video": str(output),
            "clip_mp4": str(output),
            "clip_lines": str(output.with_suffix(".jsonl")),
        }


def progress_bar(done: int, total: int) -> str:
    """How far a clip is, in HTML."""
    bar = f'<progress value="{done}" max="{total}"></progress>'
    return f'{bar}<p class="summary">Frame {done} of {total}</p>'
