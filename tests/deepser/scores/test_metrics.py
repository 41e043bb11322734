"""Scores equal the reference, name what they leave out, and never depend on the order of classes or rows."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from deepser.scores.metrics import ScoreRow, Spread, ccc, classification, concordance, evaluate
from deepser.scores.report import spread_text
from featurestore.errors import ConfigError, ManifestError

CLASSES = ("angry", "sad", "happy", "neutral")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=60))
def test_scores_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = (np.array(column) for column in zip(*pairs, strict=True))
    labelled = labels >= 0
    if not labelled.any():
        with pytest.raises(ManifestError, match="nothing to score"):
            classification(predicted, labels, CLASSES)
        return
    result = classification(predicted, labels, CLASSES)
    truth, guess = labels[labelled], predicted[labelled]
    all_classes = range(len(CLASSES))
    assert result.macro_f1 == pytest.approx(
        sk.f1_score(truth, guess, labels=all_classes, average="macro", zero_division=0)
    )
    assert result.micro_f1 == pytest.approx(sk.f1_score(truth, guess, labels=all_classes, average="micro"))
    assert result.accuracy == pytest.approx(sk.accuracy_score(truth, guess)) == pytest.approx(result.micro_f1)
    recalls = [(guess[truth == c] == c).mean() for c in set(truth.tolist())]
    assert result.uar == pytest.approx(np.mean(recalls))
    assert np.array_equal(result.confusion, sk.confusion_matrix(truth, guess, labels=all_classes))
    assert (result.n, result.n_no_consensus) == (labelled.sum(), (~labelled).sum())


def test_a_class_without_utterances_is_named_and_counts_in_macro_f1_alone() -> None:
    labels = np.array([0, 0, 1, 1])
    result = classification(labels, labels, CLASSES)
    assert result.absent == ("happy", "neutral")
    assert result.macro_f1 == 0.5
    assert result.uar == 1.0
    assert result.per_class["happy"].support == 0


def test_scores_of_probabilities_are_those_of_their_argmax() -> None:
    p = np.random.default_rng(0).random((50, 4))
    labels = np.arange(50) % 4
    assert classification(p, labels, CLASSES) == classification(p.argmax(1), labels, CLASSES)


def test_rows_or_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 predictions for 2 labels"):
        classification(np.zeros(3, int), np.zeros(2, int), CLASSES)
    with pytest.raises(ConfigError, match="5 columns"):
        classification(np.zeros((2, 5)), np.zeros(2, int), CLASSES)


@pytest.mark.parametrize("wrong", [4, -1])
def test_a_class_that_the_scheme_does_not_have_is_refused(wrong: int) -> None:
    with pytest.raises(ConfigError, match=rf"Predictions hold .*{wrong}.*4 classes"):
        classification(np.array([0, wrong]), np.array([0, 1]), CLASSES)
    with pytest.raises(ConfigError, match=r"Labels hold 0 to 4"):
        classification(np.array([0, 1]), np.array([0, 4]), CLASSES)


@given(st.lists(st.tuples(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32)), min_size=2, max_size=40))
def test_ccc_equals_the_formula_of_lin_1989(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    vx, vy = sum((x - mx) ** 2) / n, sum((y - my) ** 2) / n
    covariance = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / n
    denominator = vx + vy + (mx - my) ** 2
    expected = 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else 2 * covariance / denominator
    assert ccc(x, y) == pytest.approx(expected, abs=1e-9)
    assert ccc(x, y) == pytest.approx(ccc(y, x), abs=1e-12)


def test_ccc_punishes_what_correlation_forgives() -> None:
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert ccc(y, y) == pytest.approx(1.0)
    assert ccc(y + 1, y) < 1.0
    assert ccc(2 * y, y) < 1.0
    assert ccc(-y, y) < 0


def test_ccc_is_defined_for_constants_gaps_and_nothing() -> None:
    assert ccc(np.full(3, 2.0), np.array([1.0, 2.0, 3.0])) == 0.0
    assert ccc(np.full(3, 2.0), np.full(3, 2.0)) == 0.0
    assert math.isnan(ccc(np.zeros(2), np.full(2, np.nan)))
    x, y = np.array([1.0, 9.0, 3.0, 2.0]), np.array([2.0, np.nan, 3.0, 1.0])
    assert ccc(x, y) == ccc(x[[0, 2, 3]], y[[0, 2, 3]])


def test_an_attribute_without_targets_is_left_out_of_the_mean_and_null_in_json() -> None:
    target = np.array([[1.0, np.nan], [2.0, np.nan], [4.0, np.nan]])
    result = concordance(target * 0 + [[1.0, 5], [2, 5], [4, 5]], target, ("arousal", "valence"))
    assert result.ccc["arousal"] == pytest.approx(1.0)
    assert result.mean == pytest.approx(1.0)
    assert result.n == {"arousal": 3, "valence": 0}
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["ccc"]["valence"] is None


def test_fold_scores_are_those_of_each_fold_alone() -> None:
    rng = np.random.default_rng(1)
    p, labels = rng.random((90, 4)), rng.integers(-1, 4, 90)
    folds = np.array(["1", "2", "10"])[np.arange(90) % 3]
    attributes = rng.random((90, 1))
    result = evaluate(p, labels, CLASSES, attributes, attributes + 0.1, ("arousal",), folds.tolist())
    by_fold = [classification(p[folds == f], labels[folds == f], CLASSES).uar for f in ("1", "2", "10")]
    assert list(result.folds["uar"].values) == ["1", "2", "10"]
    assert list(result.folds["uar"].values.values()) == by_fold
    assert result.folds["uar"].mean == pytest.approx(np.mean(by_fold))
    assert result.folds["uar"].std == pytest.approx(np.std(by_fold, ddof=1))
    assert result.classification == classification(p, labels, CLASSES)
    assert set(result.folds) == {"macro_f1", "macro_f1_present", "micro_f1", "accuracy", "uar", "mean_ccc"}
    json.dumps(result.to_dict(), allow_nan=False)


def test_scores_of_classes_are_undefined_in_a_fold_without_labels_and_nothing_else_is() -> None:
    """Such as a speaker of three clips on whom nobody agreed, left out alone: hours of training end in scores."""
    labels, folds = np.array([0, 1, -1, -1, 2, 2]), ["a", "a", "b", "b", "c", "c"]
    arousal = np.array([[1.0], [2.0], [3.0], [5.0], [4.0], [6.0]])
    result = evaluate(np.array([0, 1, 0, 1, 2, 0]), labels, CLASSES, arousal, arousal, ("arousal",), folds)
    np.testing.assert_equal(result.folds["uar"].values, {"a": 1.0, "b": np.nan, "c": 0.5})
    assert (result.folds["uar"].mean, result.folds["mean_ccc"].values["b"]) == (0.75, 1.0)
    assert spread_text(result.folds["uar"]) == "0.750±.354 (2 of 3)"
    assert set(result.absent_by_fold) == {"a", "c"}
    json.dumps(result.to_dict(), allow_nan=False)
    only = evaluate(np.zeros(2, int), np.array([0, -1]), CLASSES, folds=["a", "b"])
    assert math.isnan(only.folds["accuracy"].std), "a single value has no spread"
    assert "±" not in spread_text(only.folds["accuracy"])
    with pytest.raises(ManifestError, match="nothing to score"):
        evaluate(np.zeros(2, int), np.array([-1, -1]), CLASSES, folds=["a", "b"])


def test_the_mean_ccc_of_a_fold_without_an_attribute_is_undefined_beside_those_of_the_others() -> None:
    rng = np.random.default_rng(0)
    folds = np.repeat(["a", "b", "c"], 10)
    targets = rng.normal(4, 1, (30, 2))
    predicted = targets + rng.normal(size=(30, 2)) * [0.1, 2.0]
    targets[folds == "c", 1] = np.nan
    names = ("arousal", "valence")
    result = evaluate(None, np.full(30, -1), CLASSES, predicted, targets, names, folds.tolist())
    expected = {
        fold: np.mean([ccc(predicted[folds == fold, a], targets[folds == fold, a]) for a in range(2)]) for fold in "ab"
    }
    assert result.folds["mean_ccc"].values == pytest.approx(expected | {"c": math.nan}, nan_ok=True)
    assert result.folds["mean_ccc"].mean == pytest.approx(np.mean(list(expected.values())))
    nowhere = evaluate(None, np.full(30, -1), CLASSES, predicted, targets * [1, np.nan], names, folds.tolist())
    assert not math.isnan(nowhere.folds["mean_ccc"].values["c"])  # no fold has it


def test_the_row_of_several_seeds_is_their_mean() -> None:
    labels = np.array([0, 1, 2, 3] * 4)
    folds = ["a"] * 8 + ["b"] * 8
    correct, wrong = evaluate(labels, labels, CLASSES, folds=folds), evaluate(labels * 0, labels, CLASSES, folds=folds)
    row = ScoreRow.over_seeds("meta", {"0": correct, "1": wrong})
    assert row.scores["accuracy"] == 0.625
    assert row.seeds["accuracy"] == Spread(0.625, np.std([1, 0.25], ddof=1), {"0": 1.0, "1": 0.25})
    assert row.folds["accuracy"].values == {"a": 0.625, "b": 0.625}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_each_classs_scores_and_uar_equal_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = (np.array(column) for column in zip(*pairs, strict=True))
    result = classification(predicted, labels, CLASSES)
    expected = sk.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    for c, scores in enumerate(result.per_class.values()):
        precision, recall, f1, support = (column[c] for column in expected)
        if c not in predicted:
            precision = math.nan
        if not support:
            recall = f1 = math.nan
        actual = (scores.precision, scores.recall, scores.f1, scores.support)
        assert actual == pytest.approx((precision, recall, f1, support), nan_ok=True)
    assert result.uar == pytest.approx(
        sk.recall_score(labels, predicted, labels=sorted(set(labels.tolist())), average="macro", zero_division=0)
    )


def test_attributes_alone_are_scored_without_classes() -> None:
    target = np.random.default_rng(0).normal(4, 1, (30, 1))
    nothing = np.full(30, -1)
    result = evaluate(None, nothing, CLASSES, target + 0.5, target, ("arousal",), ["a", "b"] * 15)
    assert result.classification is None
    assert result.scores() == {"mean_ccc": pytest.approx(ccc(target[:, 0] + 0.5, target[:, 0]))}
    assert list(result.folds) == ["mean_ccc"]
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["classification"] is None
    assert ScoreRow.of("m", result).scores == result.scores()


def test_recall_and_f1_of_a_class_that_does_not_occur_are_undefined_and_null_in_json() -> None:
    result = classification(np.array([0, 2, 1, 1]), np.array([0, 0, 1, 1]), CLASSES)
    never = result.per_class["happy"]  # predicted once, and not there
    assert never.precision == 0
    assert math.isnan(never.recall)
    assert math.isnan(never.f1)
    assert result.to_dict()["per_class"]["happy"]["f1"] is None
    assert result.macro_f1 == pytest.approx((2 / 3 + 1) / 4)
    assert result.macro_f1_present == pytest.approx((2 / 3 + 1) / 2)


def test_the_concordance_of_one_utterance_is_undefined() -> None:
    assert math.isnan(ccc(np.array([3.0]), np.array([2.0])))
    target = np.array([[1.0, 4.0], [2.0, np.nan], [4.0, np.nan]])
    result = concordance(target * 0 + [[1.0, 5], [2, 5], [4, 5]], target, ("arousal", "valence"))
    assert math.isnan(result.ccc["valence"])
    assert result.n["valence"] == 1
    assert result.mean == pytest.approx(1.0)
