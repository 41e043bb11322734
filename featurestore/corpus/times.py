"""Times in a table's cells, in whatever way they are written: seconds come out."""

import math
import re
from contextlib import suppress
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpus import arrow

CLOCK = re.compile(r"(?:(\d+) days? )?\+?(\d+):([0-5]\d):([0-5]\d(?:[.,]\d+)?)")
DAYS = re.compile(r"(\d+) days?")  # all that pandas writes of a column of whole days, such as one of zeros
N_DAY_S = 86_400
WORDS_OF_NOTHING = ("", "nat", "nan", "none", "null")


def seconds_of(column: pa.ChunkedArray) -> tuple[np.ndarray, list[int]]:
    """Return (N,) float64 seconds, NaN where empty, and the rows whose value is no time.

    Understood: numbers, decimal commas where no number has a point, `0 days 00:00:03.5`, `00:00:03.5`, Arrow durations.
    """
    if pa.types.is_duration(column.type):
        return np.asarray(pc.cast(pc.cast(column, pa.duration("ns")), pa.int64()).to_numpy(), np.float64) / 1e9, []
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64), []
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan), []
    if pa.types.is_string(column.type):
        with suppress(pa.ArrowInvalid):  # all at once where all are plain numbers: Arrow rounds as Python does
            return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64), []
    values = [time_of(text) for text in arrow.with_points(column.to_pylist())]
    bad = [row for row, value in enumerate(values) if value is None]
    return np.array([np.nan if value is None else value for value in values], np.float64), bad


def end_of(start_s: float, length_s: float) -> float:
    """Return start + length in seconds as their shortest decimals add up: 20.1 + 3.152 is 23.252.

    A sum of floats may be 23.252000000000002. The two differ by less than a nanosecond, so both stand at the same
    sample, unless the exact time lies halfway between two samples. NaN where one of the two is no finite number.
    """
    if not (math.isfinite(start_s) and math.isfinite(length_s)):
        return math.nan
    return float(Decimal(repr(float(start_s))) + Decimal(repr(float(length_s))))


def time_of(text: object) -> float | None:
    """Return seconds, NaN for nothing, None for what is not understood."""
    if text is None or (isinstance(text, str) and text.strip().casefold() in WORDS_OF_NOTHING):
        return float("nan")
    if clock := CLOCK.fullmatch(str(text).strip()):
        days, hours, minutes, seconds = clock.groups()
        whole_s = int(days or 0) * N_DAY_S + int(hours) * 3600 + int(minutes) * 60
        return float(whole_s + Decimal(seconds.replace(",", ".")))
    if days := DAYS.fullmatch(str(text).strip()):
        return float(int(days[1]) * N_DAY_S)
    try:
        return None if "_" in str(text) else float(str(text))  # Python reads 1_0 as ten
    except ValueError:
        return None
