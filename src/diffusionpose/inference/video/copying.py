"""A drawn copy of a video and its lines: reading ahead, the network, drawing behind, each in its thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path

from diffusionpose.errors import InputError
from diffusionpose.inference import drawing
from diffusionpose.inference.engine import in_order
from diffusionpose.inference.video.following import Person
from diffusionpose.inference.video.frames import Frame, VideoSource
from diffusionpose.inference.video.lines import FrameLines
from diffusionpose.inference.video.posing import VideoPoses
from diffusionpose.inference.video.writing import VideoWriter
from diffusionpose.journal import Journal

Found = tuple[Frame, list[Person]]
OpenJournal = Callable[[], Journal] | None


def draw_video(
    source: VideoSource, poses: VideoPoses, output: Path, *, boxes: bool = True, journal: OpenJournal = None
) -> Generator[Found]:
    """Write OUT.mp4, the video with its poses drawn, and OUT.jsonl beside it.

    No file is made before the source has given a frame. Close the generator where it is not run to its end:
    the mp4 is discarded then, the lines stay.

    Args:
        source: of the frames, read once.
        poses: finds the persons.
        output: the .mp4 file, in a folder that is there.
        boxes: draw the persons' boxes, too.
        journal: opens what an interrupted run left; removed at the end. None to keep no journal.

    Yields:
        each frame and its persons, once they are on the disk; after the last, the files are finished.

    Raises:
        InputError: a source without frames, a journal of another job, or files that cannot be written.
    """
    with ExitStack() as stack:
        frames = stack.enter_context(_ahead(source))
        first = next(frames, None)
        if first is None:
            raise InputError(f"{source.name}: gives no frame; is it in use elsewhere?")
        kept = stack.enter_context(journal()) if journal else None
        lines = stack.enter_context(FrameLines(output.with_suffix(".jsonl")))
        video = stack.enter_context(VideoWriter(output, source.facts))
        found = poses(chain([first], frames), kept)
        for frame, persons in stack.enter_context(closing(in_order(partial(_draw, video, boxes), found))):
            lines.write(frame, persons)
            yield frame, persons
        video.finish(source.rest)
        lines.finish()
        if kept:
            kept.remove()


def _draw(video: VideoWriter, boxes: bool, found: Found) -> Found:
    """Draw a frame's poses, with their ids, and put it into the mp4."""
    frame, persons = found
    poses, ids = [person.pose for person in persons], [person.id for person in persons]
    video.write(drawing.draw_poses(frame.image, poses, boxes=boxes, ids=ids), frame.pts, frame.packets)
    return found


@contextmanager
def _ahead(source: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """The frames of a source, read in a thread a little before they are asked for."""
    frames = iter(source)
    with closing(in_order(lambda _: next(frames, None), repeat(None))) as read:
        yield (frame for frame in iter(partial(next, read), None) if frame is not None)
