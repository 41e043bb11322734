"""What is said of scores that a speaker's other clips had a part in."""

from ensemble.evaluation.systems import NORMALISED, REFINED, adapted_scores


def test_a_refined_probe_does_not_say_that_its_rows_are_normalised() -> None:
    assert "normalised" not in adapted_scores([REFINED])
    assert "refined" not in adapted_scores([NORMALISED])
    assert "rows are normalised and scores are refined" in adapted_scores([NORMALISED, REFINED])
