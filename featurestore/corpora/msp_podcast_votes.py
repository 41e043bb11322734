"""MSP-Podcast's `labels_detailed.csv`, one row for each annotator of each file, in the three forms it has had.

1.6          FileName, Workers, EmoClass_Major, EmoClass_Second, EmoAct, EmoVal, EmoDom
1.7 to 1.12  FileName, EmoDetail: `WORKER00000001; Happy; Happy,Excited; A:5.000; V:6.000; D:4.000;`
2.0          FileName, WorkerID and the same columns as 1.6
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpora.assemble import numbers, refuse_other_columns
from featurestore.corpus import arrow
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.tables import read_table_file
from featurestore.errors import ManifestError

CLASS_OF_WORD = {
    "angry": "angry",
    "sad": "sad",
    "happy": "happy",
    "surprise": "surprise",
    "fear": "fear",
    "disgust": "disgust",
    "contempt": "contempt",
    "neutral": "neutral",
    "other": "other",
}
SECONDARY = ("amused", "annoyed", "concerned", "confused", "depressed", "disappointed", "excited", "frustrated")
MISSPELT = {"dissapointed": "disappointed"}
OTHER = "other"  # annotators could type a word of their own: `Other-...`, some 1,400 different ones
ATTRIBUTES = {"arousal": ("EmoAct", "A"), "valence": ("EmoVal", "V"), "dominance": ("EmoDom", "D")}
LOW, HIGH = 1.0, 7.0
DETAIL = (
    r"(?s)^\s*(?P<worker>[^;]+?)\s*;\s*(?P<primary>[^;]*?)\s*(?:;(?P<second>.*?))?"
    r";\s*A:\s*(?P<arousal>[^;]*);\s*V:\s*(?P<valence>[^;]*);\s*D:\s*(?P<dominance>[^;]*?)\s*;?\s*$"
)


def read_ratings(path: Path) -> tuple[Ratings, list[str]]:
    """Return the ratings of the file, in any of its forms, and what to note.

    Labels are the eight classes and "other", which stands for every `Other-...`; secondary ones also the further words
    of the annotation form. ManifestError: unknown columns or primary emotions, a rating that can't be read, attributes
    outside 1 to 7; each by row.
    """
    table = read_table_file(path)
    if "EmoDetail" in table.column_names:
        refuse_other_columns(table, path, ("FileName", "EmoDetail"))
        columns, names = (
            _of_detail(table.column("EmoDetail"), path),
            {a: f"EmoDetail {k}" for a, (_, k) in ATTRIBUTES.items()},
        )
        primary_name = "EmoDetail"
    else:
        worker = "WorkerID" if "WorkerID" in table.column_names else "Workers"
        primary_name, second_name = "EmoClass_Major", "EmoClass_Second"
        names = {attribute: theirs for attribute, (theirs, _) in ATTRIBUTES.items()}
        refuse_other_columns(table, path, ("FileName", worker, primary_name, second_name, *names.values()))
        columns = {"worker": table.column(worker), "primary": table.column(primary_name)}
        columns |= {"second": table.column(second_name)}
        columns |= {attribute: table.column(theirs) for attribute, theirs in names.items()}
    also, n_typed = _secondary(columns["second"])
    ratings = Ratings.of(
        table.column("FileName"),
        columns["worker"],
        _primary(columns["primary"], path, primary_name),
        attributes={a: numbers(columns[a], LOW, HIGH, path, theirs) for a, theirs in names.items()},
        also=also,
        source=str(path),
    )
    return ratings, [
        f"{n_typed:,} secondary emotions in words of the annotators' own count as other"
    ] if n_typed else []


def _of_detail(column: pa.ChunkedArray, path: Path) -> dict[str, pa.ChunkedArray]:
    """Return the fields of `WORKER....

    Primary; secondary, ...; A:5; V:6; D:4;`, where the secondary ones may be missing.
    """
    parts = pc.extract_regex(column, DETAIL)
    unread = np.flatnonzero(pc.is_null(parts).to_numpy(zero_copy_only=False))
    if len(unread):
        message = "column 'EmoDetail' is not like 'WORKER00000001; Happy; Happy,Excited; A:5; V:6; D:4;'"
        raise ManifestError(arrow.sentence(str(path), [arrow.listing(message, unread.tolist(), column.to_pylist())]))
    return {name: pc.struct_field(parts, name) for name in ("worker", "primary", "second", *ATTRIBUTES)}


def _primary(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """Return classes, "other" for any word that begins so, null for an empty cell; an unknown word is an error."""
    encoded = column.combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    classes = [_class_of(word, CLASS_OF_WORD) for word in words]
    strange = [word for word, known in zip(words, classes, strict=True) if known is None and word.strip()]
    if strange:
        rows = np.flatnonzero(pc.is_in(column, value_set=pa.array(strange)).to_numpy(zero_copy_only=False)).tolist()
        message = f"column {name!r} has an unknown primary emotion, expected one of {list(CLASS_OF_WORD)} or Other-..."
        raise ManifestError(arrow.sentence(str(path), [arrow.listing(message, rows, column.to_pylist())]))
    return pa.chunked_array([pa.array(classes, pa.string()).take(encoded.indices)])


def _secondary(column: pa.ChunkedArray) -> tuple[pa.Array, int]:
    """Return (R,) lists of secondary labels, and how many were free text that does not begin with Other."""
    lists = pc.split_pattern(pc.fill_null(column, ""), ",").combine_chunks()
    encoded = lists.flatten().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    class_names = {**CLASS_OF_WORD, **dict(zip(SECONDARY, SECONDARY, strict=True)), **MISSPELT}
    labels = [_class_of(word, class_names) for word in words]
    typed = [label is None and bool(word.strip()) for word, label in zip(words, labels, strict=True)]
    labels = [OTHER if free else label for label, free in zip(labels, typed, strict=True)]
    n_typed = int(np.array(typed, bool)[encoded.indices.to_numpy(zero_copy_only=False)].sum()) if words else 0
    return pa.ListArray.from_arrays(lists.offsets, pa.array(labels, pa.string()).take(encoded.indices)), n_typed


def _class_of(word: str, class_names: dict[str, str]) -> str | None:
    word = word.strip().lower()
    return OTHER if word.startswith(OTHER) else class_names.get(word)
