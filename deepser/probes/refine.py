"""Refines a kernel's scores by each judged speaker's own clips, without labels: self-training in closed form.

The clips of a speaker join the training rows with their predicted class shares as targets, and each clip's score is
that of the fit in which its own target took no part. A ridge regression of n training and m new rows follows from the
one of the n rows and the new rows' covariance given them, (m, m), so that nothing is fitted again (Rasmussen and
Williams 2006, equations 2.24 and 5.12).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from featurestore.errors import ConfigError

REFINEMENTS = ("none", "speaker", "shares")
TEMPERATURE = 0.08  # of the softmax that makes targets of scores, which are about probabilities
ROUNDS = 3
SCALINGS = 50
LEAST_CLIPS_OF_CLASS = 2  # of a speaker on average: with fewer, shares say little

Array = NDArray[np.float64]


def refined(scores: Array, covariance: Array, penalty: float, shares: Array | None = None) -> Array:
    """Return the refined scores (m, C) of one speaker's clips.

    scores: (m, C) of the fit of the training rows. covariance: (m, m) of the clips given the training rows, in the
    kernel's units. penalty: of the clips' squared errors. shares: (C,) how frequent the classes are; given, targets and
    refined scores are scaled until the speaker's clips have these shares (Sinkhorn 1967). One clip stays as it is.
    """
    inverse = np.linalg.inv(covariance + penalty * np.eye(len(covariance)))
    own = 1 / np.diag(inverse)[:, None]
    found = scores
    for _ in range(ROUNDS):
        targets = _targets(found, shares)
        found = targets - own * (inverse @ (targets - scores))
    return found if shares is None else _targets(found, shares)


def refined_by_speaker(
    scores: Array, covariance: Array, penalty: float, speakers: NDArray[np.int64], shares: Array | None = None
) -> Array:
    """Return `refined` scores (m, C) of several speakers' clips; those of speaker 0, nobody, stay."""
    found = scores.copy()
    for clips in _of_speakers(speakers):
        enough = shares is not None and len(clips) >= LEAST_CLIPS_OF_CLASS * int((shares > 0).sum())
        found[clips] = refined(scores[clips], covariance[np.ix_(clips, clips)], penalty, shares if enough else None)
    return found


def check_refinements(names: tuple[str, ...]) -> None:
    """Raise ConfigError unless these are one or more of REFINEMENTS, each once."""
    if not names or set(names) - set(REFINEMENTS) or len(set(names)) != len(names):
        raise ConfigError(
            f"refine takes one or more of {', '.join(REFINEMENTS)}, each once; found {', '.join(names) or 'none'}."
        )


def _of_speakers(speakers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for speaker in np.unique(speakers[speakers > 0]):
        clips = np.flatnonzero(speakers == speaker)
        if len(clips) > 1:
            yield clips


def _targets(scores: Array, shares: Array | None) -> Array:
    """Class shares (m, C) of scores; with `shares`, of these column means."""
    targets: Array = softmax(scores / TEMPERATURE, 1)
    if shares is None:
        return targets
    for _ in range(SCALINGS):
        targets *= shares * len(targets) / np.maximum(targets.sum(0), 1e-12)
        targets /= np.maximum(targets.sum(1, keepdims=True), 1e-12)
    return targets
