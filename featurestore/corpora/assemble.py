"""What readers of corpora share: audio files, documented tables, translated values, and the manifest made of them."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.audio import SOUND_SUFFIXES, Folder, duration_s, is_utf8, search
from featurestore.corpora.sound_check import grouped, refuse_pointers
from featurestore.corpus import arrow, checks
from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.splits import UNKNOWN_SPEAKERS
from featurestore.corpus.tables import read_table_file
from featurestore.errors import AudioError, ManifestError
from featurestore.runtime.wording import first_names

N_NAMED = 5


def audio_files(directory: Path, notes: list[str] | None = None) -> list[Path]:
    """Return the files of sound, not of video, at and below a directory, sorted, each real file once; no dot files.

    What else may be a recording is counted in `notes`.
    """
    return found_files(search(directory, SOUND_SUFFIXES), directory, [] if notes is None else notes)


def found_files(folder: Folder, root: Path, notes: list[str]) -> list[Path]:
    """Return the files of a folder whose names can be keys; the others, and what else may be a recording, are noted."""
    if left_out := folder.left_out(root):
        notes.append(left_out)
    strange = [repr(os.fspath(path)) for path in folder.files if not is_utf8(os.fspath(path))]
    if strange:
        notes.append(named("files left out, whose names are not UTF-8 (rename them)", strange))
    return [path for path in folder.files if is_utf8(os.fspath(path))]


def existing(root: Path, names: Sequence[str], content: str) -> Path:
    """Return the first of `names` that is in `root`; ManifestError says what is there instead."""
    for name in names:
        if (root / name).exists():
            return root / name
    if not root.is_dir():
        raise ManifestError(f"{root} is not a directory; expected one that holds {content} ({' or '.join(names)}).")
    entries = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    raise ManifestError(f"{root} has no {content}: expected {' or '.join(names)}, found {entries}. Check --root.")


def documented_table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Return a table with the columns a corpus documents; ManifestError names those that are missing or unknown."""
    table = read_table_file(path)
    refuse_other_columns(table, path, required, optional)
    return table


