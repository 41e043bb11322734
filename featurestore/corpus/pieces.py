"""The columns that say which piece of its file an utterance is: many spellings in, `start_s` and `end_s` out."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from featurestore.corpus import arrow
from featurestore.corpus.strange_places import plain_name, strange_places
from featurestore.corpus.times import end_of, seconds_of

START, END = "start_s", "end_s"
# In this order: our own names first, then those of which no second meaning is known.
STARTS = (START, "start", "onset", "start_time", "begin", "begin_time", "start_sec", "start_seconds")
ENDS = (END, "end", "end_time", "end_sec", "end_seconds")
DURATION = "duration_s"
LENGTHS = ("duration", DURATION, "dur")
OFFSET = "offset"  # an end beside an onset, a start beside a duration, else a description
SLACK_S = 0.05  # by which two columns of one time differ, rounded


def with_pieces(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return a table with columns start_s and end_s where it has such columns, and what is wrong with them.

    Understood: start_s, start, onset, start_time, begin; end_s, end, end_time, in any spelling of their blanks and case
    (`Start (s)`, `End time`); `duration` beside a start; `offset` as an end beside an onset and as a start beside a
    duration. Values are seconds, `0 days 00:00:03.5`, `00:00:03.5` or Arrow durations; an empty start is 0, an empty
    end the file's. Columns that were understood are replaced. A table without a path column has no pieces.
    """
    names = {plain_name(name): name for name in reversed(table.column_names)}
    names |= {name.casefold(): name for name in reversed(table.column_names)}
    if "path" not in table.column_names:
        return table, []
    start, end, length = (_first(names, known) for known in (STARTS, ENDS, LENGTHS))
    offset = names.get(OFFSET)
    if start is None and offset is not None and length is not None and end is None:
        start, offset = offset, None
    elif offset is not None and start is not None and plain_name(start) == "onset" and end is None:
        end, offset = offset, None
    used = [name for name in (start, end) if name is not None]
    ours = START in used
    has_end = end is not None or length is not None
    strange = strange_places(table, used, ends_known=has_end, ours=ours, offset=offset)
    if strange:
        beside = f" beside {', '.join(used)}" if used else ""
        return table, [
            f"columns {', '.join(map(repr, strange))}{beside} seem to say where in its file an utterance lies, but "
            f"aren't understood; expected {START} and {END} in seconds. Rename them to these (prepare csv: --column "
            f"{START}=YOURS), or, if they describe something else, to a name such as 'episode_start'"
        ]
    if start is None and end is None:
        return table, []
    if start is None and end != END:
        return table, [f"column {end!r} is an end without a start; expected {START}, too, or another name"]
    problems: list[str] = []
    if start is None and length is not None and end is not None and _differ(table, end, length):
        return table, [f"columns {end!r} and {length!r} are an end and another length, without a start; add {START}"]
    if (
        start is not None
        and end is not None
        and length is not None
        and (why := _disagreeing(table, start, end, length))
    ):
        return table, [why]
    starts = _seconds(table, start, problems) if start is not None else np.full(table.num_rows, np.nan)
    starts = np.where(np.isnan(starts), 0.0, starts)
    if end is not None:
        ends = _seconds(table, end, problems)
    elif length is not None:
        lengths = _seconds(table, length, problems)
        ends = np.array([end_of(*times) for times in zip(starts, lengths, strict=True)], np.float64)
    else:
        ends = np.full(table.num_rows, np.nan)
    if problems:
        return table, problems
    problems = _misplaced(starts, ends, start or START, end or length or END)
    for name in used:
        table = table.drop_columns([name])
    for name, values in ((START, starts), (END, ends)):
        table = table.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
    return _with_lengths_of_pieces(table, starts, ends), problems


def _with_lengths_of_pieces(table: pa.Table, starts: np.ndarray, ends: np.ndarray) -> pa.Table:
    """Return the table with `duration_s` of the pieces, where it has that of their files or none.

    A piece to its file's end that doesn't begin with the file has none, since nobody knows of what the column's is.
    """
    if DURATION not in table.column_names:
        return table
    lengths, bad = seconds_of(table.column(DURATION))
    if bad:  # which is named as any number that is none
        return table
    known = np.where(starts > 0, np.nan, lengths)
    of_pieces = np.where(np.isnan(ends), known, np.round(ends - starts, 9))
    kept = np.abs(of_pieces - lengths) <= SLACK_S
    if np.all(kept | (np.isnan(of_pieces) & np.isnan(lengths))):
        return table
    values = pa.array(np.where(kept, lengths, of_pieces), pa.float64(), from_pandas=True)
    return table.set_column(table.column_names.index(DURATION), DURATION, values)


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


def _differ(table: pa.Table, first: str, second: str) -> bool:
    """Whether two columns hold other times; what can't be read is none."""
    low, high = (_seconds(table, name, []) for name in (first, second))
    return bool(np.any(np.abs(low - high) > SLACK_S))


def _disagreeing(table: pa.Table, start: str, end: str, length: str) -> str:
    """Return the problem where an end isn't start plus length, "" where there is none.

    A length that is one for all pieces of a file and no less than their ends is the file's, and not compared.
    """
    if length.casefold() == DURATION:  # what readers here write of files
        return ""
    low, high, long = (_seconds(table, name, []) for name in (start, end, length))
    wrong = np.flatnonzero(np.abs(np.nan_to_num(low) + long - high) > SLACK_S).tolist()
    if not wrong:
        return ""
    paths = arrow.as_strings(table.column("path")).to_pylist()
    of_file: dict[str | None, float] = {}
    if all(of_file.setdefault(path, n) == n and n + SLACK_S >= e for path, n, e in zip(paths, long, high, strict=True)):
        return ""
    shown = [f"{a:g} + {n:g} is not {b:g}" for a, n, b in zip(low, long, high, strict=True)]
    return arrow.listing(f"{start!r} and {length!r} say another end than {end!r}: remove one", wrong, shown)


def _first(names: dict[str, str], spellings: Sequence[str]) -> str | None:
    return next((names[name] for name in spellings if name in names), None)


def _misplaced(starts: np.ndarray, ends: np.ndarray, start: str, end: str) -> list[str]:
    """Return the sentences on starts before the file and ends that are not behind their start."""
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
    """Return (N,) float64 seconds of a column, NaN where empty; what is no time is added to the problems."""
    values, bad = seconds_of(table.column(name))
    if bad:
        message = f"column {name!r} is no time in seconds, nor `0 days 00:00:03.5`"
        problems.append(arrow.listing(message, bad, table.column(name).to_pylist()))
    return values
