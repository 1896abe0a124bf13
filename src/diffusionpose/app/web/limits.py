"""How much the page takes, keeps and answers, and for how long."""

from dataclasses import dataclass

MILLION = 1_000_000
FORM_BYTES = MILLION  # what an upload may have besides the file it carries
JSON_BYTES = 200_000  # the largest other body; parsed JSON takes some fifty times its length in memory
FREE_BYTES = 200 * MILLION  # of the disk are left to others
BLOCK_BYTES = 64_000  # a kept file counts as this much at least, so that their number is bounded as well
# what takes longer to come is dropped, and with it the room and the connection that it holds
UPLOAD_SECONDS, JSON_SECONDS = 600, 60
KEPT_SECONDS = 3600  # files and pictures of visitors live so long
SWEPT_SECONDS = 600  # and are looked through so often
MOST_CONNECTIONS = 400  # or requests at a time; uvicorn answers 503 beyond
SESSIONS = 64  # visitors whose pictures are kept in memory; the longest idle one goes first
WAITING_LINE = 32  # visitors in the queue before the next one is asked to come back later
MOST_PERSONS = 30  # in one picture: bounds the time and the memory that a visitor can ask for
MOST_IN_FRAME = 12  # persons of a clip
MOST_FRAMES = 300
FRAME_MEGAPIXELS = 9  # 4096 x 2160; the encoder holds some twenty frames, so pictures may be larger
MOST_STEPS = 5


@dataclass(frozen=True)
class Limits:
    """How large a file, a picture and all files that are kept at a time may be, in millions."""

    megabytes: int = 64
    megapixels: float = 50
    total_megabytes: int = 2000

    @property
    def file_bytes(self) -> int:
        """The largest file, bytes."""
        return self.megabytes * MILLION

    @property
    def total_bytes(self) -> int:
        """All files that are kept at a time, bytes."""
        return self.total_megabytes * MILLION
