"""A submission is what the challenge takes, or it is not written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.evaluation.assess import ScoringOptions
from ensemble.evaluation.parts import assess_parts
from ensemble.evaluation.prediction_files import read_predictions
from ensemble.evaluation.submission import (
    CHALLENGE_ROWS,
    CLASS_LETTERS,
    check_submission,
    file_names,
    letter_notes,
    submission,
    submission_problems,
    write_submission,
)
from ensemble.evaluation.system import System
from featurestore.corpora.msp_podcast import read_msp_podcast
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import AlignmentError, SubmissionError
from tests.helpers.messages import mentions

EIGHT = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
THREE = ("dominance", "arousal", "valence")  # not in the order of the file
KEYS = tuple(f"MSP-PODCAST_test3_{n:04d}" for n in range(1, 9))


def blind(keys: tuple[str, ...] = KEYS, scheme: LabelScheme | None = None) -> Manifest:
    """Return a manifest as the challenge gives its test part: files, and nothing of what is in them."""
    table = {"utterance_id": keys, "path": [f"Test3/Audios/{key}.flac" for key in keys]}
    if scheme:
        table |= {f"attr_{name}": [None] * len(keys) for name in scheme.attributes}
    return Manifest(pa.table(table), scheme, name="test3")


def system(classes: tuple[str, ...] = EIGHT, values: float | None = None) -> System:
    """Class n for utterance n, in another order than the manifest's."""
    p = np.full((len(KEYS), len(classes)), 0.1 / len(classes), np.float32)
    p[np.arange(len(KEYS)), np.arange(len(KEYS)) % len(classes)] += 0.9
    v = np.random.default_rng(0).uniform(1, 7, (len(KEYS), 3)).astype(np.float32)
    if values is not None:
        v[2, 1] = values
    backwards = slice(None, None, -1)
    return System("m", KEYS[backwards], classes, p.argmax(1)[backwards], p[backwards], THREE, v[backwards])


def test_task_1_is_a_letter_for_each_file(tmp_path: Path) -> None:
    assert write_submission("task1", system(), blind(), tmp_path / "t.csv") == 8
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "FileName,EmoClass"
    assert lines[1:] == [f"{key}.wav,{letter}" for key, letter in zip(KEYS, "ASHUFDCN", strict=True)]
    assert check_submission(tmp_path / "t.csv", file_names(blind())) == ("task1", 8)


def test_task_2_is_three_numbers_in_the_challenges_order(tmp_path: Path) -> None:
    predictions = system()
    assert write_submission("task2", predictions, blind(), tmp_path / "t.csv") == 8
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "FileName,EmoAct,EmoVal,EmoDom"
    first = predictions.of(KEYS).values[0]
    assert [float(x) for x in lines[1].split(",")[1:]] == pytest.approx([first[1], first[2], first[0]], rel=1e-5)
    assert check_submission(tmp_path / "t.csv", n_rows=8) == ("task2", 8)


@given(st.lists(st.floats(1, 7, width=32), min_size=24, max_size=24))
def test_every_number_of_the_scale_survives_as_one(numbers: list[float]) -> None:
    predictions = system()
    values = np.array(numbers, np.float32).reshape(8, 3)
    table = submission("task2", System("m", KEYS, (), None, None, THREE, values), blind())
    assert submission_problems(table, "task2", file_names(blind())) == []
    assert [float(x) for x in table["EmoDom"].to_pylist()] == pytest.approx(values[:, 0].tolist(), rel=1e-5)
    assert predictions.attributes == THREE


def test_what_is_written_is_read_back_as_predictions(tmp_path: Path) -> None:
    scheme = LabelScheme(EIGHT, dict.fromkeys(THREE, (1.0, 7.0)))
    write_submission("task1", system(), blind(scheme=scheme), tmp_path / "t.csv")
    read_back = read_predictions(tmp_path / "t.csv", blind(scheme=scheme))
    assert np.array_equal(read_back.predicted, system().of(KEYS).predicted)


def test_a_class_that_has_no_letter_gives_way_to_the_next_best() -> None:
    predictions = system((*EIGHT[:7], "other"))
    letters = submission("task1", predictions, blind())["EmoClass"].to_pylist()
    assert letters[:7] == list("ASHUFDC")
    assert letters[7] in CLASS_LETTERS
    (note,) = letter_notes(predictions, blind())
    assert mentions(note, "1 of other")
    assert letter_notes(system(), blind()) == []
    labels_alone = System("m", predictions.keys, predictions.classes, predictions.predicted, None, (), np.empty((8, 0)))
    with pytest.raises(AlignmentError, match="'other'"):
        submission("task1", labels_alone, blind())


