"""Votes that are fitted, saved and used like any meta-classifier: members' weights by class and attribute."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ensemble.evaluation.align import Aligned
from ensemble.fusion.config import VoteConfig
from ensemble.fusion.linear import Prediction, check_inputs, read_meta, save_meta, wrong_content
from ensemble.fusion.mlp import log_probabilities
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import Selection, attribute_scores, best_per_attribute, member_scores
from ensemble.fusion.votes import vote_shares, weighted_vote
from featurestore.errors import ConfigError


@dataclass(frozen=True)
class VoteMeta:
    """tensors: weights (M, C + A) float64 of the weighted mean; under rule "majority" classes are counted instead."""

    config: VoteConfig
    members: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: dict[str, tuple[float, float]]
    tensors: dict[str, Tensor]

    @property
    def layer(self) -> str:
        """The layer of members' posteriors that it reads."""
        return "posteriors"

    def predict(self, aligned: Aligned) -> Prediction:
        """The fused predictions. AlignmentError as for the linear meta-classifier."""
        check_inputs(aligned, self.members, self.classes, tuple(self.attributes))
        return self.predict_values(aligned.values)

    def predict_values(self, values: np.ndarray) -> Prediction:
        """As `predict`, from a bare (M, N, C + A) array in the order of `members`, `classes` and `attributes`."""
        n_classes = len(self.classes)
        fused = weighted_vote(values, self.tensors["weights"].numpy())
        probabilities = fused[:, :n_classes]
        if self.config.rule == "majority":
            probabilities = vote_shares(values[..., :n_classes])
        return Prediction(log_probabilities(probabilities.astype(np.float32)), probabilities, fused[:, n_classes:])

    def save(self, directory: Path) -> None:
        """Writes config.json and model.safetensors into `directory`, made if need be."""
        save_meta(directory, "vote", self)

    @classmethod
    def load(cls, directory: Path) -> "VoteMeta":
        """Reads what `save` wrote. ConfigError naming the directory when no vote is in it."""
        config, names, _, tensors = read_meta(directory, "vote", VoteConfig)
        with wrong_content(directory):
            return cls(config, *names, {"weights": tensors["weights"]})


def fit_vote(problem: Problem, config: VoteConfig, selection: Selection | None = None) -> VoteMeta:
    """The members' weights, from the rows of the problem alone.

    "majority" and "soft" weigh all alike. "weighted": as often as a member was chosen, where the selection counts; else
    a member's class weight is its macro-F1 above chance (1 / C), an attribute's weight its concordance, nothing below
    zero. "attributes": each attribute is the mean of the n_best members that are best at it (SRPOL's Task 2).
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
            weights[:, :n_classes] = (member_scores(problem) - 1 / n_classes).clip(min=0)[:, None]
        weights[:, n_classes:] = attribute_scores(problem).clip(min=0)
    elif config.rule == "attributes":
        for a, own in enumerate(best_per_attribute(problem, config.n_best), n_classes):
            weights[:, a] = np.isin(np.arange(n_members), own)
    return VoteMeta(
        config,
        problem.members,
        targets.classes,
        dict(zip(targets.attributes, targets.attribute_ranges, strict=True)),
        {"weights": torch.from_numpy(weights)},
    )
