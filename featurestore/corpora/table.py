"""`medusa prepare csv`: a table that a user already has, its columns renamed, every problem reported at once."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpora.assemble import missing_audio, named_codes
from featurestore.corpora.doubts import NO_SPEAKERS
from featurestore.corpora.sound_check import check_sounds
from featurestore.corpus import arrow, checks
from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.pieces import with_own_ids
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.relabel import names_with_commas
from featurestore.corpus.splits import UNKNOWN_SPEAKERS
from featurestore.corpus.tables import NAMELESS, read_table_file
from featurestore.errors import ManifestError
from featurestore.runtime.json_text import read_json

JOINT = "+"  # between columns that are joined to one
OF_RATINGS = ("vote_", "attr_")  # columns that say what annotators rated


def read_table(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | str | None = None,
    attributes: Mapping[str, tuple[float, float]] | None = None,
    split_names: Mapping[str, str] | None = None,
    joined: Sequence[tuple[Path, str, str]] = (),
    root: Path | str | None = None,
    check_audio: bool = True,
    require_label: bool = True,
) -> Manifest:
    """Read and validate a .csv, .tsv (commas, semicolons, tabs) or .parquet table.

    columns: manifest name -> the table's name, such as {"label": "emotion", "attr_arousal": "EmoAct"}; one column may
    serve two names, and "Gender+SpkrID" joins two with a _ between. classes: the classes in their order, a list or
    separated by commas (else the sidecar's, the vote columns', the sorted labels). split_names: what the table's splits
    are ({"0": "train"}). joined: further tables, each with our column and theirs whose values it shares; their other
    columns are added. attributes: name -> (low, high), 1 to 7 where not given. root: where relative audio paths start
    (else the table's directory). Split names are made uniform (Train, dev, Validation, Test1 -> train, development,
    development, test1). ManifestError lists every problem: missing columns with near names, else by row number and
    value ids, labels, votes, attributes and splits, and with check_audio the audio files that do not exist.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    table = read_table_file(path, any_delimiter=True)
    notes: list[str] = []
    problems: list[str]
    for other, ours, theirs in joined:
        table = _joined(path, table, other, ours, theirs, notes)
    label_names = _class_names(table, (columns or {}).get("label", "label"))
    table, further_notes = _renamed(path, table, dict(columns or {}))
    notes += further_notes
    if problems := arrow.nested_problems(table, checks.STRING_COLUMNS):
        raise ManifestError(arrow.sentence(str(path), problems))
    no_ids = "utterance_id" not in table.column_names and "path" in table.column_names
    if no_ids:
        table = table.append_column("utterance_id", table.column("path"))
    _refuse_missing(path, table, require_label)
    whole_files = table
    table = with_own_ids(table)
    if no_ids:
        ids = "the audio paths" + (", with the piece's start and end," if table is not whole_files else "")
        notes.append(f"no column of ids: {ids} are the utterance ids")
    remedy = ""
    if "split" in table.column_names:
        table, remedy = _uniform_splits(table, split_names or {})
    scheme = _scheme(path, table, classes, attributes or {})
    table, problems = checks.typed(table)
    problems += checks.table_problems(table, scheme)
    if check_audio and "path" in table.column_names:
        problems += missing_audio(table.column("path").to_pylist(), root)
    if problems:
        raise ManifestError(arrow.sentence(str(path), problems) + remedy)
    changed = [name for name in columns or {} if name in ("utterance_id", "label") or name.startswith(OF_RATINGS)]
    changed += ["classes"] if classes is not None else []
    ratings = _ratings_beside(path, table, scheme, changed, notes)
    manifest = Manifest(table, scheme, root, path.stem, ratings)
    manifest.notes += notes
    if label_names and manifest.has("label"):
        manifest.notes += named_codes(manifest.labels, label_names, path.name)
    manifest.notes += _passed_over(manifest.columns)
    if not manifest.has("speaker"):
        manifest.notes.append(f"{NO_SPEAKERS}; --column speaker=YOURS names it")
    manifest.notes += _assumed_scales(manifest, attributes or {}) if LabelScheme.beside(path) is None else []
    manifest.notes += check_sounds(manifest) if check_audio else []
    return manifest


def _passed_over(names: Sequence[str]) -> list[str]:
    """Return a note on columns that are spelled nearly as ones of a manifest that the table lacks, such as `Split`."""
    options = []
    for name in names:
        bare = name.strip().casefold()
        if name == bare or bare in names:
            continue
        if bare in checks.STRING_COLUMNS or bare.startswith(OF_RATINGS):
            options.append((name, f"--column {shlex.quote(f'{bare}={name}')}"))
    if not options:
        return []
    named = ", ".join(repr(name) for name, _ in options)
    return [f"not read, since a manifest spells them otherwise: {named}; {' '.join(option for _, option in options)}"]