def refuse_other_columns(table: pa.Table, path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raise ManifestError naming the required columns that are missing, and those that are not documented."""
    names = table.column_names
    problems = [arrow.missing_column(name, names) for name in required if name not in names]
    unknown = [name for name in names if name not in (*required, *optional)]
    if unknown:
        allowed = ", ".join((*required, *optional))
        problems.append(f"unknown columns {unknown}, expected only {allowed}; it may be another release")
    if problems:
        raise ManifestError(arrow.sentence(str(path), problems))


def translated(
    column: pa.ChunkedArray, codes: Mapping[str, str | None], path: Path | str, name: str
) -> pa.ChunkedArray:
    """Return a column with each value replaced by its code in `codes`, null kept.

    ManifestError lists other values by row.
    """
    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    strange = [value for value in values if value not in codes]
    if strange:
        rows = np.flatnonzero(pc.is_in(column, value_set=pa.array(strange)).to_numpy(zero_copy_only=False)).tolist()
        message = f"column {name!r} has an unknown value, expected one of {list(codes)}"
        problem = arrow.listing(message, rows, column.to_pylist())
        raise ManifestError(arrow.sentence(str(path), [problem]))
    words = pa.array([codes[value] for value in values], pa.string())
    return pa.chunked_array([words.take(encoded.indices)])


def numbers(column: pa.ChunkedArray, low: float, high: float, path: Path | str, name: str) -> pa.ChunkedArray:
    """Return a column as float64 within [low, high], null where empty; ManifestError lists what is neither by row."""
    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    values, bad = arrow.as_numbers(column)
    problems = [arrow.listing(f"column {name!r} is not a number", bad, column.to_pylist())] if bad else []
    problems += checks.range_problems(values, f"column {name!r}", low, high)
    if problems:
        raise ManifestError(arrow.sentence(str(path), problems))
    return values


def code(path: Path, field: str, value: str, codes: Mapping[str, Any]) -> Any:
    """Return the meaning of a code in a file's name.

    ManifestError names the file, the field, and the codes there are.
    """
    if value not in codes:
        raise ManifestError(
            f"{path}: unknown {field} code {value!r}, expected one of {', '.join(codes)}. "
            "Move it elsewhere, or restore its name."
        )
    return codes[value]


def missing_audio(paths: Iterable[str | None], root: Path) -> list[str]:
    """Return the sentence for audio files that do not exist, by row, or none."""
    paths = list(paths)
    rows = [i for i, path in enumerate(paths) if path is not None and not os.path.isfile(os.path.join(root, path))]
    if not rows:
        return []
    hint = f"relative paths start at {os.path.abspath(root)}; --root names another directory"
    return [arrow.listing(f"audio file not found ({hint})", rows, paths)]


def named_codes(occurring: Iterable[str | None], names: Mapping[str, Any], source: str) -> list[str]:
    """Return a note with the names of classes that are numbers, where `source` has one for each; else nothing."""
    codes = sorted({code for code in occurring if code is not None}, key=lambda code: (len(code), code))
    if not codes or not all(code.isdecimal() and isinstance(names.get(code), str) for code in codes):
        return []
    merges = " ".join(f"--merge {shlex.quote(f'{code}={names[code]}')}" for code in codes)
    return [f"the classes are codes, for which {source} has names: {merges}"]


def two_genders(speakers: Sequence[str | None], genders: Sequence[str | None]) -> list[str]:
    """Return the speakers who have two genders: as a rule several people under one number."""
    gender_of: dict[str, set[str]] = {}
    for speaker, gender in zip(speakers, genders, strict=False):
        if speaker is not None and speaker not in UNKNOWN_SPEAKERS and gender is not None:
            gender_of.setdefault(speaker, set()).add(gender)
    return sorted(speaker for speaker, of in gender_of.items() if len(of) > 1)


def named(noun: str, names: Sequence[str]) -> str:
    """Return a note on utterances, `2 NOUN: a, b`, with long lists cut."""
    return f"{len(names):,} {noun}: {first_names(names, N_NAMED)}"


def of_clips(
    rows: Sequence[Mapping[str, object]],
    scheme: LabelScheme,
    root: Path,
    name: str,
    *,
    n_clips: int | None = None,
    ratings: Ratings | None = None,
    left_out: Sequence[str] = (),
) -> Manifest:
    """Return the manifest of rows with a `path`, sorted by id, with durations from the files' headers.

    A second copy of an utterance id is left out and noted, as are unreadable headers (no duration then), and a number
    of clips other than n_clips, the complete corpus's. left_out: further notes, on what else lies there.
    """
    first: dict[str, Mapping[str, object]] = {}
    copies = []
    for row in rows:
        key = str(row["utterance_id"])
        if key in first:
            copies.append(key)
        first.setdefault(key, row)
    chosen = [first[key] for key in sorted(first)]
    seconds, notes = header_durations([root / str(row["path"]) for row in chosen])
    table = pa.Table.from_pylist([{**row, "duration_s": s} for row, s in zip(chosen, seconds, strict=True)])
    manifest = Manifest(table, scheme, root, name, ratings)
    if copies:
        manifest.notes.append(named("second copies left out", copies))
    if n_clips is not None and len(manifest) != n_clips:
        manifest.notes.append(f"{len(manifest):,} of the corpus's {n_clips:,} clips")
    manifest.notes += [*left_out, *notes]
    return manifest


def of_columns(
    columns: Mapping[str, Any],
    scheme: LabelScheme,
    root: Path,
    name: str,
    *,
    source: Path,
    check_audio: bool = True,
    notes: Sequence[str] = (),
    ratings: Ratings | None = None,
) -> Manifest:
    """Return the manifest of columns from `source`, which every problem names.

    With check_audio, missing files are one.
    """
    table, problems = checks.typed(_uniform_splits(_table(columns, source)))
    problems += checks.table_problems(table, scheme)
    if check_audio and "path" in table.column_names:
        problems += missing_audio(table.column("path").to_pylist(), root)
    if problems:
        raise ManifestError(arrow.sentence(str(source), problems) + checks.remedy(problems))
    manifest = Manifest(table, scheme, root, name, ratings)
    manifest.notes += notes
    return manifest


def _uniform_splits(table: pa.Table) -> pa.Table:
    """Return the table with its splits in their one spelling (Train, dev).

    Unknown ones are left for the checks to name.
    """
    if "split" not in table.column_names:
        return table
    values = arrow.as_strings(table.column("split")).to_pylist()
    uniform = [None if value is None else SPLIT_NAMES.get(value.strip().lower(), value) for value in values]
    return table.set_column(table.column_names.index("split"), "split", pa.array(uniform, pa.string()))


def _table(columns: Mapping[str, Any], source: Path) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            is_column = isinstance(values, (pa.Array, pa.ChunkedArray))
            arrays[name] = values if is_column else pa.array(values, from_pandas=True)
        except (pa.ArrowException, TypeError) as error:
            raise ManifestError(
                f"{source}: {name} mixes numbers, texts or lists ({error}). Make them one type."
            ) from None
    return pa.table(arrays)


def header_durations(paths: Sequence[Path]) -> tuple[list[float | None], list[str]]:
    """Return the seconds of each file by its header, None where that can't be read; and a note for each reason.

    ManifestError where files are pointers of Git LFS.
    """
    refuse_pointers(paths)
    seconds: list[float | None] = []
    problems = []
    for path in paths:
        try:
            seconds.append(round(duration_s(path), 3))
        except AudioError as error:
            seconds.append(None)
            problems.append(str(error))
    return seconds, grouped("files without a known duration", problems)
