"""The persons of a video as JSON lines, one for each frame, written as they are found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffusionpose.errors import InputError
from diffusionpose.inference.video.following import Person
from diffusionpose.inference.video.frames import Frame


class FrameLines:
    """A file of JSON lines.

    A line that the file has already, from an interrupted run, stays as it is; from the first line that
    differs on, the file is written anew.

    Args:
        path: of the file.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.touch()
            self._file = path.open("r+b")
        except OSError as error:
            raise self._trouble(error) from error
        self._written = 0  # bytes that are right
        self._old = True  # whether there may be lines of an earlier run behind them

    def write(self, frame: Frame, persons: Sequence[Person]) -> None:
        """Add a line; it survives a kill of this process at once.

        Raises:
            InputError: the disk is full.
        """
        line = frame_line(frame, persons)
        try:
            if self._old and self._file.readline() != line:
                self._cut()
            if not self._old:
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            raise self._trouble(error) from error
        self._written += len(line)

    def finish(self) -> None:
        """Cut off what an earlier run left behind the last line."""
        self._cut()

    def close(self) -> None:
        """Let go of the file; it stays as it is."""
        self._file.close()

    def __enter__(self) -> FrameLines:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _cut(self) -> None:
        self._old = False
        self._file.seek(self._written)
        self._file.truncate()

    def _trouble(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: cannot be written ({error.strerror}); make room, or name another --output"
        )


def frame_line(frame: Frame, persons: Sequence[Person]) -> bytes:
    """``{"frame", "time", "persons": [{"id", "box", "score", "keypoints"}]}``; keypoints flat x, y, score."""
    entry = {
        "frame": frame.index,
        "time": round(frame.time, 6),
        "persons": [
            {
                "id": person.id,
                "box": person.pose.rounded_box,
                "score": round(person.pose.score, 4),
                "keypoints": person.pose.to_coco_result(0)["keypoints"],
            }
            for person in persons
        ],
    }
    return json.dumps(entry, allow_nan=False).encode() + b"\n"
