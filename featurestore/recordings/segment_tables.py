"""Tables of segments that people have: CSV and Parquet, RTTM (NIST), and label files of Audacity."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from featurestore.corpus import arrow
from featurestore.corpus.pieces import END, START, with_pieces
from featurestore.corpus.tables import read_table_file
from featurestore.corpus.times import end_of
from featurestore.errors import ManifestError

# Of the column that names a row's recording, in this order.
RECORDING = ("path", "file", "recording", "file_name", "filename", "audio", "wav", "uri")
RTTM, AUDACITY = ".rttm", ".txt"
SEGMENT_TABLES = (".csv", ".tsv", ".parquet", RTTM, AUDACITY)
RTTM_FIELDS = 9  # at least; a tenth, the look-ahead, came later
TURN = "SPEAKER"  # the one type of RTTM that is a stretch of somebody's speech


class SegmentTable(NamedTuple):
    """Segments of recordings by row, and notes on rows left out.

    Columns: `path` (the recording as the table names it; no such column where it names none), start_s, end_s (seconds;
    empty: the recording's end), and the table's other columns.
    """

    table: pa.Table
    notes: list[str]


def read_segments(path: Path) -> SegmentTable:
    """Read a table of segments; ManifestError names the line or column that can't be read.

    A CSV or Parquet needs a start and an end (see `with_pieces`), and one of the columns RECORDING unless it is of a
    single recording. RTTM: the rows of type SPEAKER; the name becomes `speaker`. Audacity: the label becomes
    `annotation`. Marks without length are left out.
    """
    suffix = path.suffix.lower()
    if suffix not in SEGMENT_TABLES:
        raise ManifestError(
            f"{path}: expected a table of segments that ends in {', '.join(SEGMENT_TABLES)} (RTTM, Audacity's labels)."
        )
    if suffix in (RTTM, AUDACITY):
        return _of_lines(path, suffix == RTTM)
    table = read_table_file(path, any_delimiter=True)
    names = {name.casefold(): name for name in reversed(table.column_names)}
    column = next((names[name] for name in RECORDING if name in names), None)
    if column is None:
        table = table.append_column("path", pa.array([""] * table.num_rows))
    elif column != "path":
        table = table.rename_columns(["path" if name == column else name for name in table.column_names])
    table, problems = with_pieces(table)
    if problems:
        raise ManifestError(arrow.sentence(str(path), problems))
    if START not in table.column_names:
        raise ManifestError(f"{path} {arrow.missing_column(START, table.column_names)}; expected {START} and {END}.")
    if column is None:
        return SegmentTable(table.drop_columns(["path"]), [])
    if problems := arrow.nested_problems(table, ("path",)):
        raise ManifestError(arrow.sentence(str(path), problems))
    names_of = arrow.as_strings(table.column("path"))
    empty = arrow.row_numbers(names_of.is_null())
    if empty:
        raise ManifestError(arrow.sentence(str(path), [arrow.listing(f"{column} is empty", empty)]))
    return SegmentTable(table.set_column(table.column_names.index("path"), "path", names_of), [])


def _of_lines(path: Path, rttm: bool) -> SegmentTable:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a label may hold what splitlines() breaks at
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} can't be read: {error}. Save it again as UTF-8.") from None
    rows, passed_over, points = [], Counter[str](), 0
    channels: set[str] = set()
    for number, line in enumerate(lines, 1):
        # A line that begins with a backslash holds the frequencies of the label above.
        if not line.strip() or line.startswith(";;" if rttm else "\\"):
            continue
        fields = line.split() if rttm else line.split("\t")
        if rttm and fields[0] != TURN:
            passed_over[fields[0]] += 1
            continue
        channels |= set(fields[2:3]) if rttm else set()
        row = _rttm_row(path, number, fields) if rttm else _audacity_row(path, number, fields)
        points += row[2] == row[1]
        rows += [row] if row[2] > row[1] else []
    notes = [f"{path}: {n:,} rows of type {kind} left out, which are no {TURN}" for kind, n in passed_over.items()]
    notes += [f"{path}: {points:,} without length left out"] if points else []
    if len(channels) > 1:
        notes.append(f"{path}: segments of channels {', '.join(sorted(channels))}; all have the mean of the channels")
    if not rows:
        raise ManifestError(
            f"{path} has no segment: expected {'RTTM' if rttm else 'start, tab, end, tab, label'} in a line."
        )
    recordings, starts, ends, names = zip(*rows, strict=True)
    columns = {START: pa.array(starts, pa.float64()), END: pa.array(ends, pa.float64())}
    if rttm:
        return SegmentTable(pa.table({"path": recordings, **columns, "speaker": pa.array(names, pa.string())}), notes)
    return SegmentTable(pa.table({**columns, "annotation": pa.array(names, pa.string())}), notes)


Row = tuple[str, float, float, str | None]  # recording, start, end, name


def _rttm_row(path: Path, number: int, fields: list[str]) -> Row:
    if len(fields) < RTTM_FIELDS:
        raise ManifestError(
            f"{path}, line {number}: expected {RTTM_FIELDS} or 10 fields (type, file, channel, begin, duration, "
            f"orthography, subtype, name, confidence, look-ahead), found {len(fields)}."
        )
    start, length = (_seconds(path, number, text) for text in fields[3:5])
    return fields[1], start, end_of(start, length), None if fields[7] == "<NA>" else fields[7]


def _audacity_row(path: Path, number: int, fields: list[str]) -> Row:
    if len(fields) < 2:
        raise ManifestError(f"{path}, line {number}: expected start, tab, end, tab, label, found {fields[0]!r}.")
    # Audacity 2 wrote the decimal comma of the user's language.
    start, end = (_seconds(path, number, text.replace(",", ".")) for text in fields[:2])
    if end < start:
        raise ManifestError(f"{path}, line {number}: the end {end:g} lies before the start {start:g}.")
    return "", start, end, fields[2] if len(fields) > 2 and fields[2] else None


def _seconds(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ManifestError(f"{path}, line {number}: {text!r} is no time in seconds, expected a number of 0 or more.")
    return value
