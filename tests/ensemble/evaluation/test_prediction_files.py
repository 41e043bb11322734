"""Files of predictions are read by what their columns are called, and nothing that is unclear is guessed."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.evaluation.emotion_names import LETTERS, SPELLINGS, class_named, letter_of
from ensemble.evaluation.prediction_files import read_predictions
from ensemble.prediction.predictions import Predictions
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import AlignmentError, ConfigError, ManifestError, PredictionsError
from tests.helpers.messages import mentions

EIGHT = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
SCALES = {"arousal": (1.0, 7.0), "valence": (1.0, 7.0), "dominance": (1.0, 7.0)}
KEYS = ("MSP-PODCAST_0001_0008", "MSP-PODCAST_0001_0009", "MSP-PODCAST_0002_0033")


def manifest(
    classes: tuple[str, ...] = EIGHT, scales: dict[str, tuple[float, float]] = SCALES, keys: tuple[str, ...] = KEYS
) -> Manifest:
    columns: dict[str, list] = {"utterance_id": list(keys), "path": [f"Audios/{key}.wav" for key in keys]}
    columns |= {f"attr_{name}": [2.0] * len(keys) for name in scales}
    return Manifest(pa.table(columns), LabelScheme(classes, scales), name="msp")


def table(path: Path, *rows: list) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# What is read


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_predict_writes_is_read_back(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(size=(3, 8))).astype(np.float32)
    values = rng.uniform(1, 7, (3, 3)).astype(np.float32)
    folders = tuple(f"/data/two\u2028lines/{key}.wav" for key in KEYS)
    Predictions(folders, EIGHT, tuple(SCALES), p, values, ("m",), np.zeros((1, 3, 11))).write(tmp_path / f"p{suffix}")
    system = read_predictions(tmp_path / f"p{suffix}", manifest())
    assert system.keys == KEYS
    assert system.classes == EIGHT
    np.testing.assert_allclose(system.probabilities, p, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(system.values, values, rtol=1e-4)
    assert np.array_equal(system.predicted, p.argmax(1))
    assert system.notes == ("ids matched without folders and audio suffix",)


@pytest.mark.parametrize(("clips", "adapted"), [((3, 3, 0), True), ((0, 0, 0), False)])
def test_predictions_of_a_speaker_adapted_model_say_so(tmp_path: Path, clips: tuple[int, ...], adapted: bool) -> None:
    p = np.full((3, 8), 1 / 8, np.float32)
    Predictions(
        KEYS, EIGHT, (), p, np.zeros((3, 0), np.float32), ("m",), np.zeros((1, 3, 8)), speaker_clips=np.array(clips)
    ).write(tmp_path / "p.csv")
    notes = read_predictions(tmp_path / "p.csv", manifest()).notes
    assert any(note.startswith("speaker-adapted") for note in notes) is adapted
    assert not any("not read" in note for note in notes)


def test_medusas_eleven_numbers_are_logits_then_attributes_by_name(tmp_path: Path) -> None:
    z = np.array([[0.08, 0.35, 0.39, 0.24, -0.04, -0.17, 0.09, 0.24]] * 3)
    z[1, 4] = 2.0
    rows = [[f"{key}.wav", ", ".join(map(str, [*z[n], 3.5, 4.0 + n, 2.5]))] for n, key in enumerate(KEYS)]
    path = table(tmp_path / "deepser_Full.csv", ["FileName", "Prediction"], *rows)
    # The manifest has another order of classes and attributes, and its own word for one of them.
    order = ("neutral", "contempt", "disgust", "fear", "surprised", "happy", "sad", "angry")
    system = read_predictions(path, manifest(order, dict(reversed(SCALES.items()))))
    np.testing.assert_allclose(system.probabilities, softmax(z)[:, ::-1], rtol=1e-5)
    assert [order[c] for c in system.predicted] == ["happy", "fear", "happy"]
    assert system.attributes == ("dominance", "valence", "arousal")
    np.testing.assert_allclose(system.values[1], [2.5, 5.0, 3.5])
    assert "ids matched without audio suffix" in system.notes
    assert any(mentions(note, "MEDUSA's", "logits", "angry", "sad") for note in system.notes)


def test_medusas_probabilities_are_not_softened_again(tmp_path: Path) -> None:
    p = [0.5, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    lines = [json.dumps({"FileName": key, "Prediction": [*p, 0.09, 4, 4]}) for key in KEYS]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    system = read_predictions(tmp_path / "p.jsonl", manifest())
    np.testing.assert_allclose(system.probabilities[0], p, rtol=1e-6)
    assert any(re.search(r"3 values of arousal.* 1 to 7", note) for note in system.notes)


def test_submissions_are_read_by_letter_and_by_attribute_name(tmp_path: Path) -> None:
    rows = [[f"{key}.wav", letter] for key, letter in zip(KEYS, "UNC", strict=True)]
    letters = table(tmp_path / "1.csv", ["FileName", "EmoClass"], *rows)
    system = read_predictions(letters, manifest())
    assert [system.classes[c] for c in system.predicted] == ["surprise", "neutral", "contempt"]
    assert system.probabilities is None
    assert system.values.shape == (3, 0)
    rows = [[f"{key}.wav", 1 + n, 3, 7] for n, key in enumerate(KEYS)]
    system = read_predictions(table(tmp_path / "2.csv", ["FileName", "EmoDom", "EmoAct", "EmoVal"], *rows), manifest())
    assert system.predicted is None
    assert system.attributes == ("arousal", "valence", "dominance")
    assert system.values[2].tolist() == [3, 7, 3]


@pytest.mark.parametrize("spelled", ["{}", "p_{}", "prob_{}", "P_{}"])
def test_columns_of_probabilities_are_found_in_any_order_and_case(tmp_path: Path, spelled: str) -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
    head = ["key", *(spelled.format(name) for name in ("Sadness", "ANGRY", "Happy")), "Gender", "label"]
    rows = [[key, *p[n], "Male", "whatever"] for n, key in enumerate(KEYS)]
    system = read_predictions(table(tmp_path / "t.csv", head, *rows), manifest(("angry", "sad", "happy"), {}))
    np.testing.assert_allclose(system.probabilities, p[:, [1, 0, 2]], rtol=1e-6)
    contradicted, unread = system.notes  # no text of "label" is a class, so that all of them contradict
    assert "'label'" in contradicted
    assert "3 of 3 rows" in contradicted
    assert mentions(unread, "not read", "Gender")


def test_logits_are_noted_as_logits(tmp_path: Path) -> None:
    head, rows = ["id", "logit_angry", "logit_sad"], [[key, -1.5, n] for n, key in enumerate(KEYS)]
    system = read_predictions(table(tmp_path / "t.csv", head, *rows), manifest(("angry", "sad"), {}))
    np.testing.assert_allclose(system.probabilities, softmax(np.array([[-1.5, n] for n in range(3)])), rtol=1e-6)


def test_a_tab_separated_table_and_a_parquet_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\temotion\n" + "".join(f"{key}\tHappiness\n" for key in KEYS))
    pa.parquet.write_table(pa.table({"id": KEYS, "arousal": [1, 2, 3]}), tmp_path / "t.parquet")
    assert read_predictions(tmp_path / "t.tsv", manifest()).predicted.tolist() == [2, 2, 2]
    assert read_predictions(tmp_path / "t.parquet", manifest()).values[:, 0].tolist() == [1, 2, 3]


def test_without_a_scheme_the_classes_are_msp_podcasts(tmp_path: Path) -> None:
    blind = Manifest(pa.table({"utterance_id": KEYS, "path": KEYS}), name="test3")
    path = table(tmp_path / "t.csv", ["FileName", "EmoClass"], *([key, "F"] for key in KEYS))
    assert read_predictions(path, blind).classes == EIGHT


# Where two columns could be meant


THREE = ("angry", "happy", "sad")
TRUTH, GUESS = THREE, ("sad", "angry", "happy")


@pytest.mark.parametrize(("first", "second"), [
    ("label", "prediction"), ("prediction", "label"), ("label", "y_pred"), ("EmoClass", "label"), ("label", "Label"),
])  # fmt: skip
def test_the_truth_is_never_scored_as_the_prediction(tmp_path: Path, first: str, second: str) -> None:
    rows = [list(row) for row in zip(KEYS, TRUTH, GUESS, strict=True)]
    path = table(tmp_path / "p.csv", ["file", first, second], *rows)
    with pytest.raises(PredictionsError) as error:
        read_predictions(path, manifest(THREE, {}))
    for fact in (f"'{first}'", f"'{second}'", "3 of 3 rows", f"--column label={second}"):
        assert fact in str(error.value)
    system = read_predictions(path, manifest(THREE, {}), {"label": second})
    assert [THREE[c] for c in system.predicted] == list(GUESS)


def test_label_columns_that_agree_are_one_label(tmp_path: Path) -> None:
    rows = [[key, name, name.upper()] for key, name in zip(KEYS, GUESS, strict=True)]
    system = read_predictions(table(tmp_path / "p.csv", ["file", "label", "pred"], *rows), manifest(THREE, {}))
    assert [THREE[c] for c in system.predicted] == list(GUESS)


def test_a_column_of_letters_under_another_name_is_no_label(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", ["file", "EmoClass", "gender"], *([key, "A", "F"] for key in KEYS))
    assert read_predictions(path, manifest()).notes == ("columns not read: gender",)


@pytest.mark.parametrize(("labels", "n"), [(GUESS, 3), (("angry", "sad", "sad"), 1), (THREE, 0)])
def test_a_label_that_contradicts_the_probabilities_is_reported_with_the_rows(
    tmp_path: Path, labels: tuple[str, ...], n: int
) -> None:
    p = np.eye(3) * 0.7 + 0.1
    rows = [[key, label, *p[i]] for i, (key, label) in enumerate(zip(KEYS, labels, strict=True))]
    path = table(tmp_path / "p.csv", ["file", "label", *(f"p_{name}" for name in THREE)], *rows)
    system = read_predictions(path, manifest(THREE, {}))
    assert system.predicted.tolist() == [0, 1, 2]
    assert len(system.notes) == (n > 0)
    if n:
        assert "'label'" in system.notes[0]
        assert f"{n} of 3 rows" in system.notes[0]


def test_a_label_that_is_chosen_is_scored_and_probabilities_that_contradict_it_are_not(tmp_path: Path) -> None:
    p = np.eye(3) * 0.7 + 0.1
    labels = (THREE[1], THREE[2], THREE[0])
    rows = [[key, label, *p[i]] for i, (key, label) in enumerate(zip(KEYS, labels, strict=True))]
    path = table(tmp_path / "p.csv", ["file", "label", *(f"p_{name}" for name in THREE)], *rows)
    system = read_predictions(path, manifest(THREE, {}), {"label": "label"})
    assert system.predicted is not None
    assert system.predicted.tolist() == [1, 2, 0]
    assert system.probabilities is None
    assert "3 of 3 rows" in system.notes[0]
    predictions = read_predictions(path, manifest(THREE, {}), {"label": "label", "scores": "p_"})
    assert predictions.predicted is not None
    assert predictions.predicted.tolist() == [0, 1, 2]


def test_pandas_nameless_index_is_the_id_where_it_holds_ids_and_is_passed_over_where_it_counts_rows(
    tmp_path: Path,
) -> None:
    path = table(tmp_path / "p.csv", ["", "label"], *[[key, THREE[0]] for key in KEYS])
    assert read_predictions(path, manifest(THREE, {})).keys == KEYS
    path = table(tmp_path / "q.csv", ["", "file", "label"], *[[i, key, THREE[0]] for i, key in enumerate(KEYS)])
    system = read_predictions(path, manifest(THREE, {}))
    assert system.keys == KEYS
    assert system.notes == ("columns not read: ''",)


def test_a_tie_contradicts_neither_class(tmp_path: Path) -> None:
    rows = [[key, "sad", 0.4, 0.2, 0.4] for key in KEYS]
    path = table(tmp_path / "p.csv", ["file", "label", *(f"p_{name}" for name in THREE)], *rows)
    assert read_predictions(path, manifest(THREE, {})).notes == ()


def test_of_equal_probabilities_the_label_column_decides_else_the_first_with_a_note(tmp_path: Path) -> None:
    heads = [f"p_{name}" for name in THREE]
    path = table(tmp_path / "p.csv", ["file", "label", *heads], *([key, THREE[2], 0.4, 0.2, 0.4] for key in KEYS))
    assert read_predictions(path, manifest(THREE, {})).predicted.tolist() == [2, 2, 2]
    path = table(tmp_path / "q.csv", ["file", *heads], *([key, 0.4, 0.2, 0.4] for key in KEYS))
    result = read_predictions(path, manifest(THREE, {}))
    assert result.predicted.tolist() == [0, 0, 0]
    assert "3 of 3 rows" in result.notes[0]


def test_per_cent_are_read_as_such_with_a_note(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", ["file", *(f"p_{name}" for name in THREE)], *([key, 70, 20, 10] for key in KEYS))
    result = read_predictions(path, manifest(THREE, {}))
    np.testing.assert_allclose(result.probabilities, [[0.7, 0.2, 0.1]] * 3, atol=1e-6)
    assert "per cent" in result.notes[0]


def test_logits_that_sum_to_one_in_every_row_are_refused_as_probabilities(tmp_path: Path) -> None:
    heads = [f"logit_{name}" for name in THREE]
    path = table(tmp_path / "p.csv", ["file", *heads], *([key, 0.7, 0.2, 0.1] for key in KEYS))
    with pytest.raises(PredictionsError, match="p_<class>"):
        read_predictions(path, manifest(THREE, {}))


def test_a_column_of_a_class_that_the_scheme_lacks_is_named_where_it_takes_probability(tmp_path: Path) -> None:
    heads = [*(f"p_{name}" for name in THREE), "p_calm"]
    path = table(tmp_path / "p.csv", ["file", *heads], *([key, 0.1, 0.1, 0.1, 0.7] for key in KEYS))
    with pytest.raises(PredictionsError, match="p_calm"):
        read_predictions(path, manifest(THREE, {}))


def test_decimal_commas_are_decimals_and_what_may_be_thousands_is_refused(tmp_path: Path) -> None:
    heads = ";".join(["file", *(f"p_{name}" for name in THREE)])
    (tmp_path / "p.csv").write_text("\ufeff" + heads + "\n" + "".join(f"{key};0,75;0,2;0,05\n" for key in KEYS))
    result = read_predictions(tmp_path / "p.csv", manifest(THREE, {}))
    np.testing.assert_allclose(result.probabilities, [[0.75, 0.2, 0.05]] * 3, atol=1e-6)
    (tmp_path / "q.csv").write_text("file;attr_arousal\n" + "".join(f"{key};1,234\n" for key in KEYS))
    with pytest.raises(PredictionsError, match="attr_arousal is not a number"):
        read_predictions(tmp_path / "q.csv", manifest(THREE, SCALES))


def test_two_sets_of_scores_that_differ_are_refused(tmp_path: Path) -> None:
    head = ["id", *(f"p_{name}" for name in THREE), *THREE]
    path = table(tmp_path / "p.csv", head, *([key, 0.2, 0.3, 0.5, 1, 0, 0] for key in KEYS))
    facts = r"'p_angry, \.\.\.' and 'angry, \.\.\.'.*3 of 3 rows.*--column scores=p_"
    with pytest.raises(PredictionsError, match=facts):
        read_predictions(path, manifest(THREE, {}))
    assert read_predictions(path, manifest(THREE, {}), {"scores": ""}).predicted.tolist() == [0, 0, 0]
    system = read_predictions(path, manifest(THREE, {}), {"scores": "p_"})
    assert system.predicted.tolist() == [2, 2, 2]
    assert system.notes == ("columns not read: angry, happy, sad",)


def test_two_columns_of_an_attribute_that_differ_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", ["id", "EmoAct", "arousal"], *([key, 2, 3] for key in KEYS))
    with pytest.raises(PredictionsError, match=r"'arousal' and 'EmoAct'.*3 of 3 rows.*--column attr_arousal=EmoAct"):
        read_predictions(path, manifest())
    assert read_predictions(path, manifest(), {"attr_arousal": "EmoAct"}).values[:, 0].tolist() == [2, 2, 2]


def test_of_two_id_columns_the_one_that_the_manifest_has_counts(tmp_path: Path) -> None:
    rows = [[f"x{n}", key, "A"] for n, key in enumerate(KEYS)]
    assert read_predictions(table(tmp_path / "p.csv", ["file", "id", "label"], *rows), manifest()).keys == KEYS
    swapped = [[key, other, "A"] for key, other in zip(KEYS, KEYS[::-1], strict=True)]
    path = table(tmp_path / "q.csv", ["file", "id", "label"], *swapped)
    with pytest.raises(PredictionsError, match=r"'file' and 'id'.*--column id=file"):
        read_predictions(path, manifest())
    assert read_predictions(path, manifest(), {"id": "id"}).keys == KEYS[::-1]


@pytest.mark.parametrize(
    ("chosen", "message"), [({"label": "none"}, "no such column"), ({"truth": "label"}, "id, label")]
)
def test_a_choice_of_what_is_not_there_is_named(tmp_path: Path, chosen: dict[str, str], message: str) -> None:
    path = table(tmp_path / "p.csv", ["file", "label"], [KEYS[0], "A"])
    with pytest.raises(ConfigError, match=message):
        read_predictions(path, manifest(), chosen)


# What words mean


def test_every_spelling_and_letter_means_its_class() -> None:
    scheme = LabelScheme(EIGHT)
    for letter, name in LETTERS.items():
        assert class_named(letter, scheme) == (name if name in EIGHT else None)
    for name, words in SPELLINGS.items():
        assert {class_named(word, scheme) for word in (name, *words, name.upper(), f" {name} ")} == {name}
        assert LETTERS[letter_of(name)] == name
    assert letter_of("calm") == ""
    assert class_named("c", scheme) is None  # a letter is a capital


def test_a_name_in_another_case_than_two_classes_have_means_neither() -> None:
    scheme = LabelScheme(("Happy", "happy", "sad"))
    assert [class_named(text, scheme) for text in ("Happy", "happy", "HAPPY", "SAD")] == ["Happy", "happy", None, "sad"]
    blank = LabelScheme(("sad ", "sad"))
    assert [class_named(text, blank) for text in ("sad ", "sad", " sad", "Sad")] == ["sad ", "sad", "sad", None]
    assert class_named("sad", LabelScheme(("sad ",))) == "sad "  # as `predict` writes it


def test_a_schemes_own_names_and_labels_come_first() -> None:
    scheme = LabelScheme(("calm", "hap", "exc"), corpus_labels={"C": "calm", "H": "exc", "oth": None})
    assert class_named("C", scheme) == "calm"
    assert class_named("H", scheme) == "exc"
    assert class_named("happiness", scheme) == "hap"
    assert class_named("oth", scheme) is None
    assert class_named("joy", LabelScheme(("happy", "happiness"))) is None  # it could be either


@given(st.text(max_size=8))
def test_no_text_means_a_class_that_is_not_there(text: str) -> None:
    assert class_named(text, LabelScheme(("angry", "calm"))) in ("angry", "calm", None)


# What is refused


REFUSED = {
    "no id column": ([["who", "EmoClass"], ["a", "A"]], r"has no column 'utterance_id', only .*who"),
    "nothing predicted": ([["id", "Gender"], [KEYS[0], "Male"]], r"has no predictions: expected a label column"),
    "an unknown label": (
        [["id", "label"], [KEYS[0], "A"], [KEYS[1], "bored"], [KEYS[2], ""]],
        r"label is no class \(2 rows\): row 2 'bored', row 3 None; expected one of angry, .* letters A, S, H",
    ),
    "no agreement": ([["id", "EmoClass"], [KEYS[0], "X"]], r"row 1 'X'"),
    "a class without a column": ([["id", "p_angry", "p_sad"], [KEYS[0], 0.5, 0.5]], r"none for happy, surprise"),
    "two columns of a class": ([["id", "p_sad", "p_sadness"], [KEYS[0], 0.5, 0.5]], r"two columns of class 'sad'"),
    "scores that are no probabilities": (
        [["id", *EIGHT], [KEYS[0], *[0.125] * 8], [KEYS[1], *[0.3] * 8]],
        r"are no probabilities \(1 row\): row 2 \[0.3, .* sum to 1. Call logits logit_<class>",
    ),
    "a word for a number": ([["id", "EmoAct"], [KEYS[0], "high"]], r"EmoAct is not a number \(1 row\): row 1 'high'"),
    "a gap": ([["id", "EmoAct"], [KEYS[0], 2], [KEYS[1], ""]], r"EmoAct is not a number \(1 row\): row 2"),
    "ten numbers of eleven": (
        [["FileName", "Prediction"], [KEYS[0], ",".join("1" * 11)], [KEYS[1], ",".join("1" * 10)]],
        r"Prediction is not 11 numbers \(1 row\): row 2",
    ),
    "an id twice": ([["id", "label"], [KEYS[0], "A"], [KEYS[0], "A"]], r"id repeats an earlier row's"),
    "no rows": ([["id", "label"]], r"has no rows"),
}


@pytest.mark.parametrize(("rows", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_unclear_is_refused_and_named(tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(PredictionsError, match=message):
        read_predictions(table(tmp_path / "t.csv", *rows), manifest())


def test_ids_that_the_manifest_lacks_are_listed(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["id", "label"], [KEYS[0], "A"], ["other_0001", "A"])
    with pytest.raises(AlignmentError, match=r"'other_0001'.*manifest msp.*0008"):
        read_predictions(path, manifest())
    # Two files of one name in two folders: the name alone must not choose.
    twins = manifest(keys=("a/1", "b/1"))
    with pytest.raises(AlignmentError, match="'x/1'"):
        read_predictions(table(tmp_path / "t.csv", ["id", "label"], ["x/1", "A"]), twins)
    assert read_predictions(table(tmp_path / "t.csv", ["id", "label"], ["b/1", "A"]), twins).keys == ("b/1",)


def test_files_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="does not exist"):
        read_predictions(tmp_path / "none.csv", manifest())
    (tmp_path / "t.jsonl").write_text('{"id": "a"}\n[1]\n')
    with pytest.raises(PredictionsError, match=r"line 2: .*found \[1\]"):
        read_predictions(tmp_path / "t.jsonl", manifest())
    (tmp_path / "t.jsonl").write_text("{")
    with pytest.raises(PredictionsError, match="not JSON lines"):
        read_predictions(tmp_path / "t.jsonl", manifest())
    (tmp_path / "t.csv").write_text("id,label\na,b,c\n")
    with pytest.raises(ManifestError, match="cells"):
        read_predictions(tmp_path / "t.csv", manifest())
