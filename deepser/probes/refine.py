"""Refines a kernel's scores by each judged speaker's own clips, without labels: self-training in closed form.

The clips of a speaker join the training rows with their predicted class shares as targets, and each clip's score is
that of the fit in which its own target took no part. A ridge regression of n training and m new rows follows from the
one of the n rows and the new rows' covariance given them, (m, m), so that nothing is fitted again (Rasmussen and
Williams 2006, equations 2.24 and 5.12).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

TEMPERATURE = 0.08  # of the softmax that makes targets of scores, which are about probabilities
ROUNDS = 3
SCALINGS = 50
LEAST_CLIPS_OF_CLASS = 2  # of a speaker on average: with fewer, shares say little

Array = NDArray[np.float64]


def refined(scores: Array, covariances: Array, penalties: Array, shares: Array | None = None) -> Array:
    """Return the refined scores (m, C) of one speaker's clips: the mean over L layers' fits, with targets in common.

    scores: (L, m, C) of each layer's fit of the training rows. covariances: (L, m, m) of the clips given the training
    rows, in the kernel's units. penalties: (L,) of the clips' squared errors. shares: (C,) how frequent the classes
    are; given, targets and refined scores are scaled until the speaker's clips have these shares (Sinkhorn 1967). One
    clip stays as it is.
    """
    eye = np.eye(scores.shape[1])
    inverses = np.linalg.inv(covariances + penalties[:, None, None] * eye)
    variances = 1 / np.diagonal(inverses, axis1=1, axis2=2)[..., None]
    refined_scores: Array = scores.mean(0)
    for _ in range(ROUNDS):
        targets = _targets(refined_scores, shares)
        refined_scores = (targets - variances * (inverses @ (targets - scores))).mean(0)
    return refined_scores if shares is None else _targets(refined_scores, shares)


def refined_by_speaker(
    scores: Array,
    clips_of: Sequence[NDArray[np.int64]],
    covariances: Sequence[Array],
    penalties: Array,
    shares: Array | None = None,
) -> Array:
    """Return `refined` scores (m, C) of several speakers' clips; those of nobody are the layers' means.

    clips_of: the clips of each speaker, `clips_of_speakers`. covariances: (L, m, m) of each speaker's clips.
    """
    refined_scores: Array = scores.mean(0)
    for clips, of_speaker in zip(clips_of, covariances, strict=True):
        enough = shares is not None and len(clips) >= LEAST_CLIPS_OF_CLASS * int((shares > 0).sum())
        refined_scores[clips] = refined(scores[:, clips], of_speaker, penalties, shares if enough else None)
    return refined_scores


def clips_of_speakers(codes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the clips of each speaker with two or more; code 0 is nobody, as in `Groups.codes`."""
    speakers = [np.flatnonzero(codes == code) for code in np.unique(codes[codes > 0])]
    return [clips for clips in speakers if len(clips) > 1]


def _targets(scores: Array, shares: Array | None) -> Array:
    """Return class shares (m, C) of scores; with `shares`, of these column means."""
    targets: Array = softmax(scores / TEMPERATURE, 1)
    if shares is None:
        return targets
    for _ in range(SCALINGS):
        targets *= shares * len(targets) / np.maximum(targets.sum(0), 1e-12)
        targets /= np.maximum(targets.sum(1, keepdims=True), 1e-12)
    return targets
