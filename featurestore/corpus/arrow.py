"""Columns of an Arrow table as names and numbers, and the words for what is wrong with its rows and columns."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.runtime.wording import counted

N_SHOWN = 10
_COMMA, _THOUSANDS = re.compile(r"[+-]?\d+(,\d+)?"), re.compile(r"[+-]?\d{1,3},\d{3}")
ROWS_COUNT = "(Rows are counted from 1, the header not included.)"

# Names under which the field keeps these columns; difflib alone would not bring "emotion" and "label" together.
SYNONYMS = {
    "utterance_id": ("FileName", "file_name", "filename", "utt_id", "utterance", "id", "key", "name", "path", "wav"),
    "path": (
        "wav",
        "file",
        "audio",
        "audio_path",
        "wav_path",
        "filepath",
        "file_path",
        "file_name",
        "FileName",
        "recording",
    ),
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


def as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of names as strings: whole numbers lose a float's `.0`, empty becomes null."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_floating(column.type) and pc.all(pc.equal(column, pc.round(column))).as_py() is not False:
        column = pc.cast(column, pa.int64())  # pandas turns an integer column with a gap into floats
    column = pc.cast(column, pa.string())
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def alike(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return the tables, a column that is numbers in one (of Parquet) and text in another (of CSV) as text in all."""
    types: dict[str, set[str]] = {}
    for table in tables:
        for field in table.schema:
            types.setdefault(field.name, set()).add("text" if _is_text(field.type) else str(field.type))
    mixed = {name for name, found in types.items() if "text" in found and len(found) > 1}
    return [_as_text(table, mixed) for table in tables]


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for i, name in enumerate(table.column_names):
        if name in names and not pa.types.is_nested(table.column(i).type):
            table = table.set_column(i, name, as_strings(table.column(i)))
    return table


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def nested_problems(table: pa.Table, names: Sequence[str]) -> list[str]:
    """Return a sentence for each of these columns, of those the table has, whose cells are lists or records."""
    return [
        f"column {name!r} holds a {table.column(name).type} in each row, expected one text or number; "
        "take the part of it that is meant as a column of its own"
        for name in names if name in table.column_names and pa.types.is_nested(table.column(name).type)
    ]  # fmt: skip


def as_numbers(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """Return a column as float64 with NaN and empty as null, and the rows whose value is no finite number.

    Texts with decimal commas throughout (0,8) are understood; 1,234 alone may be a thousand, and is no number.
    """
    try:
        numbers = pc.cast(as_strings(column) if pa.types.is_string(column.type) else column, pa.float64())
        bad: list[int] = []
    except pa.ArrowException:
        values, bad = [], []
        for i, value in enumerate(with_points(column.to_pylist())):
            try:
                if isinstance(value, str) and "_" in value:
                    raise ValueError  # float takes 1_0 for ten
                values.append(None if value is None or value == "" else float(value))
            except (TypeError, ValueError):
                bad.append(i)
                values.append(None)
        numbers = pa.chunked_array([pa.array(values, pa.float64())])
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    infinite = row_numbers(pc.is_inf(numbers))
    return numbers, sorted(bad + infinite)


def with_points(values: list[Any]) -> list[Any]:
    """Return texts with points for decimal commas, where all are written so and none can mean thousands alone."""
    texts = [value for value in values if value]
    if not all(isinstance(text, str) and _COMMA.fullmatch(text.strip()) for text in texts):
        return values
    if all(_THOUSANDS.fullmatch(text.strip()) for text in texts if "," in text):
        return values
    return [value.replace(",", ".") if value else value for value in values]


def row_numbers(mask: pa.ChunkedArray) -> list[int]:
    """Return where a mask is true, counted from 0; null is false."""
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).tolist()


def near_names(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of `names` that a person who wrote `name` may have meant, by synonym, then by spelling.

    Letter case, blanks, `_`, `-` and `.` make no difference: "File Name" may be meant by "file_name".
    """
    plain = {_plain(candidate): candidate for candidate in reversed(names)}
    synonyms = [plain[_plain(word)] for word in (name, *SYNONYMS.get(name, ())) if _plain(word) in plain]
    spelled = [plain[word] for word in difflib.get_close_matches(_plain(name), list(plain), n=3, cutoff=0.6)]
    return list(dict.fromkeys(synonyms + spelled))[:3]


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name.lower())


def missing_column(name: str, names: Sequence[str]) -> str:
    """Return the sentence for a missing column: the columns that are there, and those of a similar name."""
    near = near_names(name, names)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"has no column {name!r}, only {', '.join(map(repr, names)) or 'none'}{hint}"


def listing(message: str, rows: Sequence[int], values: Sequence[object] | None = None) -> str:
    """Return `message (14 rows): row 3 'x', row 9 'y' and 12 more`, rows counted from 1.

    `values` is indexed like the table.
    """
    shown = [f"row {i + 1}" + ("" if values is None else f" {values[i]!r}") for i in rows[:N_SHOWN]]
    more = f" and {len(rows) - N_SHOWN:,} more" if len(rows) > N_SHOWN else ""
    return f"{message} ({counted(len(rows), 'row')}): {', '.join(shown)}{more}"


def sentence(source: str, problems: Sequence[str]) -> str:
    """Return one message for all the problems of a table, each on a line of its own where there are several."""
    rows = f" {ROWS_COUNT}" if any(": row " in p for p in problems) else ""
    if len(problems) == 1:
        return f"{source}: {problems[0]}.{rows}"
    return f"{source} has {len(problems)} problems.{rows}\n" + "\n".join(f"  - {p}" for p in problems)
