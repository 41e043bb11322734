"""A fitted meta-classifier as numbers: how it was trained, what it reads, what it learned, and what it predicts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ensemble.fusion.config import Config, VoteConfig, layer_of

# Kinds, as a saved config.json names them.
LINEAR, MLP, FOREST, VOTE, RIDGE = "meta", "mlp", "forest", "vote", "ridge"


@dataclass(frozen=True)
class Prediction:
    """`logits` and `probabilities` (N, C) float32; `attributes` (N, A) float32 on the scheme's scales."""

    logits: np.ndarray
    probabilities: np.ndarray
    attributes: np.ndarray


@dataclass(frozen=True)
class MetaState:
    """All of a fitted meta-classifier; `ensemble.fusion.kinds.KINDS` says what predicts from it.

    kind: that of a meta-classifier. members, classes, attributes (name: low, high): what it reads, in this order.
    tensors: what is learned, by name; shapes stand at each kind's `predict_` function. history: a record per round of
    training, where there are rounds.
    """

    kind: str
    config: Config
    members: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: dict[str, tuple[float, float]]
    tensors: dict[str, Tensor]
    history: tuple[dict[str, Any], ...] = ()

    @property
    def layer(self) -> str:
        """The layer of members' posteriors that it reads: "posteriors" or "logits"."""
        return "posteriors" if isinstance(self.config, VoteConfig) else layer_of(self.config.inputs)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each attribute."""
        return tuple(self.attributes.values())
