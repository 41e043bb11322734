"""The columns that say which piece of its file an utterance is: many spellings in, `start_s` and `end_s` out."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpus import arrow

START, END = "start_s", "end_s"
# In this order: our own names first, then those of which no second meaning is known.
STARTS = (START, "start", "onset", "start_time", "begin", "begin_time", "start_sec", "start_seconds")
ENDS = (END, "end", "end_time", "end_sec", "end_seconds")
LENGTHS = ("duration", "duration_s", "dur")
OFFSET = "offset"  # an end beside an onset, a start beside a duration, else a description
# What looks like a place in a recording; where it isn't one of the above, it can't be passed over.
LIKE_A_PLACE = re.compile(
    r"(seg(ment)?_?|utt(erance)?_?|clip_?)?(start|begin|onset|end|stop)_?"
    r"(times?|sec|secs|seconds|s|ms|msec|millis\w*|us|ns|frames?|samples?|index|idx|pos|position|stamp|timestamp)?",
    re.IGNORECASE,
)
# Further names that say it where their values are times, and where nothing else says where the piece starts or ends.
_BEFORE, _AFTER = (
    r"((seg(ment)?|utt(erance)?|clip|audio|sample|frame|times?|ts|t)_?)?",
    r"(_?(in|times?|sec|secs|seconds|s|ms|msec|millis\w*|us|ns|frames?|samples?|index|idx|pos|position|offset|"
    r"stamp|timestamp|ts))*",
)
MAYBE_A_START = re.compile(f"{_BEFORE}(start|begin(ning)?|onset){_AFTER}")
MAYBE_AN_END = re.compile(f"{_BEFORE}(end|stop|finish){_AFTER}")
MAYBE_LENGTHS = ("length", "length_s", "len", "dur_s", "duration_ms", "duration_sec", "duration_seconds")
PAIRS = (("t0", "t1"), ("from", "to"), ("tmin", "tmax"), ("xmin", "xmax"), ("tier_xmin", "tier_xmax"))
PIXELS = ("ymin", "ymax")  # beside xmin and xmax: a place in a picture
# Two numbers, or a record with a start, under such a name: `timestamp: [0.5, 1.5]`.
MAYBE_BOTH = re.compile(r"(seg(ment)?s?|(time_?)?stamps?|times?|intervals?|spans?|chunks?)(_s)?")
TWO_VALUES = re.compile(r"[\[(]([^,]+),([^,]+)[\])]")
EPOCH = 1e9  # more than a recording has samples: a date, as seconds since 1970
CLOCK = re.compile(r"(?:(\d+) days? )?\+?(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")
DAYS = re.compile(r"(\d+) days?")  # all that pandas writes of a column of whole days, such as one of zeros
N_DAY_S = 86_400
WORDS_OF_NOTHING = ("", "nat", "nan", "none", "null")


def with_pieces(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return a table with columns start_s and end_s where it has such columns, and what is wrong with them.

    Understood: start_s, start, onset, start_time, begin; end_s, end, end_time; `duration` beside a start; `offset` as
    an end beside an onset and as a start beside a duration. Values are seconds, `0 days 00:00:03.5`, `00:00:03.5` or
    Arrow durations; an empty start is 0, an empty end the file's. Columns that were understood are replaced. A table
    without a path column has no pieces.
    """
    names = {name.casefold(): name for name in reversed(table.column_names)}
    if "path" not in table.column_names:
        return table, []
    start, end, length = (_first(names, known) for known in (STARTS, ENDS, LENGTHS))
    offset = names.get(OFFSET)
    if start is None and offset is not None and length is not None and end is None:
        start, offset = offset, None
    elif offset is not None and start is not None and start.casefold() == "onset" and end is None:
        end, offset = offset, None
    used = [name for name in (start, end) if name is not None]
    ours = START in used
    has_end = end is not None or (length is not None and (length != "duration_s" or start != START))
    strange = [
        name for name in table.column_names if LIKE_A_PLACE.fullmatch(name.replace(" ", "_")) and name not in used
    ]
    if not strange or ours:
        strange = _maybe_places(table, names, end, offset) if start is None else []
        strange += [] if has_end else _maybe_ends(table, names, start)
    if strange:
        beside = f" beside {', '.join(used)}" if used else ""
        return table, [
            f"columns {', '.join(map(repr, strange))}{beside} seem to say where in its file an utterance lies, but "
            f"aren't understood; expected {START} and {END} in seconds. Rename them to these, or, if they describe "
            "something else, to a name such as 'episode_start'"
        ]
    if start is None and end is None:
        return table, []
    if start is None and end != END:
        return table, [f"column {end!r} is an end without a start; expected {START}, too, or another name"]
    problems: list[str] = []
    starts = _seconds(table, start, problems) if start is not None else np.full(table.num_rows, np.nan)
    starts = np.where(np.isnan(starts), 0.0, starts)
    if end is not None:
        ends = _seconds(table, end, problems)
    elif has_end and length is not None:
        ends = starts + _seconds(table, length, problems)
    else:
        ends = np.full(table.num_rows, np.nan)
    if problems:
        return table, problems
    problems = _misplaced(starts, ends, start or START, end or length or END)
    for name in used:
        table = table.drop_columns([name])
    for name, values in ((START, starts), (END, ends)):
        table = table.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
    return table, problems


