"""Files of predictions, whoever wrote them: columns by name, keys matched to a manifest, nothing guessed silently.

Read are: what `medusa predict` writes (`file,label,p_<class>,attr_<attribute>`, CSV or JSON lines); MEDUSA's
`FileName,Prediction`, eleven numbers in one cell; submissions (`FileName,EmoClass`, `FileName,EmoAct,EmoVal,EmoDom`);
and any table with an id column and a label column, columns of probabilities or logits, or columns of attributes.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from deepser.scores.probabilities import softmax
from ensemble.evaluation.emotion_names import LETTERS, class_named
from ensemble.evaluation.matching import matched_keys
from ensemble.evaluation.system import ADAPTED_NOTE, System
from featurestore.corpus import arrow, checks
from featurestore.corpus.label_scheme import ATTRIBUTE_RANGE, LabelScheme
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.pieces import END, START, piece_id
from featurestore.corpus.tables import NAMELESS, read_table_file
from featurestore.errors import AlignmentError, ConfigError, MedusaError, PredictionsError
from featurestore.runtime.json_text import read_json

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
ID_COLUMNS = ("utterance_id", "file", *arrow.SYNONYMS["utterance_id"], *NAMELESS)
LABEL_COLUMNS = ("label", "EmoClass", "predicted", "pred", "emotion", "emo", "class", "predicted_label", "prediction")
PACKED_COLUMN = "Prediction"
# The order of MEDUSA's eleven numbers, which the file itself does not state.
PACKED_CLASSES = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
PACKED_ATTRIBUTES = ("arousal", "valence", "dominance")
PROBABILITY_PREFIXES, LOGIT_PREFIX, ATTRIBUTE_PREFIX = ("p_", "prob_", ""), "logit_", "attr_"
PREDICTED = ("{}_pred", "{}_predicted", "{}_prediction", "pred_{}", "predicted_{}")  # of an attribute
# What a column can be chosen for; attributes are chosen as attr_<attribute>.
ID, LABEL, SCORES = "id", "label", "scores"
ROLES = {ID: "utterance's id", LABEL: "predicted label", SCORES: "classes' scores"}
SPEAKER_CLIPS = "speaker_clips"  # of `predict`: how many clips of its speaker a speaker-adapted model read
PIECES = "file, start_s and end_s"  # the ids of pieces, as messages name them
SUM_TOLERANCE = 0.02  # of a row of probabilities that were written with two digits


def read_predictions(path: Path, manifest: Manifest, columns: Mapping[str, str] | None = None) -> System:
    """Return the predictions in a file, under the manifest's keys and classes.

    MSP-Podcast's classes where the manifest names none.

    Ids are matched as they are, else without the audio suffix, else without folders. A label is a class's name in any
    case, another spelling of it, or MSP-Podcast's letter.

    Where several columns could be meant and differ, none is guessed. columns: the one that is, by what it holds: "id",
    "label", "attr_<attribute>", and "scores", for which the prefix of the classes' columns is given (p_, logit_, or
    "" for bare names). A label beside probabilities is not scored, unless it is chosen and the scores aren't; a note
    counts the rows in which it contradicts them.
    PredictionsError: columns, labels or numbers that can't be read or distinguished, by row; AlignmentError: ids that
    the manifest does not have.
    """
    table = _read(path)
    manifest_scheme = manifest.scheme
    scheme = LabelScheme(
        manifest_scheme.classes or PACKED_CLASSES,
        manifest_scheme.attributes or dict.fromkeys(PACKED_ATTRIBUTES, ATTRIBUTE_RANGE),
        manifest_scheme.corpus_labels,
    )  # fmt: skip
    chosen = dict(columns or {})
    _check_chosen(path, table, scheme, chosen)
    id_columns = [chosen[ID]] if ID in chosen else _called(table.column_names, ID_COLUMNS)
    if not id_columns:
        missing = arrow.missing_column("utterance_id", table.column_names)
        raise PredictionsError(f"{path} {missing}. --column id=NAME says which it is.")
    table, ends = _with_piece_ids(table, id_columns)
    id_column, keys, notes = _identified(path, table, [*ends, *id_columns], manifest)
    read = _Columns(path, table, scheme, chosen, {id_column, *ends, *(ends and (START, END))})
    packed = table.column_names.count(PACKED_COLUMN) and SCORES not in chosen and read.packed()
    if packed:
        read.check_packed(packed[0])
    probabilities = packed[0] if packed else read.probabilities()
    values, attributes = packed[1:] if packed else read.attributes()
    if probabilities is not None and LABEL in chosen and SCORES not in chosen and read.contradicted(probabilities):
        probabilities = None  # the label was asked for
    if probabilities is None:
        predicted = read.labels()
    else:
        predicted = read.choose(probabilities)
    if predicted is None and not attributes:
        raise PredictionsError(
            f"{path} has no predictions: expected a label column ({', '.join(LABEL_COLUMNS[:2])}), a column for each "
            f"class (p_{scheme.classes[0]}, ... or logit_{scheme.classes[0]}, ...) or attributes "
            f"(attr_{next(iter(scheme.attributes))} or EmoAct, ...), found {', '.join(table.column_names)}. "
            f"--column label=NAME (or scores=PREFIX, attr_{next(iter(scheme.attributes))}=NAME) says which they are."
        )
    for a, name in enumerate(attributes):
        low, high = scheme.attributes[name]
        outside = int(((values[:, a] < low) | (values[:, a] > high)).sum())
        if outside:
            notes.append(f"{outside:,} values of {name} lie outside its scale of {low:g} to {high:g}")
    notes += read.notes
    if SPEAKER_CLIPS in table.column_names and SPEAKER_CLIPS not in read.used:
        clips = arrow.as_numbers(table.column(SPEAKER_CLIPS))[0].to_numpy()
        notes += [ADAPTED_NOTE] if (clips > 1).any() else []
    unread = [name for name in table.column_names if name not in read.used and not _is_spread(name)]
    if unread:
        notes.append(f"columns not read: {', '.join(name or repr(name) for name in unread)}")
    return System(str(path), keys, scheme.classes, predicted, probabilities, attributes, values, notes=tuple(notes))


def _is_spread(column: str) -> bool:
    """Whether it is a column that `predict` writes beside its predictions: its uncertainty, a speaker's clips."""
    return column in ("entropy", "disagreement", SPEAKER_CLIPS) or column.startswith("sd_")


