"""The `audiofolder` layout of Hugging Face datasets: files with a metadata table, or in folders named after classes.

train/metadata.csv      file_name, label, ... (or .jsonl, .parquet; also one table for all splits, at the root)
train/clip1.wav
train/angry/clip2.wav   without a table the folder is the class
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.audio import AUDIO_SUFFIXES, search
from featurestore.corpora.assemble import of_columns
from featurestore.corpora.json_lines import json_lines
from featurestore.corpus import arrow
from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.tables import read_table_file
from featurestore.errors import ManifestError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


def read_audiofolder(root: Path, *, label: str = "label", check_audio: bool = True) -> Manifest:
    """The manifest of such a directory, whose first level may be splits (train, validation or dev, test).

    label: the column of the table that holds the class. Columns: utterance_id and path (the file as seen from `root`),
    label, split, and all others of the table. ManifestError: no audio, a table without file_name, a missing file.
    """
    if not root.is_dir():
        raise ManifestError(f"{root} is not a directory. Check --root.")
    parts = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name.lower() in SPLIT_NAMES]
    notes: list[str] = []
    found = [_of_directory(root, place, label, notes) for place in (parts or [root])]
    tables = [part for part in found if part is not None]
    if parts and (at_root := _metadata(root)) is not None:
        tables = [_of_table(root, root, at_root, label)]
    if not tables:
        raise ManifestError(
            f"{root} holds no audio ({', '.join(AUDIO_SUFFIXES)}) in folders, and no {', '.join(TABLES)}."
        )
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(f"{root}: the splits' tables differ in a column's type ({error}). Make it one.") from None
    columns: dict[str, Any] = {name: whole.column(name) for name in whole.column_names}
    labels: list[str] = []
    if "label" in columns:
        columns["label"] = arrow.as_strings(columns["label"])
        labels = sorted(set(columns["label"].to_pylist()) - {None})
    else:
        notes.append(f"no labels: the table has no column {label!r}; name another with --label")
    paths = columns["path"].to_pylist()
    if parts and "split" not in columns:
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


def _of_directory(root: Path, place: Path, label: str, notes: list[str]) -> pa.Table | None:
    table = _metadata(place)
    if table is not None:
        return _of_table(root, place, table, label)
    folder = search(place)
    files = folder.files
    if folder.others:
        notes.append(f"{place.name}: {folder.left_out()}")
    if not files:
        return None
    loose = [path for path in files if path.parent == place]
    if loose and len(loose) < len(files):
        raise ManifestError(f"{loose[0]} lies in no class's folder, but others in {place} do. Move it to one.")
    names = [path.relative_to(root).as_posix() for path in files]
    columns = {"utterance_id": names, "path": names}
    return pa.table(columns if loose else columns | {"label": [path.parent.name for path in files]})


def _of_table(root: Path, place: Path, table: pa.Table, label: str) -> pa.Table:
    names = table.column_names
    if FILE_NAME not in names:
        raise ManifestError(f"{place}: the metadata table {arrow.missing_column(FILE_NAME, names)}.")
    before = place.relative_to(root)
    paths = [(before / str(name)).as_posix() for name in table.column(FILE_NAME).to_pylist()]
    columns: dict[str, Any] = {"utterance_id": paths, "path": paths}
    if label in names:
        columns["label"] = table.column(label)
    columns |= {name: table.column(name) for name in names if name not in (FILE_NAME, label, *columns)}
    return pa.table(columns)


def _metadata(place: Path) -> pa.Table | None:
    found = [place / name for name in TABLES if (place / name).exists()]
    if len(found) > 1:
        raise ManifestError(f"{place} has {' and '.join(path.name for path in found)}; leave one of them.")
    if not found:
        return None
    if found[0].suffix == ".jsonl":
        try:
            return pa.Table.from_pylist([record for _, record in json_lines(found[0])])
        except pa.ArrowException as error:
            raise ManifestError(
                f"{found[0]}: a field mixes numbers, texts or lists ({error}). Make it one type."
            ) from None
    return read_table_file(found[0])
