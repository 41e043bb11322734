"""Windows over a recording: one every few seconds, each of a span, at exact multiples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

from featurestore.audio import duration_s
from featurestore.errors import ConfigError

Ends = tuple[float, float]  # start and end of a piece, seconds
Progress = Callable[[float], None]  # the share of a recording that was read
LEAST_S = 0.05  # between two windows, or of one: two of an encoder's frames
SHORT_S = 0.5  # a last window below this, and below half a span, is left out
MICROSECOND = Decimal("1e-6")  # far below a sample


@dataclass(frozen=True)
class Windows:
    """Windows [k every, k every + span), k = 0, 1, ..., as far as a recording goes.

    The last one ends with the recording: it is the first that reaches the end. It is left out where less than half a
    span and less than SHORT_S are left for it, unless it is the only one.
    """

    every_s: Decimal
    span_s: Decimal

    @classmethod
    def of(cls, every_s: float | None, span_s: float | None) -> "Windows":
        """Return windows without gap or overlap where only one of the two is given; ConfigError for no such windows."""
        for option, value in (("--every", every_s), ("--span", span_s)):
            if value is not None and not (math.isfinite(value) and value >= LEAST_S):
                raise ConfigError(f"{option} {value:g}: expected seconds, at least {LEAST_S:g}.")
        every, span = (every_s or span_s), (span_s or every_s)
        if every is None or span is None:
            raise ConfigError("Windows need --every or --span, in seconds.")
        return cls(Decimal(repr(every)), Decimal(repr(span)))

    def ends(self, length_s: float) -> list[Ends]:
        """Return start and end of each window over so many seconds, without an end beyond them."""
        length = on_the_grid(length_s)
        ends = []
        for k in range(math.ceil(length / self.every_s)):
            start = k * self.every_s
            end = start + self.span_s
            if end < length:
                ends.append((float(start), float(end)))
                continue
            if k == 0 or end == length or length - start >= min(Decimal(str(SHORT_S)), self.span_s / 2):
                ends.append((float(start), float(length)))
            break
        return ends

    def of_file(self, path: Path, progress: Progress | None = None) -> list[Ends]:
        """Return the windows of a recording; AudioError for one that can't be decoded. progress: see `Speech`."""
        return self.ends(duration_s(path))


def on_the_grid(seconds: float) -> Decimal:
    """Return a time as whole microseconds, rounded down so that it never lies beyond a recording's end."""
    return Decimal(repr(seconds)).quantize(MICROSECOND, ROUND_FLOOR).normalize()
