"""Votes that are fitted, saved and used like any meta-classifier: members' weights by class and attribute."""

import numpy as np
import torch

from deepser.scores.probabilities import log_probabilities
from ensemble.fusion.config import VoteConfig
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import Selection, attribute_scores, best_per_attribute, member_scores
from ensemble.fusion.state import VOTE, MetaState, Prediction
from ensemble.fusion.votes import vote_shares, weighted_vote
from featurestore.errors import ConfigError


def predict_vote(meta: MetaState, values: np.ndarray) -> Prediction:
    """Return the weighted mean of (M, N, C + A) columns; under rule "majority" classes are counted instead.

    tensors: weights (M, C + A) float64.
    """
    n_classes = len(meta.classes)
    assert isinstance(meta.config, VoteConfig)
    fused = weighted_vote(values, meta.tensors["weights"].numpy())
    probabilities = fused[:, :n_classes]
    if meta.config.rule == "majority":
        probabilities = vote_shares(values[..., :n_classes])
    return Prediction(log_probabilities(probabilities.astype(np.float32)), probabilities, fused[:, n_classes:])


def fit_vote(problem: Problem, config: VoteConfig, selection: Selection | None = None) -> MetaState:
    """Return the members' weights, from the rows of the problem alone.

    "majority" and "soft" weigh all alike. "weighted": as often as a member was chosen, where the selection counts; else
    a member's class weight is its macro-F1 above chance, both over the classes that occur, and an attribute's weight
    its concordance, nothing below zero. "attributes": each attribute is the mean of the n_best members that are best
    at it (SRPOL's Task 2). "best": the member with the best score of the classes, and the best of each attribute.
    """
    targets = problem.targets
    if config.rule == "attributes" and not targets.attributes:
        raise ConfigError("There are no attributes to choose members for; take another way of fusing, such as soft.")
    n_members, n_classes = len(problem.members), problem.n_classes
    weights = np.ones((n_members, n_classes + len(targets.attributes)))
    if config.rule == "weighted" and selection is not None and selection.counts is not None:
        weights *= np.array(selection.counts)[:, None]
    elif config.rule == "weighted":
        if problem.has_labels:
            n_present = len(np.unique(targets.labels[targets.labels >= 0]))
            weights[:, :n_classes] = (member_scores(problem) - 1 / n_present).clip(min=0)[:, None]
        weights[:, n_classes:] = attribute_scores(problem).clip(min=0)
    elif config.rule == "best":
        weights[:] = 0
        if n_classes:
            weights[int(np.argmax(member_scores(problem))), :n_classes] = 1
        for a, best_members in enumerate(best_per_attribute(problem, 1), n_classes):
            weights[best_members, a] = 1
    elif config.rule == "attributes":
        for a, best_members in enumerate(best_per_attribute(problem, config.n_best), n_classes):
            weights[:, a] = np.isin(np.arange(n_members), best_members)
    return MetaState(
        VOTE,
        config,
        problem.members,
        targets.classes,
        dict(zip(targets.attributes, targets.attribute_ranges, strict=True)),
        {"weights": torch.from_numpy(weights)},
    )
