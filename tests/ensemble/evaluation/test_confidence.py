"""Folds whose confidences differ wildly are named."""

import numpy as np

from ensemble.evaluation.confidence import confidence_notes


def test_a_fold_that_is_far_more_confident_is_named_with_both_figures() -> None:
    rows = np.array([[0.5, 0.5], [0.55, 0.45], [0.9, 0.1], [0.95, 0.05]])
    (note,) = confidence_notes(rows, ["a", "a", "b", "b"])
    assert "0.53 (fold a)" in note or "0.52 (fold a)" in note
    assert "(fold b)" in note
    assert confidence_notes(rows, ["a", "b", "a", "b"]) == []
