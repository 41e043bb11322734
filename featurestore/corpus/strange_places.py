"""Columns that seem to say where in its file an utterance lies, but aren't understood: they can't be passed over.

A whole file in place of a piece of it would be the wrong audio without a word. Names decide where they have no second
meaning (`start_ms`), names and values where they have: `from` and `to` that hold no times are kept as they are.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.corpus import arrow
from featurestore.corpus.times import seconds_of, time_of

LIKE_A_PLACE = re.compile(
    r"(seg(ment)?_?|utt(erance)?_?|clip_?)?(start|begin|onset|end|stop)_?"
    r"(times?|sec|secs|seconds|s|ms|msec|millis\w*|us|ns|frames?|samples?|index|idx|pos|position|stamp|timestamp)?",
    re.IGNORECASE,
)
_BEFORE, _AFTER = (
    r"((seg(ment)?|utt(erance)?|clip|cue|audio|sample|frame|times?|ts|t)_?)?",
    r"(_?(in|times?|hh|mm|ss|hms|h|hrs?|hours?|m|mins?|minutes?|sec|secs|seconds|s|ms|msec|millis\w*|us|ns|frames?|"
    r"samples?|index|idx|pos|position|offset|stamp|timestamp|ts))*",
)
MAYBE_A_START = re.compile(f"{_BEFORE}(start|begin(ning)?|beg|onset){_AFTER}")
MAYBE_AN_END = re.compile(f"{_BEFORE}(end|stop|finish){_AFTER}")
MAYBE_AN_OFFSET = re.compile(f"{_BEFORE}offset{_AFTER}")
MAYBE_A_LENGTH = re.compile(
    rf"((num|n)_?(frames|samples))|{_BEFORE}(length|len|dur)(_s)?|{_BEFORE}(length|len|dur|duration)_?"
    r"(sec|secs|seconds|ms|msec|millis\w*|us|ns|frames|samples|mins?|minutes)"
)
# Pairs of names that say it only together, each with a unit or not: t0 and t1, from_s and to_s, cue_in and cue_out.
PAIRS = (
    ("t0", "t1"), ("t1", "t2"), ("ts", "te"), ("tb", "te"), ("st", "et"), ("from", "to"), ("in", "out"), ("beg", "fin"),
    ("tmin", "tmax"), ("xmin", "xmax"), ("tier_xmin", "tier_xmax"), ("debut", "fin"), ("inicio", "fin"),
    ("anfang", "ende"), ("von", "bis"),
)  # fmt: skip
PIXELS = ("ymin", "ymax")  # beside xmin and xmax: a place in a picture
# Two times, or a record with a start, under such a name: `timestamp: [0.5, 1.5]`, `0:00:01 --> 0:00:02`.
MAYBE_BOTH = re.compile(r"(seg(ment)?s?|(time_?)?stamps?|times?|intervals?|spans?|chunks?)(_s)?")
TWO_VALUES = re.compile(r"[\[(]?\s*([^,\s]+?)\s*(?:,|-->|\bto\b|[-_–])\s*([^,\s]+?)\s*[\])]?")
PLAIN_NUMBERS = re.compile(r"\d+\s*[-_–]\s*\d+")  # may be anything: a range of pages, of years
EPOCH = 1e9  # more than a recording has samples: a date, as seconds since 1970
# Hours or minutes of a time whose seconds stand in another column.
PARTS = {
    "h|hrs?|hours?": 3600.0,
    "m|mins?|minutes?": 60.0,
}


def strange_places(
    table: pa.Table, used: Sequence[str], *, ends_known: bool, ours: bool, offset: str | None
) -> list[str]:
    """Return the columns of a table that seem to say where its pieces lie, beside those that are understood.

    used: the columns understood as start and end; ours: one of them is named start_s; ends_known: so is an end or a
    length. offset: a column of that name which is neither.
    """
    if parts := _parts_of_times(table, used):
        return parts
    names = {plain_name(name): name for name in reversed(table.column_names) if name not in used}
    strange = [
        name for name in table.column_names if LIKE_A_PLACE.fullmatch(name.replace(" ", "_")) and name not in used
    ]
    if strange and not ours:
        return strange
    start = next((name for name in used if not MAYBE_AN_END.fullmatch(plain_name(name))), None)
    end_known = len(used) > (start is not None)
    maybe_starts = _maybe_places(table, names, end_known=end_known, offset=offset) if start is None else []
    return maybe_starts + ([] if ends_known else _maybe_ends(table, names, beside_start=start is not None))


def _parts_of_times(table: pa.Table, used: Sequence[str]) -> list[str]:
    """Return columns of hours or minutes that belong to a column of seconds, unless they say the same in their unit."""
    strange = []
    for name in table.column_names:
        for unit, unit_s in PARTS.items():
            for of, word in zip(used, ("start|begin|beg|onset", "end|stop|finish"), strict=False):
                if name in used or not re.fullmatch(f"{_BEFORE}({word})_?(time)?_?({unit})", plain_name(name)):
                    continue
                seconds, values = seconds_of(table.column(of))[0], _times(table, name)
                if values is not None and np.any(values > 0) and not np.allclose(values * unit_s, seconds, rtol=0.02):
                    strange.append(name)
    return strange


def _maybe_places(table: pa.Table, names: dict[str, str], *, end_known: bool, offset: str | None) -> list[str]:
    """Return columns that seem to say where a piece lies, or starts, by their names and values."""
    for plain, name in names.items():
        if MAYBE_BOTH.fullmatch(plain) and _holds_pairs(table.column(name)):
            return [name]
    for pair in PAIRS if not end_known else ():
        columns = [
            next((name for plain, name in names.items() if re.fullmatch(f"{_BEFORE}{word}{_AFTER}", plain)), None)
            for word in pair
        ]
        if None in columns or (pair == ("xmin", "xmax") and any(name in names for name in PIXELS)):
            continue
        low, high = (_times(table, str(name)) for name in columns)
        if low is not None and high is not None and not np.any(high <= low):
            return [str(name) for name in columns]
    offsets = [offset] if offset is not None else []
    offsets += [name for plain, name in names.items() if MAYBE_AN_OFFSET.fullmatch(plain) and name != offset]
    starts = offsets if _maybe_lengths(table, names, beside_offset=True) else []
    starts += [name for plain, name in names.items() if MAYBE_A_START.fullmatch(plain)]
    return [name for name in starts if _times(table, name) is not None]


def _maybe_ends(table: pa.Table, names: dict[str, str], *, beside_start: bool) -> list[str]:
    """Return columns that seem to say where a piece ends, or beside a start how long it is, as `_maybe_places`."""
    ends = [name for plain, name in names.items() if MAYBE_AN_END.fullmatch(plain) and _is_length(table, name)]
    return ends + (_maybe_lengths(table, names) if beside_start else [])


def _maybe_lengths(table: pa.Table, names: dict[str, str], *, beside_offset: bool = False) -> list[str]:
    plain_ones = ("duration", "duration_s", "dur") if beside_offset else ()
    return [
        name for plain, name in names.items()
        if (MAYBE_A_LENGTH.fullmatch(plain) or plain in plain_ones) and _is_length(table, name)
    ]  # fmt: skip


def plain_name(name: str) -> str:
    """Return a column's name in small letters, with _ for whatever else separates: start_s for `Start (s)`."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _times(table: pa.Table, name: str) -> np.ndarray | None:
    """Return (N,) a column's numbers, NaN where empty; None where they can't be times, whatever their unit."""
    values, bad = seconds_of(table.column(name))
    times = values[~np.isnan(values)]
    return values if not bad and len(times) and times.min() >= 0 and times.max() < EPOCH else None


