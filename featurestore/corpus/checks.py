"""What can be wrong with a manifest's rows: checks return sentences that name rows and values, all at once."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpus.arrow import as_numbers, as_strings, listing, missing_column, row_numbers
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.pieces import with_pieces
from featurestore.errors import ManifestError

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
SPLIT_REMEDY = " `medusa prepare csv TABLE --split-name YOURS=train` gives a table's splits these names."
STRING_COLUMNS = ("utterance_id", "path", "text", "speaker", "gender", "label", "split", "fold")


def typed(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return names as strings, votes, attributes and durations as float64, and a sentence for each failure."""
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise ManifestError(f"A manifest has two columns of one name: {', '.join(map(repr, twice))}. Rename one.")
    table, problems = with_pieces(table)
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


def table_problems(table: pa.Table, scheme: LabelScheme) -> list[str]:
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
        wrong = membership_problems(table.column("split"), "split", SPLITS)
        problems += [
            f"{each}; `medusa prepare csv` reads other spellings, and --split-name renames splits" for each in wrong
        ]
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


def remedy(problems: Sequence[str]) -> str:
    """Return a sentence on how to mend the problems of a table; "" where they include it."""
    return SPLIT_REMEDY if any(problem.startswith("unknown split") for problem in problems) else ""


def id_problems(ids: pa.ChunkedArray) -> list[str]:
    """Missing and duplicate utterance ids."""
    problems = []
    empty = row_numbers(pc.or_kleene(pc.is_null(ids), pc.equal(pc.utf8_trim_whitespace(ids), "")))
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
    """Return rows, or a whole table, with neither audio nor text."""
    sources = [table.column(name) for name in ("path", "text") if name in table.column_names]
    if not sources:
        return [missing_column("path", table.column_names) + ", and no 'text' column either"]
    nothing = sources[0].is_null()
    for column in sources[1:]:
        nothing = pc.and_(nothing, column.is_null())
    rows = row_numbers(nothing)
    return [listing("neither path nor text", rows)] if rows else []


def membership_problems(column: pa.ChunkedArray, name: str, allowed: Sequence[str]) -> list[str]:
    """Return the values of a column of names that are not among `allowed`; null is allowed."""
    is_allowed = pc.is_in(column, value_set=pa.array(allowed, pa.string()))
    rows = row_numbers(pc.and_not(column.is_valid(), is_allowed))
    if not rows:
        return []
    return [listing(f"unknown {name}, expected one of {list(allowed)}", rows, column.to_pylist())]


def range_problems(column: pa.ChunkedArray, name: str, low: float, high: float) -> list[str]:
    """Return numbers outside [low, high]; null is allowed."""
    rows = row_numbers(pc.or_(pc.less(column, low), pc.greater(column, high)))
    if not rows:
        return []
    expected = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more"
    return [listing(f"{name} out of range, expected {expected}", rows, column.to_pylist())]
