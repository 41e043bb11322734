"""Refining by a speaker's own clips equals ridge regressions of all rows; what is left as it is."""

import numpy as np
import pytest
from scipy.special import softmax

from deepser.probes.config import ProbeConfig
from deepser.probes.refine import ROUNDS, TEMPERATURE, clips_of_speakers, refined, refined_by_speaker
from featurestore.errors import ConfigError

PENALTY = 0.1


def kernel_of(rows: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.square(rows[:, None] - rows[None]).sum(-1) / rows.shape[1])


def problem(n: int = 30, m: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernel of n + m rows, n targets, weights, scores of the m, and their covariance given the n."""
    rng = np.random.default_rng(0)
    kernel = kernel_of(rng.normal(size=(n + m, 5)))
    targets, weights = np.eye(3)[rng.integers(0, 3, n)], rng.uniform(0.5, 2, n)
    inverse = np.linalg.inv(kernel[:n, :n] + np.diag(PENALTY / weights))
    scores = kernel[n:, :n] @ inverse @ targets
    return kernel, targets, weights, scores, kernel[n:, n:] - kernel[n:, :n] @ inverse @ kernel[:n, n:]


def alone(scores: np.ndarray, covariance: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """Return the refined scores of one speaker by one layer."""
    return refined(scores[None], covariance[None], np.array([PENALTY]), shares)


def by_speaker(
    scores: np.ndarray, covariance: np.ndarray, speakers: list[int], shares: np.ndarray | None = None
) -> np.ndarray:
    clips_of = clips_of_speakers(np.array(speakers))
    kernels = [covariance[None][:, clips[:, None], clips[None]] for clips in clips_of]
    return refined_by_speaker(scores[None], clips_of, kernels, np.array([PENALTY]), shares)


def test_a_clips_score_is_that_of_the_fit_of_the_training_rows_and_the_speakers_other_clips() -> None:
    kernel, targets, weights, scores, covariance = problem()
    n, m = len(targets), len(scores)
    expected = scores
    for _ in range(ROUNDS):
        guesses, refitted = softmax(expected / TEMPERATURE, 1), np.empty_like(scores)
        for clip in range(m):
            kept = np.r_[np.arange(n), n + np.delete(np.arange(m), clip)]
            system = kernel[np.ix_(kept, kept)] + np.diag(PENALTY / np.r_[weights, np.ones(m - 1)])
            solution = np.linalg.solve(system, np.vstack([targets, np.delete(guesses, clip, 0)]))
            refitted[clip] = kernel[n + clip, kept] @ solution
        expected = refitted
    np.testing.assert_allclose(alone(scores, covariance), expected, atol=1e-8)


def test_with_shares_the_classes_are_as_frequent_as_requested() -> None:
    _, _, _, scores, covariance = problem()
    shares = np.array([0.5, 0.3, 0.2])
    result = alone(scores, covariance, shares)
    np.testing.assert_allclose(result.sum(1), 1)
    np.testing.assert_allclose(result.mean(0), shares, atol=1e-3)


def test_layers_learn_from_targets_that_they_have_in_common() -> None:
    _, _, _, scores, covariance = problem()
    twice = refined(np.stack([scores, scores]), np.stack([covariance] * 2), np.full(2, PENALTY))
    np.testing.assert_allclose(twice, alone(scores, covariance))
    averaged = refined(np.stack([scores, scores[::-1]]), np.stack([covariance] * 2), np.full(2, PENALTY))
    assert np.abs(averaged - (alone(scores, covariance) + alone(scores[::-1], covariance)) / 2).max() > 1e-3


def test_speakers_are_refined_apart_and_nobodys_clips_and_single_ones_stay() -> None:
    _, _, _, scores, covariance = problem()
    result = by_speaker(scores, covariance, [1, 1, 2, 2, 2, 3, 0, 0, 0])
    np.testing.assert_array_equal(result[5:], scores[5:])
    np.testing.assert_allclose(result[:2], alone(scores[:2], covariance[:2, :2]))
    np.testing.assert_allclose(result[2:5], alone(scores[2:5], covariance[2:5, 2:5]))


def test_too_few_clips_have_no_shares() -> None:
    _, _, _, scores, covariance = problem()
    few = (scores[:4], covariance[:4, :4], [1] * 4)
    np.testing.assert_array_equal(by_speaker(*few, np.full(3, 1 / 3)), by_speaker(*few))


@pytest.mark.parametrize("refine", [(), ("nobody",), ("speaker", "speaker")])
def test_an_unknown_refinement_is_refused(refine: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--refine"):
        ProbeConfig("p", ("a",), refine=refine)
