"""Meta-classifiers of several folds are calibrated by speakers who took no part in their training."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from deepser.scores.calibration import fit_temperature
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.held_out import held_out_of, temperature_of
from ensemble.fusion.problem import Problem, load_problem
from ensemble.fusion.selection import everyone
from ensemble.fusion.techniques import technique
from featurestore.store.feature_store import FeatureStore

SHORT = MetaConfig(seeds=(0, 1), rounds=3, steps_per_round=10)


def problem_of(store: FeatureStore, write: Callable, corpus) -> Problem:
    write(corpus)
    return load_problem(store, corpus.manifest, corpus.members)


def test_cooling_divides_the_logits_of_classes_alone(store: FeatureStore, write: Callable, corpus) -> None:
    problem = problem_of(store, write, corpus)
    for config in (SHORT, replace(SHORT, hidden=4)):
        fitted = technique(config).fit(problem, everyone(problem))
        cold = fitted.cooled(2.0)  # type: ignore[attr-defined]
        (of_fitted, *_), (of_cold, *_) = fitted.predict(problem).seeds, cold.predict(problem).seeds
        np.testing.assert_allclose(of_cold.logits, of_fitted.logits / 2, atol=1e-4)
        np.testing.assert_allclose(of_cold.attributes, of_fitted.attributes, atol=1e-5)


def test_a_fit_is_calibrated_on_those_held_out(store: FeatureStore, write: Callable, corpus) -> None:
    problem = problem_of(store, write, corpus)
    held_out = held_out_of(problem, SHORT)
    assert held_out is not None
    assert held_out.mask.any()
    fitted = technique(SHORT).fit(problem, everyone(problem))
    judged = fitted.predict(problem.rows(held_out.mask)).whole.probabilities
    refitted = temperature_of(judged, problem.targets.labels[held_out.mask])
    assert abs(refitted - 1) < 0.02


def test_a_small_part_that_is_all_right_does_not_make_confidence_one() -> None:
    p = np.full((10, 4), 0.2)
    p[:, 0] = 0.4
    labels = np.zeros(10, np.int64)
    assert fit_temperature(p, labels) < 0.03
    assert temperature_of(p, labels) > 0.1