class _Columns:
    """A table's predictions, by what its columns are called; `used` and `notes` say what was made of them."""

    def __init__(
        self, path: Path, table: pa.Table, scheme: LabelScheme, chosen: Mapping[str, str], used: set[str]
    ) -> None:
        self.path, self.table, self.scheme, self.chosen, self.used = path, table, scheme, chosen, used
        self.notes: list[str] = []

    def probabilities(self) -> np.ndarray | None:
        """Return (N, C) float32 from a column for each class, None where there is none for any."""
        classes = self.scheme.classes
        prefixes = (self.chosen[SCORES],) if SCORES in self.chosen else (LOGIT_PREFIX, *PROBABILITY_PREFIXES)
        by_prefix = {prefix: columns for prefix in prefixes if (columns := self._class_columns(prefix))}
        complete = {prefix: columns for prefix, columns in by_prefix.items() if len(columns) == len(classes)}
        if not by_prefix:
            return None
        if not complete:
            prefix, columns = next(iter(by_prefix.items()))
            missing = [name for name in classes if name not in columns]
            raise PredictionsError(
                f"{self.path} has columns {', '.join(columns.values())}, but none for {', '.join(missing)}; "
                f"expected one for each class: {', '.join(prefix + name for name in classes)}."
            )
        scores = {
            prefix: self._scores(prefix, [columns[name] for name in classes]) for prefix, columns in complete.items()
        }
        self.used |= {column for columns in complete.values() for column in columns.values()}
        first = next(iter(scores))
        differ = {prefix: np.abs(p - scores[first]).max(1) > SUM_TOLERANCE for prefix, p in scores.items()}
        self._same(SCORES, differ, lambda prefix: f"{prefix}{classes[0]}, ...")
        return scores[first]

    def check_packed(self, packed: np.ndarray) -> None:
        """Raise PredictionsError where columns of classes differ from the (N, C) probabilities of one column."""
        of_columns = self.probabilities()
        if of_columns is None:
            return
        n = int((np.abs(of_columns - packed).max(1) > SUM_TOLERANCE).sum())
        if n:
            raise PredictionsError(
                f"{self.path}: {PACKED_COLUMN!r} and the columns of classes could both be the {ROLES[SCORES]}, and "
                f"differ in {n:,} of {len(packed):,} rows. Choose the columns with --column {SCORES}=p_ (their "
                "prefix), or leave one of the two out of the file."
            )

    def labels(self) -> np.ndarray | None:
        """Return (N,) int64 from a label column, None where there is none."""
        columns = self._label_columns()
        if not columns:
            return None
        names_of = {column: self._meant(column) for column in columns}
        first = next(iter(names_of))
        differ = {
            column: np.array([a != b for a, b in zip(own, names_of[first], strict=True)])
            for column, own in names_of.items()
        }
        self._same(LABEL, differ, str)
        self.used |= set(columns)
        texts = arrow.as_strings(self.table.column(first)).to_pylist()
        wrong = [row for row, name in enumerate(names_of[first]) if name is None]
        if wrong:
            letters = ", ".join(letter for letter in LETTERS if class_named(letter, self.scheme))
            raise PredictionsError(
                f"{self.path}: {arrow.listing(f'{first} is no class', wrong, texts)}; expected one of "
                f"{', '.join(self.scheme.classes)}"
                + (f" or the letters {letters}" if letters else "")
                + f". {arrow.ROWS_COUNT}"
            )
        return np.array([self.scheme.classes.index(str(name)) for name in names_of[first]], np.int64)

    def contradicted(self, probabilities: np.ndarray) -> bool:
        """Whether the chosen column contradicts the largest of (N, C) probabilities; a note counts the rows."""
        index = {name: c for c, name in enumerate(self.scheme.classes)}
        labels = [None if name is None else index[name] for name in self._meant(self.chosen[LABEL])]
        pairs = zip(labels, probabilities, strict=True)
        n = sum(c is None or bool(row[c] < row.max()) for c, row in pairs)
        if n:
            self.notes.append(
                f"column {self.chosen[LABEL]!r} is scored as chosen; the probabilities are not read, since their "
                f"largest contradicts it in {n:,} of {len(labels):,} rows"
            )
        return n > 0

    def choose(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the most probable class of each row, (N,) int64; of equals the label column's, else the first.

        Notes say in how many rows a label names another class than (N, C) probabilities, which are scored, and in how
        many nothing tells equals apart.
        """
        named = [self.chosen[LABEL]] if LABEL in self.chosen else _called(self.table.column_names, LABEL_COLUMNS)
        index = {name: c for c, name in enumerate(self.scheme.classes)}
        predicted: np.ndarray = probabilities.argmax(1)
        largest = probabilities.max(1)
        tied = (probabilities == largest[:, None]).sum(1) > 1
        for column in [name for name in named if name not in self.used]:
            self.used.add(column)
            labels = [None if name is None else index[name] for name in self._meant(column)]
            n = sum(c is None or probabilities[row, c] < largest[row] for row, c in enumerate(labels))
            for row in np.flatnonzero(tied).tolist():
                c = labels[row]
                if c is not None and probabilities[row, c] == largest[row]:
                    predicted[row], tied[row] = c, False
            if n:
                self.notes.append(
                    f"column {column!r} contradicts the largest probability in {n:,} of {len(largest):,} rows; the "
                    "probabilities are scored"
                )
        if tied.any():
            self.notes.append(
                f"{int(tied.sum()):,} of {len(tied):,} rows give the highest probability to several classes; the first "
                f"of the scheme ({', '.join(self.scheme.classes)}) is scored"
            )
        return predicted

    def _class_columns(self, prefix: str) -> dict[str, str]:
        """Return the columns that are called `prefix` and a class, by class."""
        column_of_class: dict[str, str] = {}
        for column in self.table.column_names:
            if column in self.used or not column.casefold().startswith(prefix.casefold()):
                continue
            name = class_named(column[len(prefix) :], self.scheme)
            if name is not None and name in column_of_class:
                raise PredictionsError(
                    f"{self.path} has two columns of class {name!r}: {column_of_class[name]}, {column}."
                )
            if name is not None:
                column_of_class[name] = column
        return column_of_class

    def _scores(self, prefix: str, columns: Sequence[str]) -> np.ndarray:
        scores = np.stack([self._numbers(column) for column in columns], 1)
        if prefix.casefold() == LOGIT_PREFIX:
            if (scores >= 0).all() and (np.abs(scores.sum(1) - 1) < 1e-3).all():
                raise PredictionsError(
                    f"{self.path}: {', '.join(columns)} are 0 or more and sum to 1 in every row, as probabilities do, "
                    f"not logits. Call them {PROBABILITY_PREFIXES[0]}<class>."
                )
            return softmax(scores).astype(np.float32)
        if (scores >= 0).all() and (np.abs(scores.sum(1) - 100) <= 100 * SUM_TOLERANCE).all():
            self.notes.append(f"{', '.join(columns)} sum to 100 in every row and are read as per cent")
            scores = scores / 100
        return self._distributions(scores, columns, prefix)

    def _label_columns(self) -> list[str]:
        """Return columns that could be the labels: by their name, or since every value is a class's name."""
        if LABEL in self.chosen:
            return [self.chosen[LABEL]]
        free = [column for column in self.table.column_names if column not in self.used]
        called = _called(free, LABEL_COLUMNS)
        return called + [column for column in free if called and column not in called and self._holds_classes(column)]

    def _holds_classes(self, column: str) -> bool:
        """Return whether every value is a class's name or spelling; a letter is not (F of a gender is no fear)."""
        values = self.table.column(column)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return False
        texts = set(values.to_pylist())
        return all(text is not None and len(text) > 1 and class_named(text, self.scheme) for text in texts)

    def _meant(self, column: str) -> list[str | None]:
        """Return the class that each value names, None for one that names none."""
        texts = arrow.as_strings(self.table.column(column)).to_pylist()
        class_of_text = {
            text: None if text is None else class_named(text, self.scheme) for text in dict.fromkeys(texts)
        }
        return [class_of_text[text] for text in texts]

    def _same(self, role: str, differ: Mapping[str, np.ndarray], shown: Callable[[str], str]) -> None:
        """Raise PredictionsError where a candidate for a role differs from the first; differ: (N,) bool of each."""
        first, *further_columns = differ
        for other in further_columns:
            n = int(differ[other].sum())
            if n:
                role_name = ROLES.get(role, role.removeprefix(ATTRIBUTE_PREFIX))
                raise PredictionsError(
                    f"{self.path}: {shown(first)!r} and {shown(other)!r} could both be the {role_name}, and differ in "
                    f"{n:,} of {self.table.num_rows:,} rows. Choose with --column {role}={first} or --column "
                    f"{role}={other}, or leave the other out of the file."
                )

    def attributes(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return (N, A') float32 of the attributes that have a column, and their names."""
        values: dict[str, np.ndarray] = {}
        for name in self.scheme.attributes:
            role = ATTRIBUTE_PREFIX + name
            free = [column for column in self.table.column_names if column not in self.used]
            spelled = (role, name, *(form.format(name) for form in PREDICTED), *arrow.SYNONYMS.get(role, ()))
            columns = [self.chosen[role]] if role in self.chosen else _called(free, spelled)
            if columns:
                numbers = {column: self._numbers(column) for column in columns}
                first = numbers[columns[0]]
                self._same(role, {column: own != first for column, own in numbers.items()}, str)
                self.used |= set(columns)
                values[name] = first
        stacked = np.stack(list(values.values()), 1) if values else np.empty((self.table.num_rows, 0))
        return stacked.astype(np.float32), tuple(values)

    def packed(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None:
        """Return probabilities, attributes and their names from MEDUSA's `Prediction`; None where it holds labels."""
        cells = arrow.as_strings(self.table.column(PACKED_COLUMN)).to_pylist()
        if not any(cell and "," in cell for cell in cells):
            return None
        self.used.add(PACKED_COLUMN)
        expected = len(PACKED_CLASSES) + len(PACKED_ATTRIBUTES)
        numbers = np.full((len(cells), expected), np.nan)
        for row, cell in enumerate(cells):
            with contextlib.suppress(ValueError):  # left NaN, and named below
                numbers[row] = [float(number) for number in (cell or "").strip("[] ").split(",")]
        wrong = np.flatnonzero(~np.isfinite(numbers).all(1)).tolist()
        if wrong:
            listed = arrow.listing(f"{PACKED_COLUMN} is not {expected} numbers", wrong, cells)
            raise PredictionsError(f"{self.path}: {listed}. {arrow.ROWS_COUNT}")
        named = [class_named(name, self.scheme) for name in PACKED_CLASSES]
        lacking = [name for name in self.scheme.classes if name not in named]
        if lacking:
            raise PredictionsError(
                f"{self.path}: {PACKED_COLUMN} holds {', '.join(PACKED_CLASSES)}, but nothing for "
                f"{', '.join(lacking)}, which the manifest's label scheme has."
            )
        scores = numbers[:, [named.index(name) for name in self.scheme.classes]]
        class_numbers = numbers[:, : len(PACKED_CLASSES)]
        logits = (class_numbers < 0).any() or (np.abs(class_numbers.sum(1) - 1) > SUM_TOLERANCE).any()
        self.notes.append(
            f"{PACKED_COLUMN} read as MEDUSA's: {'logits' if logits else 'probabilities'} of "
            f"{', '.join(PACKED_CLASSES)}; {', '.join(PACKED_ATTRIBUTES)}"
        )
        attributes = tuple(name for name in self.scheme.attributes if name in PACKED_ATTRIBUTES)
        values = numbers[:, [len(PACKED_CLASSES) + PACKED_ATTRIBUTES.index(name) for name in attributes]]
        probabilities = softmax(scores) if logits else (scores / np.maximum(scores.sum(1, keepdims=True), 1e-30))
        return probabilities.astype(np.float32), values.astype(np.float32), attributes

    def _numbers(self, column: str) -> np.ndarray:
        values = self.table.column(column)
        numbers, bad = arrow.as_numbers(values)
        array: np.ndarray = numbers.to_numpy()
        wrong = sorted(set(bad) | set(np.flatnonzero(np.isnan(array)).tolist()))
        if wrong:
            listed = arrow.listing(f"{column} is not a number", wrong, values.to_pylist())
            raise PredictionsError(f"{self.path}: {listed}. {arrow.ROWS_COUNT}")
        return array

    def _distributions(self, scores: np.ndarray, columns: Sequence[str], prefix: str) -> np.ndarray:
        total = scores.sum(1, keepdims=True)
        wrong = np.flatnonzero((scores < 0).any(1) | (np.abs(total[:, 0] - 1) > SUM_TOLERANCE)).tolist()
        if wrong:
            listed = arrow.listing(f"{', '.join(columns)} are no probabilities", wrong, np.round(scores, 4).tolist())
            others = [name for name in self.table.column_names if prefix and name.startswith(prefix)]
            others = [name for name in others if name not in columns]
            more = f" {', '.join(others)} belong to no class of the manifest." if others else ""
            raise PredictionsError(
                f"{self.path}: {listed}; expected numbers of 0 or more that sum to 1.{more} Call logits "
                f"{LOGIT_PREFIX}<class>. {arrow.ROWS_COUNT}"
            )
        probabilities: np.ndarray = (scores / total).astype(np.float32)
        return probabilities


def _called(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns that have one of these names, in any case, in the order of the names."""
    ranks = {name.casefold(): rank for rank, name in reversed(list(enumerate(names)))}
    return sorted((c for c in columns if c.casefold() in ranks), key=lambda c: ranks[c.casefold()])


def _check_chosen(path: Path, table: pa.Table, scheme: LabelScheme, chosen: Mapping[str, str]) -> None:
    """Raise ConfigError for an unknown role, or a column that the file does not have."""
    roles = (*ROLES, *(ATTRIBUTE_PREFIX + name for name in scheme.attributes))
    for role, column in chosen.items():
        if role not in roles:
            raise ConfigError(f"--column {role}={column}: expected one of {', '.join(roles)} before the =.")
        if role != SCORES and column not in table.column_names:
            raise ConfigError(
                f"--column {role}={column}: {path} has no such column; it has {', '.join(table.column_names)}."
            )


def _with_piece_ids(table: pa.Table, id_columns: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Add the ids of pieces, such as `call.m4a[2-8]`, where rows have start_s and end_s; the name of that column."""
    if not {START, END} <= set(table.column_names):
        return table, []
    starts, ends = (arrow.as_numbers(table.column(name))[0].to_pylist() for name in (START, END))
    names = arrow.as_strings(table.column(id_columns[0])).to_pylist()
    ids = [
        name if name is None else piece_id(name, low or 0.0, high)
        for name, low, high in zip(names, starts, ends, strict=True)
    ]
    return table.append_column(PIECES, pa.array(ids, pa.string())), [PIECES]


def _identified(
    path: Path, table: pa.Table, columns: Sequence[str], manifest: Manifest
) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the id column, the manifest's key of each row, and notes.

    Of several columns it is the one whose ids the manifest has.

    PredictionsError where two columns name different utterances.
    """
    candidates: dict[str, tuple[tuple[str, ...], list[str]]] = {}
    errors: list[MedusaError] = []
    for column in columns:
        ids = arrow.as_strings(table.column(column))
        wrong = [problem.replace("utterance_id", column) for problem in checks.id_problems(ids)]
        try:
            if wrong:
                raise PredictionsError(arrow.sentence(str(path), wrong))
            candidates[column] = matched_keys(path, ids.to_pylist(), manifest)
        except (PredictionsError, AlignmentError) as error:
            errors.append(error)
    if not candidates:
        raise errors[0]
    first, *others = candidates
    for other in others:
        if candidates[other][0] != candidates[first][0]:
            raise PredictionsError(
                f"{path}: {first!r} and {other!r} could both be the {ROLES[ID]}, and name different utterances. Choose "
                f"with --column {ID}={first} or --column {ID}={other}, or leave the other out of the file."
            )
    return first, *candidates[first]


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise PredictionsError(f"{path} does not exist; give a file of predictions, or the name of posteriors.")
    if path.suffix.lower() == ".jsonl":
        table = _read_json_lines(path)
    else:
        table = read_table_file(path, any_delimiter=True)
    if not table.num_rows:
        raise PredictionsError(f"{path} has no rows; expected a prediction in each.")
    return table


def _read_json_lines(path: Path) -> pa.Table:
    """One flat object per line; every value as text, a list as its numbers between commas."""
    rows = []
    try:
        # str.splitlines also breaks at characters that JSON leaves as they are, such as U+2028 in a file's name.
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
            if line.strip():
                row = read_json(line)
                if not isinstance(row, dict):
                    raise PredictionsError(f"{path}, line {number}: expected an object of named values, found {row!r}.")
                rows.append(row)
    except ValueError as error:
        raise PredictionsError(f"{path} is not JSON lines in UTF-8: {error}.") from None
    names = dict.fromkeys(name for row in rows for name in row)
    texts = {name: [_text(row.get(name)) for row in rows] for name in names}
    return pa.table({name: pa.array(column, pa.string()) for name, column in texts.items()})


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