def with_own_ids(table: pa.Table) -> pa.Table:
    """Return a table in which pieces whose utterance ids repeat, such as their file's name, have ids with their ends.

    `call.wav` becomes `call.wav[0-3.5]`; a table without pieces, or with ids of their own, stays as it is.
    """
    with_ends, problems = with_pieces(table)
    if problems or START not in with_ends.column_names or "utterance_id" not in with_ends.column_names:
        return table
    keys = arrow.as_strings(with_ends.column("utterance_id")).to_pylist()
    if len(set(keys)) == len(keys):
        return table
    ends = zip(with_ends.column(START).to_pylist(), with_ends.column(END).to_pylist(), strict=True)
    named = [key if key is None else piece_id(key, *own) for key, own in zip(keys, ends, strict=True)]
    return table.set_column(table.column_names.index("utterance_id"), "utterance_id", pa.array(named, pa.string()))


def piece_id(key: str, start_s: float, end_s: float | None) -> str:
    """Return the id of a piece of the recording `key`: `call.wav[0-3.5]`, `call.wav[3.5-]` to the recording's end."""
    return f"{key}[{start_s:.12g}-{'' if end_s is None else f'{end_s:.12g}'}]"


def overlapping(paths: Sequence[str | None], starts_s: np.ndarray, ends_s: np.ndarray) -> list[str | None]:
    """Return (N,) a name for the stretch of a recording that overlapping pieces cover, with its ends, None for no path.

    ends_s: NaN for the file's end. Pieces that only touch don't overlap.
    """
    of_path: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        if path is not None:
            of_path.setdefault(path, []).append(row)
    named: list[str | None] = [None] * len(paths)
    ends = np.where(np.isnan(ends_s), np.inf, ends_s)
    for path, rows in of_path.items():
        rows.sort(key=lambda row: starts_s[row])
        stretch: list[int] = []
        reach = -np.inf
        for row in [*rows, -1]:
            if stretch and (row < 0 or starts_s[row] >= reach):
                name = f"{path} {starts_s[stretch[0]]:g} to {reach:g} s".replace(" inf s", " its end")
                whole = starts_s[stretch[0]] == 0 and reach == np.inf
                for member in stretch:
                    named[member] = path if whole else name
                stretch, reach = [], -np.inf
            if row >= 0:
                stretch.append(row)
                reach = max(reach, ends[row])
    return named