def _ratings_beside(
    path: Path, table: pa.Table, scheme: LabelScheme, changed: Sequence[str], notes: list[str]
) -> Ratings | None:
    """Return the ratings beside a table that is a manifest; None, and a note, where they are of something else.

    changed: what was asked for of ids, labels, votes or attributes that the manifest itself has otherwise.
    """
    sidecar, before = Ratings.sidecar(path), LabelScheme.beside(path)
    if before is None or not sidecar.exists():
        return None
    changed = [*changed, *(name for name, ends in scheme.attributes.items() if before.attributes.get(name) != ends)]
    ratings = Ratings.read(sidecar)
    if not changed and not set(ratings.keys).isdisjoint(table.column("utterance_id").to_pylist()):
        return ratings
    why = f"{', '.join(changed)} changed" if changed else "they have none of these ids"
    notes.append(f"{sidecar.name}, the ratings of single annotators, is left out, since {why}")
    return None


def _class_names(table: pa.Table, column: str) -> dict[str, Any]:
    """Return the name of each code of a column, as Hugging Face's datasets record them in Parquet; {} without."""
    try:
        features = read_json((table.schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {str(code): name for code, name in enumerate(features[column]["names"])}
    except (ValueError, KeyError, TypeError):
        return {}


def _assumed_scales(manifest: Manifest, given: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a note on each attribute whose scale nobody named and whose values leave out a whole point of an end."""
    notes = []
    for a, (name, (low, high)) in enumerate(manifest.scheme.attributes.items()):
        values = manifest.attributes[:, a]
        values = values[~np.isnan(values)]
        if name in given or not len(values) or (values.min() < low + 1 and values.max() > high - 1):
            continue
        notes.append(
            f"{name} has values of {values.min():g} to {values.max():g}, and its scale was taken for {low:g} to "
            f"{high:g}, since none was named; --attribute {name}:LOW:HIGH names another"
        )
    return notes


def _renamed(path: Path, table: pa.Table, columns: dict[str, str]) -> tuple[pa.Table, list[str]]:
    """Return the table under the manifest's names.

    What had such a name before and was not asked for is kept as <name>_was.
    """
    problems, notes = [], []
    names = table.column_names
    nameless = next((name for name in NAMELESS if name in names), None)
    if nameless is not None and columns.get("utterance_id") in (None, *NAMELESS):
        columns, further_notes = _with_index(table, columns, nameless)
        notes += further_notes
    columns = {target: nameless if source == "" and nameless else source for target, source in columns.items()}
    for target, source in columns.items():
        if source not in names and all(part in names for part in source.split(JOINT)):
            texts = [arrow.as_strings(table.column(part)) for part in source.split(JOINT)]
            if target == "speaker":  # "female_Unknown" would be one person
                unknown = pa.array(UNKNOWN_SPEAKERS, pa.string())
                texts = [pc.if_else(pc.is_in(text, unknown), pa.scalar(None, pa.string()), text) for text in texts]
            table = table.append_column(source, pc.binary_join_element_wise(*texts, "_"))
    names = table.column_names
    for target, source in columns.items():
        roles = (*checks.STRING_COLUMNS, "duration_s", "start_s", "end_s")
        if target not in roles and not target.startswith(("vote_", "attr_")):
            near = arrow.near_names(target, roles)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            expected = ", ".join((*roles, "vote_<class>", "attr_<attribute>"))
            problems.append(f"{target!r} is no column of a manifest, expected one of {expected}{hint}")
        if source not in names:
            problems.append(arrow.missing_column(source, names) + f", asked for as {target!r}")
    if problems:
        raise ManifestError(arrow.sentence(str(path), problems))
    used = set(columns.values())
    out: dict[str, pa.ChunkedArray] = {}
    for name in names:
        targets = [target for target, source in columns.items() if source == name]
        for target in targets:
            out[target] = table.column(name)
        if targets == ["utterance_id"] and name in checks.STRING_COLUMNS and name not in columns:
            out[name] = table.column(name)  # the path may serve as the id, too
        if not targets and name in columns:
            notes.append(f"column {name!r} is now {columns[name]!r}; the former one is kept as '{name}_was'")
            out[f"{name}_was"] = table.column(name)
        elif not targets and name not in used:
            out[name] = table.column(name)
    return pa.table(out), notes


def _with_index(table: pa.Table, columns: dict[str, str], nameless: str) -> tuple[dict[str, str], list[str]]:
    """Return the column without a name, pandas' index, as utterance_id where no other is.

    Never mere row numbers unasked.
    """
    if "utterance_id" in table.column_names and "utterance_id" not in columns:
        return columns, []
    values = arrow.as_strings(table.column(nameless)).to_pylist()
    counted = [[str(i + first) for i in range(len(values))] for first in (0, 1)]
    if values in counted and "utterance_id" not in columns:
        return columns, []
    note = "the column without a name (a pandas index) is the utterance_id"
    return {**columns, "utterance_id": nameless}, [] if "utterance_id" in columns else [note]


def _refuse_missing(path: Path, table: pa.Table, require_label: bool) -> None:
    """Raise ManifestError where a column that every table needs is missing, with the options that would name it."""
    names = table.column_names
    missing: dict[str, str] = {}
    if "path" not in names and "text" not in names:
        missing["path"] = "the audio files; or 'text'"
    elif "utterance_id" not in names:
        missing["utterance_id"] = "an id for each row"
    if require_label and "label" not in names and not any(name.startswith(("vote_", "attr_")) for name in names):
        missing["label"] = "the class; or vote_<class>, attr_<attribute>"
    if not missing:
        return
    lacking = " and no column ".join(f"{role!r} ({what})" for role, what in missing.items())
    near = {role: (arrow.near_names(role, names) or ["YOURS"])[0] for role in missing}
    options = " ".join(f"--column {shlex.quote(f'{role}={name}')}" for role, name in near.items())
    without = ", or leave the labels out with --no-labels" if "label" in missing else ""
    raise ManifestError(
        f"{path} has no column {lacking}, only {', '.join(map(repr, names)) or 'none'}. Name yours, such as "
        f"{options}{without}."
    )


def _joined(path: Path, table: pa.Table, other: Path, column: str, joined_column: str, notes: list[str]) -> pa.Table:
    """Return the table with the columns of another one, row by row where `ours` equals `theirs`.

    Others are empty there.
    """
    joined = read_table_file(other, any_delimiter=True)
    problems = [
        f"{place} {arrow.missing_column(name, of.column_names)}"
        for place, of, name in ((path, table, column), (other, joined, joined_column)) if name not in of.column_names
    ]  # fmt: skip
    if problems:
        raise ManifestError(f"--join: {'; '.join(problems)}.")
    values = arrow.as_strings(joined.column(joined_column)).to_pylist()
    row = {value: i for i, value in enumerate(values) if value is not None}
    if len(row) != len([value for value in values if value is not None]):
        twice = next(value for value in values if value is not None and values.count(value) > 1)
        raise ManifestError(f"{other}: {joined_column} has {twice!r} twice, expected each value once.")
    keys = arrow.as_strings(table.column(column)).to_pylist()
    rows = pa.array([row.get(key) for key in keys], pa.int64())
    missing = sorted({str(key) for key in keys if key not in row})
    if missing:
        notes.append(f"{len(missing):,} values of {column} are not in {other.name}: {', '.join(missing[:5])}")
    for name in joined.column_names:
        if name != joined_column:
            new = f"{other.stem}_{name}" if name in table.column_names else name
            table = table.append_column(new, joined.column(name).combine_chunks().take(rows))
    return table


def _uniform_splits(table: pa.Table, names: Mapping[str, str]) -> tuple[pa.Table, str]:
    """Return the table with known split names in their one spelling, and what to do about others (left as they are)."""
    wrong = sorted({name for name in names.values() if name.lower() not in SPLIT_NAMES})
    if wrong:
        raise ManifestError(f"--split-name: {wrong[0]!r} is no split, expected one of {', '.join(SPLIT_NAMES)}.")
    column = arrow.as_strings(table.column("split"))
    values = [value for value in pc.unique(column).to_pylist() if value is not None]
    mapped = {value: names.get(value, value) for value in values}
    spelling = {value: SPLIT_NAMES.get(mapped[value].strip().lower(), value) for value in values}
    strange = [value for value in values if mapped[value].strip().lower() not in SPLIT_NAMES]
    remedy = f" Say which split {strange[0]!r} is: --split-name {strange[0]}=train." if strange else ""
    uniform = pa.array([spelling.get(value) for value in column.to_pylist()], pa.string())
    return table.set_column(table.column_names.index("split"), "split", uniform), remedy


def _scheme(
    path: Path, table: pa.Table, classes: Sequence[str] | str | None, attributes: Mapping[str, tuple[float, float]]
) -> LabelScheme:
    """Return the classes and ranges that were given, completed from the table's sidecar, else from its columns."""
    implied = LabelScheme.beside(path) or LabelScheme.of_table(table)
    if isinstance(classes, str):
        classes = names_with_commas(classes, LabelScheme.of_table(table).classes)
    names = implied.classes if classes is None else tuple(classes)
    of_corpus = {label: name for label, name in implied.corpus_labels.items() if name is None or name in names}
    return LabelScheme(names, {**implied.attributes, **attributes}, of_corpus)
