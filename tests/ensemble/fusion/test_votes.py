"""Votes: what most members say, and what they say on average."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import VotingClassifier
from sklearn.tree import DecisionTreeClassifier

from ensemble.fusion.votes import majority_vote, soft_vote, vote_shares, weighted_vote


def test_the_majority_wins_against_a_confident_minority() -> None:
    p = np.array([[[0.4, 0.6]], [[0.4, 0.6]], [[1.0, 0.0]]])
    assert majority_vote(p).tolist() == [1]
    assert soft_vote(p).argmax(1).tolist() == [0]


def test_a_tie_goes_to_the_tied_class_with_more_probability() -> None:
    # One vote each for 0 and 1; class 2 has the largest sum but no vote.
    p = np.array([[[0.45, 0.15, 0.40]], [[0.10, 0.46, 0.44]]])
    assert majority_vote(p).tolist() == [1]


@given(st.integers(1, 6), st.integers(1, 8), st.integers(2, 5), st.integers(0, 10**6))
def test_votes_equal_a_count_by_hand_and_ignore_the_members_order(m: int, n: int, c: int, seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(c), (m, n)).astype(np.float32)
    expected = []
    for i in range(n):
        counts = [sum(int(p[k, i].argmax() == j) for k in range(m)) for j in range(c)]
        expected.append(max(range(c), key=lambda j, i=i, counts=counts: (counts[j], p[:, i, j].sum(dtype=float))))
    assert majority_vote(p).tolist() == expected == majority_vote(p[::-1]).tolist()
    assert np.allclose(soft_vote(p), p.mean(0))


@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6))
def test_vote_shares_are_a_distribution_led_by_the_majority(m: int, n: int, c: int, seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(c), (m, n)).astype(np.float32)
    shares = vote_shares(p)
    assert np.allclose(shares.sum(1), 1)
    for i in range(n):
        counts = np.bincount(p[:, i].argmax(1), minlength=c)
        assert np.abs(shares[i] * (m + 0.5) - counts).max() <= 0.5 + 1e-6


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_a_weighted_vote_is_scikit_learns_weighted_average(m: int, n: int, c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, weights = rng.dirichlet(np.ones(c), (m, n)), rng.random(m) + 0.01
    assert np.allclose(weighted_vote(p, weights), np.average(p, axis=0, weights=weights), atol=1e-6)
    by_column = rng.random((m, c)) + 0.01
    expected = [[np.average(p[:, i, k], weights=by_column[:, k]) for k in range(c)] for i in range(n)]
    assert np.allclose(weighted_vote(p, by_column), expected, atol=1e-6)
    assert np.allclose(weighted_vote(p, np.zeros(m)), soft_vote(p), atol=1e-6)
    assert np.allclose(weighted_vote(p, np.ones(m)), soft_vote(p), atol=1e-6)


def test_scikit_learns_voting_classifier_votes_alike() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.integers(0, 3, 300)
    x[np.arange(300), y] += 1.5
    models = [(str(d), DecisionTreeClassifier(max_depth=d, random_state=d)) for d in (2, 4, 5)]
    for voting, ours in (("soft", lambda p, w: weighted_vote(p, w).argmax(1)), ("hard", None)):
        weights = np.array([1.0, 2.0, 0.5])
        classifier = VotingClassifier(models, voting=voting, weights=weights if ours else None).fit(x, y)
        p = np.stack([each.predict_proba(x) for each in classifier.estimators_])
        if ours:
            assert np.array_equal(classifier.predict(x), ours(p, weights))
            continue
        # Theirs gives a tie to the first class; ours to the likelier one.
        counts = np.stack([(p.argmax(2) == c).sum(0) for c in range(3)], 1)
        clear = (counts == counts.max(1, keepdims=True)).sum(1) == 1
        assert np.array_equal(classifier.predict(x)[clear], majority_vote(p)[clear])
