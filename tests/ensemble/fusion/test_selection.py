"""Members are chosen by what they score on the rows that are given, as plain loops choose them."""

import dataclasses
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from deepser.scores.metrics import ccc
from deepser.training.targets import Targets
from ensemble.evaluation.align import Aligned
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import (
    attribute_scores,
    best_per_attribute,
    everyone,
    greedy,
    member_scores,
    top,
)
from featurestore.errors import ConfigError


def problem_of(corpus) -> Problem:
    targets = Targets.from_manifest(corpus.manifest)
    return Problem(corpus.aligned(), None, targets, np.array(targets.keys))


@pytest.fixture(scope="module")
def problem(make_corpus: Callable) -> Problem:
    return problem_of(make_corpus(300, 6, seed=4, no_consensus=0.1))


def score(problem: Problem, members: list[int]) -> float:
    """scikit-learn's macro-F1 of the soft vote of these members, as often as they are named."""
    labelled = problem.targets.labels >= 0
    mean = problem.probabilities[members].astype(np.float64).mean(0)[labelled]
    return float(f1_score(problem.targets.labels[labelled], mean.argmax(1), average="macro"))


def test_the_best_few_are_those_of_the_largest_macro_f1(problem: Problem) -> None:
    singly = [score(problem, [m]) for m in range(6)]
    assert member_scores(problem) == pytest.approx(singly)
    order = sorted(range(6), key=lambda m: -singly[m])
    for k in (1, 3, 6):
        assert top(k)(problem).members == tuple(order[:k])
    assert everyone(problem).members == tuple(range(6))
    for k in (0, 7):
        with pytest.raises(ConfigError, match=f"top {k} .* 6"):
            top(k)(problem)


@pytest.mark.parametrize("replacement", [False, True])
def test_greedy_selection_is_the_plain_loop(problem: Problem, replacement: bool) -> None:
    chosen: list[int] = []
    scores = []
    for _ in range(18 if replacement else 6):
        free = [m for m in range(6) if replacement or m not in chosen]
        chosen.append(max(free, key=lambda m: score(problem, [*chosen, m])))
        scores.append(score(problem, chosen))
    chosen = chosen[: int(np.argmax(scores)) + 1]
    result = greedy(replacement)(problem)
    assert result.members == tuple(dict.fromkeys(chosen))
    if replacement:
        assert result.counts == tuple(chosen.count(m) for m in result.members)
    else:
        assert result.counts is None
        assert score(problem, list(result.members)) >= score(problem, [int(member_scores(problem).argmax())])
    assert len(greedy(replacement, limit=2)(problem).members) <= 2


def test_a_choice_looks_at_its_rows_alone(problem: Problem) -> None:
    rows = np.arange(300) < 150
    spoiled = problem.posteriors.values.copy()
    spoiled[:, ~rows] = spoiled[::-1, ~rows]
    changed = dataclasses.replace(problem, posteriors=dataclasses.replace(problem.posteriors, values=spoiled))
    for rule in (top(2), greedy(), greedy(True)):
        assert rule(problem.rows(rows)) == rule(changed.rows(rows))


def attributes_alone(n: int = 200) -> Problem:
    """Five members, each with an attribute it knows best; no classes."""
    rng = np.random.default_rng(0)
    target = rng.normal(4, 1, (n, 2)).astype(np.float32)
    target[:7, 1] = np.nan
    noise = np.array([[0.2, 3], [3, 0.2], [0.5, 0.4], [0.4, 0.6], [4, 4]])
    values = np.nan_to_num(target, nan=4.0) + rng.normal(size=(5, n, 2)) * noise[:, None]
    keys = tuple(map(str, range(n)))
    unlabelled = Targets.unknown(keys, (), ("arousal", "valence"), ((1.0, 7.0),) * 2)
    aligned = Aligned(
        tuple(f"m{m}" for m in range(5)), keys, ("attr:arousal", "attr:valence"), values.astype(np.float32),
        ("fold",) * 5,
    )  # fmt: skip
    return Problem(aligned, None, dataclasses.replace(unlabelled, attribute_values=target), np.array(keys))


def test_each_attribute_has_its_own_best_members() -> None:
    problem = attributes_alone()
    chosen = best_per_attribute(problem, 3)
    assert [set(own) for own in chosen] == [{0, 2, 3}, {1, 2, 3}]
    scores = attribute_scores(problem)
    rated = ~np.isnan(problem.targets.attribute_values[:, 1])
    assert scores[1, 1] == pytest.approx(
        ccc(problem.attributes[1, rated, 1], problem.targets.attribute_values[rated, 1])
    )
    assert best_per_attribute(problem, 9)[0][:1] == (0,)
    assert len(best_per_attribute(problem, 9)[0]) == 5


def test_without_classes_members_are_chosen_by_their_mean_concordance() -> None:
    problem = attributes_alone()
    expected = [
        np.mean([ccc(own[:, a], problem.targets.attribute_values[:, a]) for a in range(2)])
        for own in problem.attributes
    ]
    assert member_scores(problem) == pytest.approx(expected)
    chosen = greedy()(problem).members

    def worth(members: tuple[int, ...]) -> float:
        mean = problem.attributes[list(members)].astype(np.float64).mean(0)
        return float(np.mean([ccc(mean[:, a], problem.targets.attribute_values[:, a]) for a in range(2)]))

    assert 4 not in chosen
    assert worth(chosen) >= max(worth(pair) for pair in combinations(range(5), 1))
