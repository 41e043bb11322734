"""Holm's correction: the reference values of statsmodels, undefined p-values, and one family for each score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.evaluation.bootstrap import Difference
from ensemble.evaluation.multiple import corrected, holm

P = [0.04, 0.001, 0.03, 0.005, 0.2, 0.03]
STATSMODELS = [0.12, 0.006, 0.12, 0.025, 0.2, 0.12]  # multipletests(P, method="holm") of statsmodels 0.15.0


def difference(p: float) -> Difference:
    return Difference(0.5, 0.4, 0.1, 0.0, 0.2, p)


def test_holm_gives_the_values_of_statsmodels() -> None:
    assert holm(np.array(P)) == pytest.approx(STATSMODELS)


def test_an_undefined_p_value_is_no_comparison() -> None:
    assert holm(np.array([*P, np.nan])) == pytest.approx([*STATSMODELS, np.nan], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_step_down_procedure_rejects(p: list[float], level: float) -> None:
    adjusted = holm(np.array(p))
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i in range(len(p)) if adjusted[i] <= level} == rejected


def test_each_score_is_a_family_of_its_own_and_a_single_comparison_keeps_its_p() -> None:
    result = corrected([
        {}, {"accuracy": difference(0.02), "mean_ccc": difference(0.03)}, {"accuracy": difference(0.04)},
    ])  # fmt: skip
    assert result[0] == {}
    assert result[1]["accuracy"].p_holm == result[2]["accuracy"].p_holm == pytest.approx(0.04)
    assert result[1]["mean_ccc"].p_holm == 0.03
