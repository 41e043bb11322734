"""Which epoch is kept: one number for how good a network's outputs on the held-out part are."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from deepser.config import LossConfig
from deepser.scores import metrics
from deepser.training.data import Indices
from deepser.training.losses import total_loss
from deepser.training.targets import Targets
from featurestore.corpus.splits import balanced_sets
from featurestore.errors import ConfigError


def held_out_score(
    rule: str,
    on: str,
    logits: NDArray[np.float32],
    attributes: NDArray[np.float32],
    targets: Targets,
    indices: Indices,
    loss: LossConfig,
    *,
    seed: int,
    kind: str = "soft",
) -> float:
    """Return the score of outputs for the utterances `indices` (n,) by a selection rule; more is better.

    logits (n, C), attributes (n, A). rule: "macro_f1" or another class score, over the whole part or, on "balanced",
    the mean over balanced draws from it, so that rare classes count as others do; "mean_ccc", "ccc:<attribute>" over
    the whole part; "loss": minus the stage's, classes weighing the same, over the whole part at once. kind: which
    class targets are learned: the loss is of the labels for "one-hot", else of the votes. ConfigError when the part
    lacks what the rule looks at.
    """
    labels, values = targets.labels[indices], targets.attribute_values[indices]
    if rule == "loss":
        learned = targets.one_hot if kind == "one-hot" else targets.soft
        arrays = (logits, learned[indices], np.ones(logits.shape[1], np.float32), attributes, values)
        y_c, soft, weights, y_r, y = (torch.from_numpy(array) for array in arrays)
        ranges = torch.tensor(targets.attribute_ranges, dtype=torch.float32).reshape(-1, 2)
        return -float(total_loss(loss, y_c, soft, weights, y_r, y, ranges))
    if rule == "mean_ccc" or rule.startswith("ccc:"):
        concordance = metrics.concordance(attributes, values, targets.attributes)
        score = concordance.mean if rule == "mean_ccc" else concordance.ccc.get(rule.removeprefix("ccc:"), math.nan)
        if math.isnan(score):
            rated_names = ", ".join(name for name, n in concordance.n.items() if n) or "none"
            raise ConfigError(f"--select {rule}: the held-out part has no such attribute; it has {rated_names}.")
        return score
    if not (labels >= 0).any():
        raise ConfigError(f"--select {rule}: no held-out utterance has a consensus label; use mean_ccc, loss or last.")
    draws = balanced_sets(labels, seed=seed) if on == "balanced" else [np.arange(len(labels))]
    scores = [metrics.classification(logits[d].argmax(1), labels[d], targets.classes) for d in draws]
    return float(np.mean([getattr(score, rule) for score in scores]))
