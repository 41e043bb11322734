"""The `audiofolder` layout of Hugging Face datasets: files with a metadata table, or in folders named after classes.

train/metadata.csv      file_name, label, ... (or .jsonl, .parquet; also one table for all splits, at the root)
train/clip1.wav
train/angry/clip2.wav   without a table the folders are splits and classes, see `folder_levels`
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.audio import AUDIO_SUFFIXES, search
from featurestore.corpora.assemble import found_files, named, of_columns
from featurestore.corpora.folder_levels import beside, folder_columns
from featurestore.corpora.json_lines import json_lines
from featurestore.corpus import arrow
from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.pieces import with_own_ids
from featurestore.corpus.tables import read_table_file
from featurestore.errors import ManifestError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


def read_audiofolder(
    root: Path, *, label: str = "label", layout: str | None = None, check_audio: bool = True
) -> Manifest:
    """Return the manifest of such a directory, whose first level may be splits (train, validation or dev, test).

    label: the column of the table that holds the class. layout: without a table, what each level of folders is, such as
    "speaker/label/split"; see `folder_columns` for what is read without it. Columns: utterance_id and path (the file as
    seen from `root`), label, split, and all others of the table. ManifestError: no audio, a table without file_name, a
    missing file, folders that can't be recognised as classes.
    """
    if not root.is_dir():
        raise ManifestError(f"{root} is not a directory. Check --root.")
    parts = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name.lower() in SPLIT_NAMES]
    notes: list[str] = []
    table_of = {place: path for place in (root, *parts) if (path := _table_of(place)) is not None}
    with_table = [root] if root in table_of else list(table_of)
    audio_paths = found_files(search(root), root, notes)
    tables = [_of_table(root, place, _metadata(table_of[place]), label) for place in with_table]
    in_folders = [path for path in audio_paths if not any(path.is_relative_to(place) for place in with_table)]
    listed = {path for table in tables for path in table.column("path").to_pylist()} | {*map(str, in_folders)}
    names = [path.relative_to(root).as_posix() for path in audio_paths if str(path) not in listed]
    unlisted = [name for name in names if name not in listed]
    if unlisted:
        notes.append(named("audio files that the table doesn't list left out", unlisted))
    if in_folders:
        tables.append(_of_folders(root, in_folders, layout, notes))
    if not tables:
        raise ManifestError(
            f"{root} holds no audio ({', '.join(AUDIO_SUFFIXES)}) in folders, and no {', '.join(TABLES)}."
        )
    try:
        records = pa.concat_tables(arrow.alike(tables), promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(f"{root}: the splits' tables differ in a column's type ({error}). Make it one.") from None
    columns: dict[str, Any] = {name: records.column(name) for name in records.column_names}
    labels: list[str] = []
    if "label" in columns:
        columns["label"] = arrow.as_strings(columns["label"])
        labels = sorted(set(columns["label"].to_pylist()) - {None})
    else:
        reason = f"the table has no column {label!r}; name another with --label" if with_table else "no folders"
        notes.append(f"no labels: {reason}")
    paths = columns["path"].to_pylist()
    if parts and with_table and "split" not in records.column_names:
        columns["split"] = [SPLIT_NAMES.get(str(path).split("/")[0].lower()) for path in paths]
    return of_columns(
        columns,
        LabelScheme(tuple(labels)),
        root,
        root.resolve().name,
        source=root,
        check_audio=check_audio,
        notes=notes,
    )


def _of_folders(root: Path, files: Sequence[Path], layout: str | None, notes: list[str]) -> pa.Table:
    """Return the table of files by their folders; a table that lies there and was not read is named."""
    tables = beside(root, TABLES)
    instead = ""
    if tables:
        named_tables = ", ".join(path.name for path in tables)
        instead = (
            f"{named_tables} in {root} is not read; if it holds the labels: medusa prepare csv "
            f"{shlex.quote(str(tables[0]))}{_column_options(tables[0])} -o {shlex.quote(f'{root.resolve().name}.csv')}"
        )
    try:
        columns = folder_columns(files, root, layout, notes)
    except ManifestError as error:
        raise ManifestError(f"{error} {instead}".strip()) from None
    if instead:
        notes.append(instead)
    names = [path.relative_to(root).as_posix() for path in files]
    return pa.table({"utterance_id": names, "path": names, **columns})


def _column_options(path: Path) -> str:
    """Return the --column options that `prepare csv` needs for a table whose path or label has another usual name."""
    try:
        names = read_table_file(path, any_delimiter=True).column_names
    except ManifestError:
        return ""
    missing = [target for target in ("path", "label") if target not in names]
    sources = {target: next((n for n in arrow.SYNONYMS[target] if n in names), None) for target in missing}
    return "".join(f" --column {shlex.quote(f'{target}={name}')}" for target, name in sources.items() if name)


def _of_table(root: Path, place: Path, table: pa.Table, label: str) -> pa.Table:
    names = table.column_names
    if FILE_NAME not in names:
        raise ManifestError(f"{place}: the metadata table {arrow.missing_column(FILE_NAME, names)}.")
    before = place.relative_to(root)
    paths = [(before / str(name)).as_posix() for name in table.column(FILE_NAME).to_pylist()]
    if problems := arrow.nested_problems(table, (FILE_NAME, label)):
        raise ManifestError(arrow.sentence(f"The metadata table in {place}", problems))
    columns: dict[str, Any] = {"utterance_id": paths, "path": paths}
    if label in names:
        columns["label"] = table.column(label)
    columns |= {name: table.column(name) for name in names if name not in (FILE_NAME, label, *columns)}
    return with_own_ids(pa.table(columns))


def _table_of(place: Path) -> Path | None:
    """Return the metadata table in a directory, None where there is none; ManifestError where there are two."""
    tables = [place / name for name in TABLES if (place / name).exists()]
    if len(tables) > 1:
        raise ManifestError(f"{place} has {' and '.join(path.name for path in tables)}; leave one of them.")
    return tables[0] if tables else None


def _metadata(path: Path) -> pa.Table:
    if path.suffix != ".jsonl":
        return read_table_file(path)
    try:
        records = [record for _, record in json_lines(path)]
        names = dict.fromkeys(name for record in records for name in record)  # Arrow alone takes the first record's
        return pa.table({name: pa.array([record.get(name) for record in records]) for name in names})
    except pa.ArrowException as error:
        raise ManifestError(f"{path}: a field mixes numbers, texts or lists ({error}). Make it one type.") from None
