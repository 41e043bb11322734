"""Submission files of the Interspeech 2025 challenge (speech emotion recognition in naturalistic conditions).

Task 1: `FileName,EmoClass`, one of eight letters; task 2: `FileName,EmoAct,EmoVal,EmoDom`, numbers from 1 to 7. A file
name is the audio's, with `.wav` and without a folder: MSP-PODCAST_test3_0001.wav.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ensemble.evaluation.align import some
from ensemble.evaluation.emotion_names import letter_of
from ensemble.evaluation.matching import file_name, without_suffix
from ensemble.evaluation.system import System
from featurestore.corpora import msp_podcast
from featurestore.corpus import arrow, checks
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.tables import read_table_file, write_table_file
from featurestore.errors import SubmissionError

ID = "FileName"
CLASS = "EmoClass"
ATTRIBUTES = {column: name for name, column in msp_podcast.ATTRIBUTES.items()}  # EmoAct, EmoVal, EmoDom
COLUMNS = {"task1": (ID, CLASS), "task2": (ID, *ATTRIBUTES)}
CLASS_LETTERS = tuple(msp_podcast.LETTERS)
SCALE = (msp_podcast.LOW, msp_podcast.HIGH)
CHALLENGE_ROWS = 3200
SUFFIX = ".wav"


def submission(task: str, system: System, manifest: Manifest) -> pa.Table:
    """Return the rows of a submission for every utterance of a manifest (labels are not needed), in its order; as text.

    task: "task1" or "task2". AlignmentError when an utterance is not predicted; SubmissionError when the system does
    not predict what the task asks for, or on another scale.
    """
    chosen = system.of(manifest.keys)
    columns = {ID: file_names(manifest)}
    if task == "task1":
        columns[CLASS] = _letters(chosen)
    elif task == "task2":
        for column, name in ATTRIBUTES.items():
            columns[column] = _numbers(chosen, name, manifest)
    else:
        raise SubmissionError(f"There is no task {task!r}; expected one of {', '.join(COLUMNS)}.")
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def write_submission(task: str, system: System, manifest: Manifest, path: Path) -> int:
    """Write the submission for a manifest's utterances, if it is valid; returns the number of rows.

    SubmissionError lists what is wrong, and nothing is written.
    """
    if path.suffix != ".csv":
        raise SubmissionError(f"{path}: a submission is a .csv file, found {path.suffix or 'no suffix'!r}.")
    table = submission(task, system, manifest)
    wrong = submission_problems(table, task, file_names(manifest))
    if wrong:
        raise SubmissionError(arrow.sentence(f"The submission of {system.name!r}, not written,", wrong))
    write_table_file(table, path)
    return len(table)


def check_submission(path: Path, expected: Sequence[str] | None = None, n_rows: int | None = None) -> tuple[str, int]:
    """Check an existing file: returns its task and number of rows, or raises SubmissionError with all that is wrong.

    expected: the file names that it must have, in any order; without them n_rows, by default the challenge's 3,200.
    """
    table = read_table_file(path)
    names = tuple(table.column_names)
    task = next((task for task, columns in COLUMNS.items() if columns[1] in names), "task1")
    count = CHALLENGE_ROWS if n_rows is None and expected is None else n_rows
    wrong = submission_problems(table, task, expected, count)
    if wrong:
        raise SubmissionError(arrow.sentence(str(path), wrong))
    return task, table.num_rows


def submission_problems(
    table: pa.Table, task: str, expected: Sequence[str] | None = None, n_rows: int | None = None
) -> list[str]:
    """Everything that is wrong with a submission's rows, as sentences without a full stop; rows are counted from 1."""
    columns = COLUMNS[task]
    if tuple(table.column_names) != columns:
        return [f"columns must be {','.join(columns)}, found {','.join(table.column_names)}"]
    problems = []
    if n_rows is not None and table.num_rows != n_rows:
        problems.append(f"expected {n_rows:,} rows, found {table.num_rows:,}")
    ids = arrow.as_strings(table.column(ID))
    problems += [problem.replace("utterance_id", ID) for problem in checks.id_problems(ids)]
    names = ids.to_pylist()
    bad = [row for row, name in enumerate(names) if name and not _is_file_name(name)]
    if bad:
        problems.append(arrow.listing(f"{ID} is not a name with {SUFFIX} and without a folder", bad, names))
    if expected is not None:
        names_given, expected_names = set(names), set(expected)
        missing = [name for name in expected if name not in names_given]
        surplus = [name for name in names if name not in expected_names]
        if missing:
            problems.append(f"{len(missing):,} of {len(expected_names):,} utterances are missing: {some(missing)}")
        if surplus:
            problems.append(f"{len(surplus):,} rows are of no utterance asked for: {some([str(n) for n in surplus])}")
    if task == "task1":
        letters = arrow.as_strings(table.column(CLASS)).to_pylist()
        bad = [row for row, letter in enumerate(letters) if letter not in CLASS_LETTERS]
        if bad:
            problems.append(arrow.listing(f"{CLASS} is none of {', '.join(CLASS_LETTERS)}", bad, letters))
    else:
        for column in ATTRIBUTES:
            numbers, bad = arrow.as_numbers(table.column(column))
            values = numbers.to_numpy()
            outside = np.isnan(values) | (values < SCALE[0]) | (values > SCALE[1])
            texts = table.column(column).to_pylist()
            commas = [row for row, text in enumerate(texts) if isinstance(text, str) and "," in text]
            bad = sorted({*bad, *commas, *np.flatnonzero(outside).tolist()})
            if bad:
                message = f"{column} is no number from {SCALE[0]:g} to {SCALE[1]:g}"
                problems.append(arrow.listing(message, bad, table.column(column).to_pylist()))
    return problems