def test_of_equal_probabilities_the_label_of_the_file_is_submitted(tmp_path: Path) -> None:
    rows = [f"{key},{label},.2,.4,.4" for key, label in zip(KEYS, ("sad", "happy") * 4, strict=True)]
    (tmp_path / "ties.csv").write_text("\n".join(("id,label,p_neutral,p_happy,p_sad", *rows)))
    manifest = Manifest(blind().to_arrow(), LabelScheme(("neutral", "happy", "sad"), {}), name="blind")
    predictions = read_predictions(tmp_path / "ties.csv", manifest)
    assert submission("task1", predictions, manifest)["EmoClass"].to_pylist() == ["S", "H"] * 4


def test_classes_of_one_letter_are_one_class() -> None:
    p = np.tile(np.float32([0.4, 0.3, 0.3]), (8, 1))
    predictions = System("m", KEYS, ("sad", "happy", "joy"), p.argmax(1), p, (), np.empty((8, 0)))
    assert submission("task1", predictions, blind())["EmoClass"].to_pylist() == ["H"] * 8


@pytest.mark.parametrize("value", [0.9, 7.01, np.nan, -3.0])
def test_a_number_outside_the_scale_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(SubmissionError, match=r"'m'.*EmoAct.* 1 to 7 \(1 row\): row 3"):
        write_submission("task2", system(values=value), blind(), tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


def test_what_a_system_does_not_predict_is_reported(tmp_path: Path) -> None:
    nothing = np.empty((8, 0), np.float32)
    with pytest.raises(SubmissionError, match=r"no arousal.*task 2"):
        submission("task2", System("m", KEYS, EIGHT, np.zeros(8, int), None, (), nothing), blind())
    with pytest.raises(SubmissionError, match="predicts no classes"):
        submission("task1", System("m", KEYS, (), None, None, (), nothing), blind())
    with pytest.raises(SubmissionError, match=r"predicts .*letter"):
        submission("task1", System("m", KEYS, ("calm",), np.zeros(8, int), None, (), nothing), blind())
    with pytest.raises(SubmissionError, match=r"0 to 1.* 1 to 7"):
        submission("task2", system(), blind(scheme=LabelScheme((), dict.fromkeys(THREE, (0.0, 1.0)))))
    with pytest.raises(SubmissionError, match="no task 'task3'"):
        submission("task3", system(), blind())
    with pytest.raises(AlignmentError, match="'m' misses 'MSP-PODCAST_test3_0009'"):
        submission("task1", system(), blind((*KEYS, "MSP-PODCAST_test3_0009")))
    with pytest.raises(SubmissionError, match=r"t\.txt: .*\.csv.*'\.txt'"):
        write_submission("task1", system(), blind(), tmp_path / "t.txt")
    twins = blind(("a/1", "b/1"))
    pair = System("m", ("a/1", "b/1"), EIGHT, np.zeros(2, int), None, (), np.empty((2, 0)))
    with pytest.raises(SubmissionError, match="repeats an earlier row"):
        write_submission("task1", pair, twins, tmp_path / "t.csv")


GOOD = ["FileName,EmoClass", *(f"{key}.wav,A" for key in KEYS)]
SPOILED: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a column of another name": (lambda g: ["File,EmoClass", *g[1:]], "columns must be FileName,EmoClass, found File"),
    "columns turned round": (lambda g: ["EmoClass,FileName", *g[1:]], "columns must be"),
    "a column too many": (lambda g: [f"{line},1" for line in g], "columns must be"),
    "a row missing": (lambda g: g[:-1], r"1 of 8 utterances are missing: 'MSP-PODCAST_test3_0008.wav'"),
    "a row too many": (lambda g: [*g, "x.wav,A"], "1 rows are of no utterance asked for: 'x.wav'"),
    "a row twice": (lambda g: [*g, g[-1]], r"FileName repeats an earlier row's \(1 row\): row 9"),
    "no suffix": (lambda g: [*g[:-1], f"{KEYS[-1]},A"], r"not a name with .wav .* row 8"),
    "a folder": (lambda g: [*g[:-1], f"Audios/{KEYS[-1]}.wav,A"], r"without a folder .* row 8"),
    "a small letter": (lambda g: [*g[:-1], f"{KEYS[-1]}.wav,a"], r"EmoClass is none of A, S, .* row 8 'a'"),
    "a word": (lambda g: [*g[:-1], f"{KEYS[-1]}.wav,angry"], r"row 8 'angry'"),
    "other": (lambda g: [*g[:-1], f"{KEYS[-1]}.wav,O"], r"row 8 'O'"),
    "a gap": (lambda g: [*g[:-1], f"{KEYS[-1]}.wav,"], r"row 8 None"),
}


