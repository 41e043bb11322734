"""An ensemble that is worse than a member or a vote on the same part says so."""

import math

from deepser.scores.metrics import ScoreRow
from ensemble.fusion.fit_report import beaten_by


def row(name: str, **scores: float) -> ScoreRow:
    return ScoreRow(name, scores)


def test_the_best_other_row_is_named_with_both_scores() -> None:
    rows = [row("m1", macro_f1=0.71), row("soft vote", macro_f1=0.75), row("meta (soup)", macro_f1=0.74)]
    (sentence,) = beaten_by("all folds", rows)
    assert "soft vote" in sentence
    assert "0.750 against 0.740" in sentence
    assert "all folds" in sentence


def test_an_ensemble_as_good_as_the_best_says_nothing() -> None:
    assert beaten_by("test1", [row("m1", macro_f1=0.75), row("meta", macro_f1=0.75)]) == []
    assert beaten_by("test1", [row("only", macro_f1=0.75)]) == []


def test_scores_that_are_shown_alike_say_nothing_and_those_that_differ_as_shown_do() -> None:
    assert beaten_by("dev", [row("m1", macro_f1=0.7504), row("meta", macro_f1=0.7496)]) == []
    (sentence,) = beaten_by("dev", [row("m1", macro_f1=0.7506), row("meta", macro_f1=0.7504)])
    assert "0.751 against 0.750" in sentence


def test_attributes_count_where_there_are_no_classes_and_what_is_undefined_beats_nothing() -> None:
    assert "CCC" in beaten_by("dev", [row("m1", mean_ccc=0.6), row("meta", mean_ccc=0.5)])[0]
    assert beaten_by("dev", [row("m1", mean_ccc=math.nan), row("meta", mean_ccc=0.5)]) == []


def test_a_vote_or_a_choice_that_is_beaten_is_not_advised_again() -> None:
    for name, advised, other in (("soft vote", "auto", "soft"), ("chosen inside", "soft", "auto")):
        (sentence,) = beaten_by("dev", [row("m1", macro_f1=0.8), row(name, macro_f1=0.5)])
        assert f"--meta {advised}" in sentence
        assert f"--meta {other}" not in sentence