def same_or_overlapping(sounds: Sequence[str | None], places: Sequence[str | None]) -> list[str | None]:
    """Return (N,) one name for all that share a sound or a place, also by way of others; None for neither."""
    parent = list(range(len(sounds)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for names in (sounds, places):
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            if name is not None:
                parent[root(i)] = root(first.setdefault(name, i))
    return [
        None if sound is None and place is None else places[root(i)] or sounds[root(i)]
        for i, (sound, place) in enumerate(zip(sounds, places, strict=True))
    ]


def _maybe_places(table: pa.Table, names: dict[str, str], end: str | None, offset: str | None) -> list[str]:
    """Return columns that seem to say where a piece lies, or starts, by their names and values."""
    for name in table.column_names:
        if MAYBE_BOTH.fullmatch(_plain(name)) and _holds_pairs(table.column(name)):
            return [name]
    for pair in PAIRS if end is None else ():
        columns = [names[name] for name in pair if name in names]
        if len(columns) == len(pair) and not (pair == ("xmin", "xmax") and any(name in names for name in PIXELS)):
            starts, ends = (_times(table, name) for name in columns)
            if starts is not None and ends is not None and not np.any(ends <= starts):
                return columns
    starts_of = [offset] if offset is not None and _maybe_lengths(table, names) else []
    starts_of += [name for name in table.column_names if MAYBE_A_START.fullmatch(_plain(name))]
    return [name for name in starts_of if _times(table, name) is not None]


def _maybe_ends(table: pa.Table, names: dict[str, str], start: str | None) -> list[str]:
    """Return columns that seem to say where a piece ends, or beside a start how long it is, as `_maybe_places`."""
    ends = [name for name in table.column_names if MAYBE_AN_END.fullmatch(_plain(name)) and _is_length(table, name)]
    return ends + (_maybe_lengths(table, names) if start is not None else [])


def _maybe_lengths(table: pa.Table, names: dict[str, str]) -> list[str]:
    return [names[name] for name in MAYBE_LENGTHS if name in names and _is_length(table, names[name])]


def _plain(name: str) -> str:
    """Return a column's name in small letters, with _ for whatever else separates: start_s for `Start (s)`."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _times(table: pa.Table, name: str) -> np.ndarray | None:
    """Return (N,) a column's numbers, NaN where empty; None where they can't be times, whatever their unit."""
    problems: list[str] = []
    values = _seconds(table, name, problems)
    known = values[~np.isnan(values)]
    return values if not problems and len(known) and known.min() >= 0 and known.max() < EPOCH else None


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
    """Is it two numbers, or a record, that say from where to where a piece goes?"""
    if isinstance(value, dict):
        return any(MAYBE_A_START.fullmatch(_plain(name)) for name in value)
    if isinstance(value, str):
        value = found.groups() if (found := TWO_VALUES.fullmatch(value.strip())) else ()
    if not isinstance(value, Sequence) or len(value) != 2:
        return False
    low, high = map(_of_text, value)
    return low is not None and high is not None and 0 <= low < high


def _first(names: dict[str, str], known: Sequence[str]) -> str | None:
    return next((names[name] for name in known if name in names), None)


def _misplaced(starts: np.ndarray, ends: np.ndarray, start: str, end: str) -> list[str]:
    """Sentences on starts before the file and ends that are not behind their start."""
    problems = []
    early = np.flatnonzero((starts < 0) | np.isinf(starts)).tolist()
    if early:
        problems.append(arrow.listing(f"{start} must be at least 0", early, starts.tolist()))
    reversed_ = np.flatnonzero((ends <= starts) | np.isinf(ends)).tolist()
    if reversed_:
        shown = [f"{low:g} to {high:g}" for low, high in zip(starts, ends, strict=True)]
        problems.append(arrow.listing(f"{end} must lie behind {start}", reversed_, shown))
    return problems


def _seconds(table: pa.Table, name: str, problems: list[str]) -> np.ndarray:
    """(N,) float64 seconds of a column, NaN where empty."""
    column = table.column(name)
    if pa.types.is_duration(column.type):
        return np.asarray(pc.cast(pc.cast(column, pa.duration("ns")), pa.int64()).to_numpy(), np.float64) / 1e9
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), np.float64)
    if pa.types.is_null(column.type):
        return np.full(table.num_rows, np.nan)
    texts = column.to_pylist()
    values = [_of_text(text) for text in texts]
    bad = [row for row, value in enumerate(values) if value is None]
    if bad:
        problems.append(arrow.listing(f"column {name!r} is no time in seconds, nor `0 days 00:00:03.5`", bad, texts))
    return np.array([np.nan if value is None else value for value in values])


def _of_text(text: object) -> float | None:
    """Seconds, NaN for nothing, None for what is not understood."""
    if text is None or (isinstance(text, str) and text.strip().casefold() in WORDS_OF_NOTHING):
        return float("nan")
    if clock := CLOCK.fullmatch(str(text).strip()):
        days, hours, minutes, seconds = clock.groups()
        return int(days or 0) * N_DAY_S + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if days := DAYS.fullmatch(str(text).strip()):
        return float(int(days[1]) * N_DAY_S)
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value
