"""What can be wrong with a manifest's rows: checks return sentences that name rows and values, all at once."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import ManifestError

if TYPE_CHECKING:
    from featurestore.corpus.label_scheme import LabelScheme

SPLITS = ("train", "development", "test", "test1", "test2", "test3")
# The names under which the field keeps its splits; anything else is an error, never a guess.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "development",
    "development": "development",
    "val": "development",
    "valid": "development",
    "validation": "development",
    "test": "test",
    "test1": "test1",
    "test2": "test2",
    "test3": "test3",
}
STRING_COLUMNS = ("utterance_id", "path", "text", "speaker", "gender", "label", "split", "fold")
N_SHOWN = 10
ROWS_COUNT = "(Rows are counted from 1, the header not included.)"

# Names under which the field keeps these columns; difflib alone would not bring "emotion" and "label" together.
SYNONYMS = {
    "utterance_id": ("FileName", "file_name", "filename", "utt_id", "utterance", "id", "key", "name", "path", "wav"),
    "path": ("wav", "file", "audio", "audio_path", "wav_path", "filepath", "file_path", "file_name", "FileName"),
    "text": ("transcript", "transcription", "sentence", "utterance", "words"),
    "speaker": ("SpkrID", "speaker_id", "spk", "actor", "spkr"),
    "gender": ("Gender", "sex"),
    "label": ("emotion", "emo", "EmoClass", "class", "category", "target", "emotion_label"),
    "split": ("Split_Set", "set", "subset", "partition", "usage"),
    "fold": ("session", "cv_fold"),
    "attr_arousal": ("EmoAct", "arousal", "activation"),
    "attr_valence": ("EmoVal", "valence"),
    "attr_dominance": ("EmoDom", "dominance"),
    "duration_s": ("duration", "length", "dur"),
}


def typed(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Names as strings, votes, attributes and durations as float64; and the sentences for what would not convert."""
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise ManifestError(f"A manifest has two columns of one name: {', '.join(map(repr, twice))}. Rename one.")
    problems: list[str] = []
    for i, name in enumerate(table.column_names):
        column = table.column(name)
        if name in STRING_COLUMNS:
            try:
                column = as_strings(column)
            except pa.ArrowException:
                problems.append(f"column {name!r} must hold strings, found {column.type}")
        elif name == "duration_s" or name.startswith(("vote_", "attr_")):
            values = column
            column, bad = as_numbers(column)
            if bad:
                problems.append(listing(f"{name} is not a number", bad, values.to_pylist()))
        table = table.set_column(i, name, column)
    return table, problems


def table_problems(table: pa.Table, scheme: "LabelScheme") -> list[str]:
    """Everything wrong with the rows of a typed table under a label scheme, as sentences without a full stop."""
    names = table.column_names
    if "utterance_id" not in names:
        return [missing_column("utterance_id", names) + "; `medusa prepare csv` renames columns"]
    if not table.num_rows:
        return ["has no rows; expected at least one utterance"]
    problems = id_problems(table.column("utterance_id")) + source_problems(table)
    if "label" in names:
        problems += membership_problems(table.column("label"), "label", scheme.classes)
    if "split" in names:
        problems += membership_problems(table.column("split"), "split", SPLITS)
    if "duration_s" in names:
        problems += range_problems(table.column("duration_s"), "duration_s", 0.0, np.inf)
    votes = {name.removeprefix("vote_") for name in names if name.startswith("vote_")}
    if votes and votes != set(scheme.classes):
        problems.append(
            f"there must be a vote column for each class {list(scheme.classes)}, found them for {sorted(votes)}"
        )
    for vote in sorted(votes):
        problems += range_problems(table.column(f"vote_{vote}"), f"vote_{vote}", 0.0, np.inf)
    attributes = {name.removeprefix("attr_") for name in names if name.startswith("attr_")}
    if attributes != set(scheme.attributes):
        problems.append(
            f"there must be an attr_ column for each attribute of the scheme {list(scheme.attributes)}, "
            f"found them for {sorted(attributes)}"
        )
    for attribute in sorted(attributes & set(scheme.attributes)):
        problems += range_problems(
            table.column(f"attr_{attribute}"), f"attr_{attribute}", *scheme.attributes[attribute]
        )
    return problems


def near_names(name: str, names: Sequence[str]) -> list[str]:
    """Up to three of `names` that a person who wrote `name` may have meant, by synonym, then by spelling."""
    lower = {candidate.lower(): candidate for candidate in reversed(names)}
    known = [lower[word.lower()] for word in (name, *SYNONYMS.get(name, ())) if word.lower() in lower]
    spelled = [lower[word] for word in difflib.get_close_matches(name.lower(), list(lower), n=3, cutoff=0.6)]
    return list(dict.fromkeys(known + spelled))[:3]


