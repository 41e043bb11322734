"""Votes: what most members say, and what they say on average."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ensemble.votes import majority_vote, soft_vote


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