def _is_length(table: pa.Table, name: str) -> bool:
    """Can a column be ends or lengths? They are above 0, and not the number of letters or words of the texts."""
    values = _times(table, name)
    if values is None or np.any(values == 0):
        return False
    if "text" not in table.column_names:
        return True
    texts = [text or "" for text in arrow.as_strings(table.column("text")).to_pylist()]
    counts = ([len(text) for text in texts], [len(text.split()) for text in texts])
    return not any(values.tolist() == count for count in counts)


def _holds_pairs(column: pa.ChunkedArray) -> bool:
    values = [value for value in column.to_pylist() if value not in (None, "")]
    return bool(values) and all(map(_is_pair, values))


def _is_pair(value: Any) -> bool:
    """Return whether a value is two numbers, or a record, that could be the ends of a piece."""
    if isinstance(value, dict):
        return any(
            MAYBE_A_START.fullmatch(plain_name(name)) or re.fullmatch(f"(from|t0|in){_AFTER}", plain_name(name))
            for name in value
        )
    if isinstance(value, str):
        text = value.strip()
        value = match.groups() if (match := TWO_VALUES.fullmatch(text)) and not PLAIN_NUMBERS.fullmatch(text) else ()
    if not isinstance(value, Sequence) or len(value) != 2:
        return False
    low, high = map(time_of, value)
    return low is not None and high is not None and 0 <= low < high