def file_names(manifest: Manifest) -> list[str]:
    """Return the audio's file name of each utterance as the challenge writes it: from the path, else from the id."""
    paths = manifest.column("path").tolist() if manifest.has("path") else [None] * len(manifest)
    names = [key if path is None else path for key, path in zip(manifest.keys, paths, strict=True)]
    return [without_suffix(file_name(name)) + SUFFIX for name in names]


def _is_file_name(name: str) -> bool:
    return name.endswith(SUFFIX) and "/" not in name and "\\" not in name and name == name.strip()


def _letters(system: System) -> list[str]:
    """Return the letter of each prediction: the most probable one, where classes have probabilities.

    Of equally probable ones it is that of the predicted class, which a file's label names.
    """
    letters = _letters_of(system)
    known = list(dict.fromkeys(letter for letter in letters if letter))
    if system.probabilities is None:
        of_letters = system.among([name for name, letter in zip(system.classes, letters, strict=True) if letter])
        assert of_letters.predicted is not None
        return [letter_of(of_letters.classes[c]) for c in of_letters.predicted]
    # Classes of one letter, such as joy and happy, are one class of the challenge.
    columns = [[own == letter for own in letters] for letter in known]
    of_letter = np.stack([system.probabilities[:, own].sum(1, dtype=np.float64) for own in columns], 1)
    assert system.predicted is not None
    own = np.array([known.index(letter) if letter else -1 for letter in letters])[system.predicted]
    rows = np.arange(len(own))
    is_best = (own >= 0) & (of_letter[rows, own] >= of_letter.max(1))
    return [known[c] for c in np.where(is_best, own, of_letter.argmax(1))]


def _letters_of(system: System) -> list[str]:
    """Return the challenge's letter of each class, "" where it has none; SubmissionError where none has one."""
    if system.predicted is None:
        raise SubmissionError(f"{system.name!r} predicts no classes, which task 1 asks for.")
    letters = [letter if (letter := letter_of(name)) in CLASS_LETTERS else "" for name in system.classes]
    if not any(letters):
        raise SubmissionError(
            f"{system.name!r} predicts {', '.join(system.classes)}, none of which the challenge has a letter for."
        )
    return letters


def letter_notes(system: System, manifest: Manifest) -> list[str]:
    """Return a note on the utterances whose class can't be submitted, such as "other", by class."""
    chosen = system.of(manifest.keys)
    assert chosen.predicted is not None
    counts = np.bincount(chosen.predicted, minlength=len(chosen.classes))
    without = [
        f"{counts[c]:,} of {name}"
        for c, (name, letter) in enumerate(zip(chosen.classes, _letters_of(chosen), strict=True))
        if not letter and counts[c]
    ]
    if not without:
        return []
    return [
        f"{', '.join(without)}, which the challenge has no letter for, have their most probable class of the others"
    ]


def _numbers(system: System, name: str, manifest: Manifest) -> list[str]:
    if name not in system.attributes:
        raise SubmissionError(
            f"{system.name!r} predicts no {name}, which task 2 asks for; it has "
            f"{', '.join(system.attributes) or 'no attributes'}."
        )
    ends = manifest.scheme.attributes.get(name, SCALE)
    if ends != SCALE:
        raise SubmissionError(
            f"Manifest {manifest.name} has {name} on a scale of {ends[0]:g} to {ends[1]:g}, the challenge on 1 to 7; "
            "predict on the corpus's own scale."
        )
    low, high = system.attribute_ranges.get(name, SCALE)
    if (low, high) != SCALE:
        raise SubmissionError(
            f"{system.name!r} predicts {name} on a scale of {low:g} to {high:g}, the challenge asks for 1 to 7. Fit "
            "its members again on ratings of 1 to 7."
        )
    return [f"{value:.6g}" for value in system.values[:, system.attributes.index(name)].tolist()]
