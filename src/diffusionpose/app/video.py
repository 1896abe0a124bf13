"""``diffusionpose video``: poses with identities in a video, drawn and as JSON lines."""

import re
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from diffusionpose.app.options import (
    BOXES_OR_DETECTOR,
    Boxes,
    PoseOptions,
    counted,
    make_folder,
    refuse,
    say,
    stamp,
)
from diffusionpose.errors import InputError, write_file
from diffusionpose.journal import Journal
from diffusionpose.poses import write_csv
from diffusionpose.runtime.boxes import PeopleFile
from diffusionpose.runtime.estimator import PoseEstimator
from diffusionpose.runtime.people import WholeImage
from diffusionpose.runtime.video.following import FrameResult, VideoPoses
from diffusionpose.runtime.video.reading import VideoSource, check_extra, open_video
from diffusionpose.runtime.video.writing import draw_video, line_rows


@dataclass(frozen=True)
class VideoCommand:
    """Find the poses of the people in videos, and follow each person through them.

    Writes OUT.mp4, the video with its poses drawn (its times and its sound stay as they are), and
    OUT.jsonl beside it, one line a frame: {"frame", "time", "persons": [{"id", "box", "score",
    "keypoints"}], "joints"}, the keypoints as x, y, score of each of the joints; of a calibrated model their
    confidence as well (docs/confidence.md). Lines are written as they
    are found; the same command again goes on where an interrupted one stopped. Frames that cannot be
    decoded leave a gap in the numbers and are reported, and the exit status is then 1.

    IN may be a camera (0, /dev/video0, or video=NAME on Windows) or a stream (rtsp://..., http://...); Ctrl-C
    ends the recording. Needs the extra: pip install 'diffusionpose[video]'.
    """

    sources: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="IN...", help_behavior_hint="")]
    ]
    """Video files, a camera or a stream."""
    output: Annotated[Path, tyro.conf.arg(metavar="OUT.mp4")]
    """The video to write; or a folder, for the results of several, each with its own name."""
    detect_every: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 1)")] = None
    """The detector looks at every N-th frame; in between, persons are followed by their poses."""
    boxes: Boxes = None
    """Person boxes of some frames, {"0": [[x0, y0, x1, y1], ...], "30": ...}; followed in between."""
    smooth: bool = True
    """Smooth the joints over time, the less sure ones more, and bridge moments in which they are not seen."""
    from_last: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start the diffusion at a person's last pose instead of the coarse heatmaps."""
    csv: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write OUT.csv, too: a row for each frame, person and joint."""
    max_frames: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: all)")] = None
    """Stop after so many frames."""
    options: Annotated[PoseOptions, tyro.conf.arg(name="")] = field(default_factory=PoseOptions)

    def run(self) -> int:
        """Find, follow, draw, write; 0 if all of every video could be used."""
        outputs = self._outputs()
        self._check(outputs)
        check_extra()
        boxes = None if self.boxes is None else PeopleFile(self.boxes)
        for message in boxes.problems if boxes else ():
            say(message)
        estimator: PoseEstimator | None = None
        failed = bool(boxes and boxes.problems)
        for name, output in zip(self.sources, outputs, strict=True):
            try:
                with open_video(name, self.max_frames) as source:
                    estimator = estimator or self.options.make(detect=not self.boxes)
                    failed |= _Job(self, output, source, estimator, boxes).run()
            except InputError as error:
                if len(self.sources) == 1:
                    raise
                say(str(error))
                failed = True
        return int(failed)

    def _outputs(self) -> list[Path]:
        """The mp4 of each source."""
        if not self.sources:
            raise InputError("video: name at least one video file, camera or stream (--help explains)")
        named, folder = self.output.suffix.lower() == ".mp4", self.output.is_dir()
        if len(self.sources) == 1 and named and not folder:
            return [self.output]
        if named or (self.output.suffix and not folder):
            raise InputError(f"--output {self.output}: name an .mp4 file for one video, a folder for several")
        stems = [re.sub(r"[^\w.-]+", "_", Path(name).stem) or "video" for name in self.sources]
        wanted, taken = {stem.lower() for stem in stems}, set[str]()
        outputs = []
        for stem in stems:
            if stem.lower() in taken:
                copies = (f"{stem}_{number}" for number in count(2))
                stem = next(copy for copy in copies if copy.lower() not in taken | wanted)
            taken.add(stem.lower())
            outputs.append(self.output / f"{stem}.mp4")
        return outputs

    def files(self, output: Path) -> list[Path]:
        """All that is written for an mp4 of :meth:`_outputs`."""
        suffixes = (".jsonl", ".csv") if self.csv else (".jsonl",)
        return [output, *(output.with_suffix(suffix) for suffix in suffixes)]

    def _check(self, outputs: list[Path]) -> None:
        """InputError where results could not be written, or an option makes no sense."""
        numbers = {"detect-every": self.detect_every, "max-frames": self.max_frames}
        refuse(
            (self.boxes and self.options.detector != "auto", BOXES_OR_DETECTOR),
            (self.boxes and len(self.sources) > 1, "--boxes: are of one video; give them one by one"),
            *((n is not None and n < 1, f"--{name} {n}: must be 1 or more") for name, n in numbers.items()),
        )
        inputs = {Path(source): "the video itself" for source in self.sources}
        if self.boxes:
            inputs[self.boxes] = "the file of --boxes"
        for file in (file for output in outputs for file in self.files(output)):
            for path, what in inputs.items():
                if file.exists() and path.exists() and file.samefile(path):
                    raise InputError(f"--output {file}: is {what}; name another")
        make_folder(outputs[0].parent)


@dataclass(frozen=True)
class _Job:
    """One run over one video."""

    command: VideoCommand
    output: Path
    source: VideoSource
    estimator: PoseEstimator
    boxes: PeopleFile | None

    def run(self) -> bool:
        """Find, follow, draw, write; whether something was wrong."""
        start, count, last = time.perf_counter(), 0, -1
        ids: set[int] = set()
        with (
            _stopping(self.source),
            closing(self._written()) as written,
            tqdm(written, total=self.source.facts.frames, unit="frame", disable=None) as bar,
        ):
            for frame, persons in bar:
                ids.update(person.id for person in persons)
                count, last = count + 1, frame.index
        files = self.command.files(self.output)
        if self.command.csv:
            rows = line_rows(files[1], Path(self.source.name).name)
            write_file(files[2], lambda part: write_csv(part, rows))
        seconds = time.perf_counter() - start
        print(
            f"{counted(count, 'frame')}, {counted(len(ids), 'person')}, {seconds:.1f} s "
            f"({count / seconds:.1f} frames/s): {', '.join(map(str, files))}"
        )
        problems = list(self.source.problems)
        if self.boxes is not None and count != self.command.max_frames:
            others = sorted(self.boxes.frames() - set(range(last + 1)))
            if others:
                such = f"({len(others)} such entries)"
                problems.append(f"{self.boxes.path}: the video has no frame {others[0]} {such}")
        for problem in problems:
            say(problem)
        return bool(problems)

    def _written(self) -> Generator[FrameResult]:
        """Each frame and its persons, once they are on the disk; after the last, the files are finished."""
        command = self.command
        if self.boxes is not None and not self.boxes.frames():
            raise InputError(f'{self.boxes.path}: names no frame; give frames by number, {{"0": [[...]]}}')
        poses = VideoPoses(
            self.estimator,
            float(self.source.facts.rate),
            detect_every=command.detect_every,
            boxes=self.boxes,
            smooth=command.smooth,
            from_last=command.from_last,
        )
        boxes = self.boxes is not None or not isinstance(self.estimator.detector, WholeImage)
        journal = None if self.source.live else self._journal
        return draw_video(self.source, poses, self.output, boxes=boxes, journal=journal)

    def _journal(self) -> Journal:
        """What an interrupted run of this command left, or a new one."""
        command, path = self.command, self.output.with_name(f".{self.output.name}.journal")
        names = ("detect_every", "smooth", "from_last", "max_frames")
        job = {
            **command.options.identity(command.boxes, self.estimator),
            **{name: getattr(command, name) for name in names},
            "video": stamp(self.source.name),
            "batch_size": self.estimator.batch_size,
        }
        return Journal(path, job)


@contextmanager
def _stopping(source: VideoSource) -> Iterator[None]:
    """Let Ctrl-C end a live recording, once; a second one stops the program as usual."""
    if not source.live:
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        source.stop()

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
