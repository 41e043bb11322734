"""A database in audformat, as audb and audEERING's tools keep it: `db.yaml`, and `db.<table>.csv` or `.parquet` beside.

A filewise table has a row for each file, a segmented one for each piece of it (`file`, `start`, `end`). The header says
which split a table belongs to, and by which scheme a column is labelled.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.corpora.assemble import named, named_codes, of_columns
from featurestore.corpus import arrow
from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.pieces import with_own_ids, with_pieces
from featurestore.corpus.tables import read_table_file
from featurestore.errors import ConfigError, ManifestError

HEADER = "db.yaml"
FILE = "file"
SEGMENT = ("start", "end")  # of a segmented table, beside the file
ABOUT_FILES = ("speaker", "gender", "text", "transcription", "language", "age")  # taken from other filewise tables, too
TEXTS = {"transcription": "text"}


def read_audformat(
    root: Path, *, label: str = "emotion", tables: str | None = None, check_audio: bool = True
) -> Manifest:
    """Return the manifest of a database.

    label: the column that holds the class. tables: names separated by commas, by default all with that column; a row
    that two of them have is read once. Columns: utterance_id and path (the file, pieces with their ends), start_s and
    end_s of segmented tables, label, split (by the table's split, else by its name), speaker and gender (from the
    table, another filewise table, or the speaker scheme's labels), and all others. ManifestError: no header, a table
    that is missing or a pickle, no table with the label, rows that two tables label differently.
    """
    header = _header(root / HEADER)
    table_headers: Mapping[str, Any] = header.get("tables") or {}
    chosen = _chosen(root, table_headers, label, tables)
    notes: list[str] = []
    parts = [_rows(root, name, table_headers[name], header, label, notes) for name in chosen]
    table = pa.concat_tables(arrow.alike(parts), promote_options="permissive")
    table = _once(table, root, notes)
    table = _with_files(table, root, table_headers, chosen, notes)
    table = _with_speakers(table, root, header)
    labels = _classes(root, header, table_headers, chosen, label, table, notes)
    columns = {name: table.column(name) for name in table.column_names}
    return of_columns(
        columns, LabelScheme(labels), root, str(header.get("name") or root.resolve().name), source=root / HEADER,
        check_audio=check_audio, notes=notes,
    )  # fmt: skip


def _header(path: Path) -> dict[str, Any]:
    from featurestore.runtime.yaml_lines import plain_yaml

    if not path.is_file():
        raise ManifestError(f"{path} is not a file; a database in audformat has one. Check --root.")
    try:
        header = plain_yaml(path.read_text(encoding="utf-8"), path.name)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} can't be read as YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(header, dict):
        raise ManifestError(f"{path}: expected the fields of a database, such as name, schemes and tables.")
    return header


def _chosen(root: Path, table_headers: Mapping[str, Any], label: str, tables: str | None) -> list[str]:
    """Return the names of the tables to read."""
    if tables is not None:
        names = [name.strip() for name in tables.split(",") if name.strip()]
        if strange := [name for name in names if name not in table_headers]:
            raise ManifestError(
                f"{root / HEADER} has no table {strange[0]!r}; it has {', '.join(table_headers) or 'none'}."
            )
        return names
    names = [name for name, table in table_headers.items() if label in (table.get("columns") or {})]
    if not names:
        columns = sorted({column for table in table_headers.values() for column in (table.get("columns") or {})})
        raise ManifestError(
            f"{root / HEADER}: no table has a column {label!r}; there are {', '.join(columns) or 'none'}. Name one "
            "with --label."
        )
    return names


def _rows(
    root: Path, name: str, table: Mapping[str, Any], header: Mapping[str, Any], label: str, notes: list[str]
) -> pa.Table:
    """One table under a manifest's names."""
    rows = _table(root, name, [label], notes)
    if FILE not in rows.column_names:
        raise ManifestError(f"{root}, table {name}: {arrow.missing_column(FILE, rows.column_names)}.")
    if label not in rows.column_names:
        raise ManifestError(f"{root}, table {name}: {arrow.missing_column(label, rows.column_names)}.")
    files = arrow.as_strings(rows.column(FILE))
    columns: dict[str, Any] = {"utterance_id": files, "path": files, "label": arrow.as_strings(rows.column(label))}
    for column in rows.column_names:
        if column not in (FILE, label, *columns):
            columns[TEXTS.get(column, column)] = rows.column(column)
    split_id = table.get("split_id")
    kind = ((header.get("splits") or {}).get(split_id) or {}).get("type") if split_id else None
    split = next((SPLIT_NAMES[word] for word in _words(kind, split_id, name) if word in SPLIT_NAMES), None)
    if split is not None and "split" not in columns:
        columns["split"] = pa.array([split] * len(rows), pa.string())
    if table.get("type") == "segmented" and (missing := [column for column in SEGMENT if column not in columns]):
        raise ManifestError(
            f"{root}, table {name} is segmented by {HEADER}, but has no column {missing[0]!r}. Write it again, or "
            "change its type to filewise."
        )
    table_of_pieces, problems = with_pieces(with_own_ids(pa.table(columns)))
    if problems:
        raise ManifestError(arrow.sentence(f"{root}, table {name}", problems))
    return table_of_pieces


def _words(*names: object) -> list[str]:
    return [word for name in names if name for word in [str(name).lower(), *str(name).lower().split(".")[::-1]]]


def _table(root: Path, name: str, columns: Sequence[str], notes: list[str]) -> pa.Table:
    """Read a table: of Parquet and CSV the first, as audformat does; a note where the other has other rows."""
    paths = [path for suffix in (".parquet", ".csv") if (path := root / f"db.{name}{suffix}").is_file()]
    if not paths and (root / f"db.{name}.pkl").exists():
        raise ManifestError(
            f"{root / f'db.{name}.pkl'}: a pickle may run any code, so that it is not read. Save the database again: "
            "db.save(root, storage_format='csv')."
        )
    if not paths:
        raise ManifestError(f"{root} has no db.{name}.parquet or db.{name}.csv, which its header lists.")
    rows = read_table_file(paths[0])
    for other in paths[1:]:
        if _cells(rows, columns) != _cells(read_table_file(other), columns):
            newer = "newer" if other.stat().st_mtime > paths[0].stat().st_mtime else "older"
            notes.append(
                f"{paths[0].name} is read; {other.name}, which is {newer}, has other files, times or "
                f"{', '.join(columns)}: remove the one that is not right"
            )
    return rows


def _cells(rows: pa.Table, columns: Sequence[str]) -> list[list[str]]:
    """Return files, times and these columns as text, however they are typed."""
    chosen = rows.select([name for name in dict.fromkeys((FILE, *SEGMENT, *columns)) if name in rows.column_names])
    renamed, _ = with_pieces(chosen.rename_columns(["path" if name == FILE else name for name in chosen.column_names]))
    columns = [renamed.column(name).to_pylist() for name in sorted(renamed.column_names)]
    return [["" if value is None or value != value else str(value) for value in column] for column in columns]


def _once(table: pa.Table, root: Path, notes: list[str]) -> pa.Table:
    """Keep one row of an utterance in several tables; ManifestError where their labels or splits differ."""
    first: dict[str, int] = {}
    keys = table.column("utterance_id").to_pylist()
    names = [name for name in ("label", "split") if name in table.column_names]
    values = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    copies = []
    for row, key in enumerate(keys):
        if key in first:
            copies.append(key)
            if values[first[key]] != values[row]:
                raise ManifestError(
                    f"{root}: {key!r} is {values[first[key]]} in one table and {values[row]} in another. Name one with "
                    "--tables NAME."
                )
        first.setdefault(key, row)
    if copies:
        notes.append(named("rows that several tables have read once", sorted(set(copies))))
    return table.take(pa.array(list(first.values()), pa.int64())) if copies else table


def _with_files(
    joined: pa.Table, root: Path, table_headers: Mapping[str, Any], chosen: list[str], notes: list[str]
) -> pa.Table:
    """Return the columns of other filewise tables about the files."""
    for name, table in table_headers.items():
        columns = [column for column in ABOUT_FILES if column in (table.get("columns") or {})]
        columns = [column for column in columns if TEXTS.get(column, column) not in joined.column_names]
        if name in chosen or table.get("type") != "filewise" or not columns:
            continue
        rows = _table(root, name, columns, notes)
        row_of = {file: i for i, file in enumerate(rows.column(FILE).to_pylist())}
        table_rows = pa.array([row_of.get(path) for path in joined.column("path").to_pylist()], pa.int64())
        for column in columns:
            if column in rows.column_names:
                joined = joined.append_column(
                    TEXTS.get(column, column), rows.column(column).combine_chunks().take(table_rows)
                )
    return joined


def _scheme_labels(root: Path, header: Mapping[str, Any], scheme_id: object) -> dict[str, Any]:
    """Return what is known of each label of a scheme, in its order; the header has it, or names a table of it."""
    labels = ((header.get("schemes") or {}).get(scheme_id) or {}).get("labels") or []
    if isinstance(labels, str):
        levels = list(((header.get("misc_tables") or {}).get(labels) or {}).get("levels") or [])
        if len(levels) != 1:
            return {}
        rows = _table(root, labels, [], [])
        if levels[0] not in rows.column_names:
            raise ManifestError(f"{root}, table {labels}: {arrow.missing_column(levels[0], rows.column_names)}.")
        names = arrow.as_strings(rows.column(levels[0])).to_pylist()
        return {str(name): about for name, about in zip(names, rows.to_pylist(), strict=True)}
    if isinstance(labels, dict):
        return {str(name): about for name, about in labels.items()}
    return {str(name): None for name in labels} if isinstance(labels, list) else {}


def _with_speakers(table: pa.Table, root: Path, header: Mapping[str, Any]) -> pa.Table:
    """Return the gender that the speaker scheme's labels have, where no column has it."""
    if "gender" in table.column_names or "speaker" not in table.column_names:
        return table
    labels = _scheme_labels(root, header, "speaker")
    genders = {who: about.get("gender") for who, about in labels.items() if isinstance(about, dict)}
    values = [genders.get(who) for who in arrow.as_strings(table.column("speaker")).to_pylist()]
    if not any(values):
        return table
    return table.append_column("gender", pa.array([value and str(value) for value in values], pa.string()))


def _classes(
    root: Path,
    header: Mapping[str, Any],
    table_headers: Mapping[str, Any],
    chosen: list[str],
    label: str,
    table: pa.Table,
    notes: list[str],
) -> tuple[str, ...]:
    """Return the scheme's labels that occur, in its order, then any others, which a note counts.

    A note gives the names that the header has for codes, such as 0 for neutral.
    """
    counts = Counter(table.column("label").to_pylist())
    labels = set(counts) - {None}
    scheme_id = (((table_headers[chosen[0]].get("columns") or {}).get(label)) or {}).get("scheme_id")
    listed = _scheme_labels(root, header, scheme_id)
    ordered = list(listed)
    others = sorted(labels - set(ordered))
    if ordered and others:
        counts_text = ", ".join(f"{name!r} ({counts[name]:,})" for name in others)
        notes.append(f"labels that scheme {scheme_id!r} does not list: {counts_text}; taken as classes of their own")
    names = {code: about.get("name") if isinstance(about, dict) else about for code, about in listed.items()}
    notes += named_codes(labels, names, f"scheme {scheme_id!r}")
    return tuple([name for name in ordered if name in labels] + others)
