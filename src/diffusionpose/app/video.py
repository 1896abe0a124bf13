"""``diffusionpose video``: poses with identities in a video, drawn and as JSON lines."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm

from diffusionpose.app.options import (
    BatchSize,
    BoxScore,
    Decode,
    Detector,
    Device,
    Flip,
    Steps,
    Weights,
    ends_digest,
    file_digest,
    make_folder,
    say,
    weights_stamp,
)
from diffusionpose.app.predict import BY_DETECTOR
from diffusionpose.errors import InputError
from diffusionpose.journal import Journal

if TYPE_CHECKING:
    from diffusionpose.runtime.boxes import PeopleFile
    from diffusionpose.runtime.estimator import PoseEstimator
    from diffusionpose.runtime.video.following import Person
    from diffusionpose.runtime.video.reading import Camera, Frame, VideoFile


@dataclass(frozen=True)
class VideoCommand:
    """Find the poses of the people in a video, and follow each person through it.

    Writes OUT.mp4, the video with its poses drawn (its times and its sound stay as they are), and
    OUT.jsonl beside it, one line a frame: {"frame", "time", "persons": [{"id", "box", "score",
    "keypoints"}]}, the keypoints as x, y, score of each joint. Lines are written as they are found; the
    same command again goes on where an interrupted one stopped. Frames that cannot be decoded are left
    out and reported, and the exit status is then 1.

    IN may be a camera: 0, /dev/video0, or video=NAME on Windows; Ctrl-C ends the recording.
    Needs the extra: pip install 'diffusionpose[video]'.
    """

    source: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="IN")]]
    """A video file, or a camera."""
    output: Annotated[Path, tyro.conf.arg(metavar="OUT.mp4")]
    """The video to write; OUT.jsonl is written beside it."""
    detector: Detector = "auto"
    box_score: BoxScore = 0.3
    detect_every: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """The detector looks at every N-th frame; in between, persons are followed by their poses."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=BY_DETECTOR)] = None
    """Person boxes of some frames, {"0": [[x0, y0, x1, y1], ...], "30": ...}; followed in between."""
    smooth: bool = True
    """Smooth the joints over time: less jitter, hardly any delay."""
    from_last: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start the diffusion at a person's last pose instead of the coarse heatmaps."""
    max_frames: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: all)")] = None
    """Stop after so many frames."""
    weights: Weights = None
    steps: Steps = None
    decode: Decode = "dark"
    flip: Flip = True
    device: Device = "auto"
    batch_size: BatchSize = None

    def run(self) -> int:
        """Find, follow, draw, write; 0 if the whole video could be used."""
        self._check()
        from diffusionpose.app.options import EstimatorOptions
        from diffusionpose.runtime.boxes import PeopleFile

        with ExitStack() as stack:
            source = self._open_source()
            stack.callback(source.close)
            boxes = None if self.boxes is None else PeopleFile(self.boxes)
            return _Job(self, source, EstimatorOptions.of(self).make(say), boxes).run()

    def _check(self) -> None:
        """InputError where results could not be written, or an option makes no sense."""
        if self.output.suffix.lower() != ".mp4" or self.output.is_dir():
            raise InputError(f"--output {self.output}: name an .mp4 file")
        if self.boxes and self.detector != "auto":
            raise InputError("--boxes and --detector exclude each other; leave one out")
        if self.detect_every is not None and self.detect_every < 1:
            raise InputError(f"--detect-every {self.detect_every}: must be 1 (each frame) or more")
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"--max-frames {self.max_frames}: must be 1 or more")
        if Path(self.source).resolve() == self.output.resolve():
            raise InputError(f"--output {self.output}: is the video itself; name another")
        make_folder(self.output.parent)

    def _open_source(self) -> VideoFile | Camera:
        from diffusionpose.runtime.video.reading import Camera, VideoFile, is_camera

        if is_camera(self.source) and not Path(self.source).is_file():
            return Camera(self.source, self.max_frames)
        return VideoFile(Path(self.source), self.max_frames)

    def identity(self, estimator: PoseEstimator) -> dict[str, Any]:
        """All that decides what is found in a frame, for the journal."""
        from diffusionpose import __version__

        options = ("detect_every", "smooth", "from_last", "max_frames", "steps", "decode", "flip")
        return {
            "version": __version__,
            "video": ends_digest(Path(self.source)),
            "weights": weights_stamp(self.weights),
            "boxes": file_digest(self.boxes)
            if self.boxes
            else [estimator.detector.identity(), self.box_score],
            "batch_size": estimator.batch_size,
            **{name: getattr(self, name) for name in options},
        }


class _Job:
    """One run over a video."""

    def __init__(
        self,
        command: VideoCommand,
        source: VideoFile | Camera,
        estimator: PoseEstimator,
        boxes: PeopleFile | None,
    ) -> None:
        self.command = command
        self.source = source
        self.estimator = estimator
        self.boxes = boxes
        self.ids: set[int] = set()

    def run(self) -> int:
        """Find, follow, draw, write."""
        start, count = time.perf_counter(), 0
        with (
            _stopping(self.source),
            closing(self._written()) as written,
            tqdm(written, total=self.source.facts.frames, unit="frame", disable=None) as bar,
        ):
            for frame, persons in bar:
                self.ids.update(person.id for person in persons)
                count = frame.index + 1
        seconds, output = time.perf_counter() - start, self.command.output
        print(
            f"{count} frames, {len(self.ids)} persons, {seconds:.1f} s ({count / seconds:.1f} frames/s): "
            f"{output}, {output.with_suffix('.jsonl')}"
        )
        for problem in self.source.problems:
            say(problem)
        return 1 if self.source.problems else 0

    def _written(self) -> Generator[tuple[Frame, list[Person]]]:
        """Each frame and its persons, once they are on the disk; after the last, the files are finished."""
        from diffusionpose.runtime.people import WholeImage
        from diffusionpose.runtime.video.posing import VideoPoses
        from diffusionpose.runtime.video.writing import draw_video

        command = self.command
        poses = VideoPoses(
            self.estimator,
            float(self.source.facts.rate),
            detect_every=command.detect_every,
            boxes=self.boxes,
            smooth=command.smooth,
            from_last=command.from_last,
        )
        boxes = bool(self.boxes) or not isinstance(self.estimator.detector, WholeImage)
        journal = None if self.source.live else self._journal
        return draw_video(self.source, poses, command.output, boxes=boxes, journal=journal)

    def _journal(self) -> Journal:
        """What an interrupted run of this command left, or a new one."""
        path = self.command.output.with_name(f".{self.command.output.name}.journal")
        return Journal(path, self.command.identity(self.estimator))


@contextmanager
def _stopping(source: VideoFile | Camera) -> Iterator[None]:
    """Let Ctrl-C end a camera's recording, once; a second one stops the program as usual."""
    stop = getattr(source, "stop", None)
    if stop is None:
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