def missing_column(name: str, names: Sequence[str]) -> str:
    """What to say of a column that is not there: the ones that are, and the near ones."""
    near = near_names(name, names)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"has no column {name!r}, only {', '.join(map(repr, names)) or 'none'}{hint}"


def listing(what: str, rows: Sequence[int], values: Sequence[object] | None = None) -> str:
    """`what (14 rows): row 3 'x', row 9 'y' and 12 more`, rows counted from 1; `values` is indexed like the table."""
    shown = [f"row {i + 1}" + ("" if values is None else f" {values[i]!r}") for i in rows[:N_SHOWN]]
    more = f" and {len(rows) - N_SHOWN:,} more" if len(rows) > N_SHOWN else ""
    return f"{what} ({len(rows):,} row{'s' * (len(rows) > 1)}): {', '.join(shown)}{more}"


def sentence(source: str, problems: Sequence[str]) -> str:
    """One message for all the problems of a table: a line when there is one, else a line each."""
    rows = f" {ROWS_COUNT}" if any(": row " in p for p in problems) else ""
    if len(problems) == 1:
        return f"{source}: {problems[0]}.{rows}"
    return f"{source} has {len(problems)} problems.{rows}\n" + "\n".join(f"  - {p}" for p in problems)


def as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of names as strings: whole numbers lose a float's `.0`, empty becomes null."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_floating(column.type) and pc.all(pc.equal(column, pc.round(column))).as_py() is not False:
        column = pc.cast(column, pa.int64())  # pandas turns an integer column with a gap into floats
    column = pc.cast(column, pa.string())
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def as_numbers(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """A column as float64 with NaN and empty as null, and the rows whose value is no finite number."""
    try:
        numbers = pc.cast(as_strings(column) if pa.types.is_string(column.type) else column, pa.float64())
        bad: list[int] = []
    except pa.ArrowException:
        values, bad = [], []
        for i, value in enumerate(column.to_pylist()):
            try:
                values.append(None if value is None or value == "" else float(value))
            except (TypeError, ValueError):
                bad.append(i)
                values.append(None)
        numbers = pa.chunked_array([pa.array(values, pa.float64())])
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    infinite = _rows(pc.is_inf(numbers))
    return numbers, sorted(bad + infinite)


def id_problems(ids: pa.ChunkedArray) -> list[str]:
    """Missing and duplicate utterance ids."""
    problems = []
    empty = _rows(pc.or_kleene(pc.is_null(ids), pc.equal(pc.utf8_trim_whitespace(ids), "")))
    if empty:
        problems.append(listing("utterance_id is empty", empty))
    codes = ids.combine_chunks().dictionary_encode().indices
    order = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    _, first, counts = np.unique(order, return_index=True, return_counts=True)
    if (counts > 1).any():
        repeated = np.ones(len(order), bool)
        repeated[first] = False
        repeated &= order >= 0
        if repeated.any():
            rows = np.flatnonzero(repeated)
            problems.append(listing("utterance_id repeats an earlier row's", rows.tolist(), ids.to_pylist()))
    return problems


def source_problems(table: pa.Table) -> list[str]:
    """Rows, or a whole table, with neither audio nor text."""
    sources = [table.column(name) for name in ("path", "text") if name in table.column_names]
    if not sources:
        return [missing_column("path", table.column_names) + ", and no 'text' column either"]
    nothing = sources[0].is_null()
    for column in sources[1:]:
        nothing = pc.and_(nothing, column.is_null())
    rows = _rows(nothing)
    return [listing("neither path nor text", rows)] if rows else []


def membership_problems(column: pa.ChunkedArray, name: str, allowed: Sequence[str]) -> list[str]:
    """Values of a column of names that are not among `allowed`; null is allowed."""
    known = pc.is_in(column, value_set=pa.array(allowed, pa.string()))
    rows = _rows(pc.and_not(column.is_valid(), known))
    if not rows:
        return []
    return [listing(f"unknown {name}, expected one of {list(allowed)}", rows, column.to_pylist())]


def range_problems(column: pa.ChunkedArray, name: str, low: float, high: float) -> list[str]:
    """Numbers outside [low, high]; null is allowed."""
    rows = _rows(pc.or_(pc.less(column, low), pc.greater(column, high)))
    if not rows:
        return []
    expected = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"
    return [listing(f"{name} out of range, expected {expected}", rows, column.to_pylist())]


def _rows(mask: pa.ChunkedArray) -> list[int]:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).tolist()
