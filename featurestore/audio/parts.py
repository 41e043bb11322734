"""A file as parts that one decoder each reads from beginning to end."""

from dataclasses import dataclass

SNDFILE, FFMPEG, AMR = "libsndfile", "FFmpeg", "FFmpeg, frame by frame"


@dataclass(frozen=True)
class Part:
    """Bytes [start, stop) of a file (stop None: to its end), and what decodes them.

    n_samples: samples at the native rate that count, where the container states it (None: all that is decoded).
    head: what stands at the part's beginning instead of the file's own bytes, so that the decoder reads it.
    nameless: the decoder does not learn the file's name, since it would take any bytes for what the suffix says.
    seeks: the decoder gets to any sample exactly, without what lies before it.
    finite: samples are stored as integers, so that none can be NaN or infinite.
    n_least: fewer decoded samples mean that the file is cut or damaged.
    """

    decoder: str
    start: int = 0
    stop: int | None = None
    n_samples: int | None = None
    n_least: int = 0
    rate_hz: int = 0  # where it is known without decoding
    format: str = ""  # FFmpeg's demuxer, where the bytes don't tell
    head: bytes = b""
    nameless: bool = False
    seeks: bool = False
    finite: bool = False
    ended: bool = True  # False: the container's end mark may be missing

    @property
    def whole(self) -> bool:
        return self.start == 0 and self.stop is None and not self.head and not self.nameless


@dataclass(frozen=True)
class Layout:
    """A file's parts in order, and a reason where its samples are known to be cut."""

    parts: tuple[Part, ...]
    truncated: str = ""

    @property
    def finite(self) -> bool:
        return all(part.finite for part in self.parts)