def test_decimal_commas_are_no_numbers_of_a_submission(tmp_path: Path) -> None:
    path = tmp_path / "task2.csv"
    path.write_text('FileName,EmoAct,EmoVal,EmoDom\na.wav,3,4,5\nb.wav,"3,5",4,5\n')
    with pytest.raises(SubmissionError, match=r"EmoAct.* 1 to 7 \(1 row\): row 2 '3,5'"):
        check_submission(path, None, 2)
    path.write_text('FileName,EmoAct,EmoVal,EmoDom\na.wav,"3,5",4,5\n')
    with pytest.raises(SubmissionError, match="row 1 '3,5'"):
        check_submission(path, None, 1)


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_file_is_distinguished(tmp_path: Path, spoil: Callable, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(GOOD) + "\n")
    assert check_submission(path, file_names(blind())) == ("task1", 8)
    path.write_text("\n".join(spoil(GOOD)) + "\n")
    with pytest.raises(SubmissionError, match=message):
        check_submission(path, file_names(blind()))


def test_without_a_manifest_the_number_of_rows_is_the_challenges(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(GOOD) + "\n")
    with pytest.raises(SubmissionError, match="expected 3,200 rows, found 8"):
        check_submission(path)
    assert check_submission(path, n_rows=8) == ("task1", 8)
    rows = (f"MSP-PODCAST_test3_{n:04d}.wav,1,7,4.25" for n in range(CHALLENGE_ROWS))
    path.write_text("\n".join(["FileName,EmoAct,EmoVal,EmoDom", *rows]))
    assert check_submission(path) == ("task2", 3200)
    path.write_text(path.read_text().replace("4.25", "8"))
    with pytest.raises(SubmissionError, match=r"EmoDom.* 1 to 7 \(3,200 rows\)"):
        check_submission(path)


def test_the_hidden_test3_of_msp_podcast_is_submitted_and_never_scored(tmp_path: Path) -> None:
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Audios").mkdir()
    names = ["MSP-PODCAST_0001_0008.wav", "MSP-PODCAST_0001_0009.wav", *(f"{key}.wav" for key in KEYS)]
    for name in names:
        (tmp_path / "Audios" / name).touch()
    head = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    rows = [f"{names[0]},F,5,2,4,30,Male,Development", f"{names[1]},X,4,4,4,Unknown,Female,Development"]
    (tmp_path / "Labels" / "labels_consensus.csv").write_text("\n".join([head, *rows]))
    corpus = read_msp_podcast(tmp_path, transcripts=False)
    p = np.eye(8, dtype=np.float32)[[4, 0, *range(8)]]
    values = np.full((10, 3), 4.5, np.float32)
    predictions = System("m", tuple(names), EIGHT, p.argmax(1), p, THREE, values)
    parts = assess_parts(predictions, corpus, ScoringOptions(0))
    assert list(parts) == ["development"]
    assert parts["development"].evaluation.classification.n_no_consensus == 1
    test3 = corpus.rows(corpus.column("split") == "test3")
    for task in ("task1", "task2"):
        write_submission(task, predictions, test3, tmp_path / f"{task}.csv")
        assert check_submission(tmp_path / f"{task}.csv", file_names(test3)) == (task, 8)
    assert (tmp_path / "task1.csv").read_text().splitlines()[1:] == [
        f"{key}.wav,{letter}" for key, letter in zip(KEYS, "ASHUFDCN", strict=True)
    ]


def test_file_names_come_from_the_path_else_from_the_id() -> None:
    assert file_names(blind())[0] == "MSP-PODCAST_test3_0001.wav"
    texts = Manifest(pa.table({"utterance_id": ["a.wav", "b"], "text": ["x", "y"]}))
    assert file_names(texts) == ["a.wav", "b.wav"]
