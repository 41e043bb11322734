"""Tables on disk: CSV (every cell a string) and Parquet to Arrow and back, replaced whole or not at all."""

import csv
import re
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from featurestore.corpus.arrow import ROWS_COUNT
from featurestore.errors import ManifestError
from featurestore.runtime.durable import replace_file, writing

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
NAMELESS = ("", "Unnamed: 0", "__index_level_0__")  # what becomes of pandas' index: in CSV, read back, in Parquet
FORMULA = r"^([=+\-@\t\r])"
NEEDS_QUOTES = re.compile(r'[,"\r\n]')
ELSEWHERE = "Choose another output path."
BLOCK_BYTES = 16 << 20  # no row may be longer
# pyarrow 26.0.1 loses a Ctrl-C now and then while it reads CSV with a handler of its own; Python's sees every one.
pa.enable_signal_handlers(False)


def read_table_file(path: Path, *, any_delimiter: bool = False) -> pa.Table:
    """Read a .csv (.tsv) or .parquet file; CSV cells are strings, empty ones null, a byte order mark is skipped.

    any_delimiter also takes the separators in DELIMITERS. ManifestError: no such file, unknown suffix, not UTF-8, no
    header, a column named twice, rows with too many or too few cells (their line numbers are named).
    """
    if not path.exists():
        raise ManifestError(f"{path} does not exist. Check the path, or write it with `medusa prepare`.")
    if path.is_dir():
        raise ManifestError(f"{path} is a directory, expected a .csv or .parquet file.")
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
        if path.suffix in (".csv", ".tsv"):
            return _read_csv(path, any_delimiter)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} can't be read as {path.suffix[1:]}: {error}. Save it again as UTF-8.") from error
    raise ManifestError(f"{path}: expected a name that ends in .csv or .parquet, found {path.suffix or 'no suffix'!r}.")


def _read_csv(path: Path, any_delimiter: bool) -> pa.Table:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first_line = file.readline()
        if not first_line.strip():
            raise ManifestError(f"{path} has no header: its first line is empty. Expected the column names there.")
        delimiter = max(DELIMITERS, key=first_line.count)
        if delimiter != "," and not any_delimiter:
            raise ManifestError(
                f"{path} is separated by {DELIMITERS[delimiter]}, expected commas. "
                f"Convert it: medusa prepare csv {path} -o {path.stem}_commas.csv"
            )
        file.seek(0)
        _refuse_open_quotes(path, file, delimiter)
        file.seek(0)
        header = next(csv.reader(file, delimiter=delimiter))
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ManifestError(
            f"{path} has columns of the same name: {', '.join(map(repr, twice))}. Rename or remove one."
        )
    ragged: list[pyarrow.csv.InvalidRow] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES
        ),  # threads would lose `ragged` its numbers
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    if ragged:
        examples = "; ".join(f"row {row.number - 1} has {row.actual_columns}: {row.text[:60]!r}" for row in ragged[:10])
        raise ManifestError(
            f"{path}: {len(ragged)} rows do not have the header's {len(header)} cells ({examples}). "
            f"Quote cells that contain {DELIMITERS[delimiter]}. {ROWS_COUNT}"
        )
    return table


def _refuse_open_quotes(path: Path, file: IO[str], delimiter: str) -> None:
    """Raise ManifestError, naming the line, for a quoted cell that doesn't end, or goes on after its closing quote.

    Arrow takes all that follows an open quote for one cell, so that a table may lose nearly all of its rows unnoticed.
    """
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    first_line = 1
    limit = csv.field_size_limit(BLOCK_BYTES)
    try:
        for _ in reader:
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}: the row that begins on line {first_line:,} has a quote that is not closed, or text after a "
            f'closing one, by line {reader.line_num:,} ({error}). Close it, or write "" for a quote in a quoted cell.'
        ) from None
    finally:
        csv.field_size_limit(limit)


def write_table_file(table: pa.Table, path: Path, *, escape_formulas: bool = False) -> None:
    """Write a .csv or .parquet file through a temporary file in its directory.

    escape_formulas: in a CSV, put an apostrophe before text that begins with = + - @ or a control character, which a
    spreadsheet may run; ids and paths stay as they are. By default every cell is exact.
    ManifestError: another suffix, or a file that can't be written.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ManifestError(f"{path}: expected a name that ends in .csv or .parquet, found {path.suffix or 'none'!r}.")
    write = _write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table
    if escape_formulas and path.suffix == ".csv":
        table = _escaped(table)
    with writing(path, ManifestError, ELSEWHERE):
        replace_file(path, lambda file: write(table, file))


def _escaped(table: pa.Table) -> pa.Table:
    for i, name in enumerate(table.column_names):
        if pa.types.is_string(table.column(i).type) and name not in ("utterance_id", "path"):
            cells = pc.replace_substring_regex(table.column(i), FORMULA, r"'\1")
            table = table.set_column(i, name, cells)
    return table


def _write_csv(table: pa.Table, file: IO[bytes]) -> None:
    nested = [column.name for column in table.schema if pa.types.is_nested(column.type)]
    if nested:
        raise ManifestError(f"Columns {nested} hold lists or records, which a CSV cell can't. Write a .parquet file.")
    file.write(",".join(map(_cell, table.column_names)).encode() + b"\n")
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        file.write(",".join(map(_cell, row)).encode() + b"\n")


def _cell(value: object) -> str:
    # The csv module leaves a lone carriage return unquoted, which then reads as the end of a row.
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if NEEDS_QUOTES.search(text) else text
