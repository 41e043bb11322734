"""Every kind of meta-classifier that can be fitted, saved and used: linear, MLP, forest, votes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ensemble.evaluation.align import Aligned
from ensemble.fusion.forest import ForestMeta
from ensemble.fusion.linear import CONFIG, MetaClassifier, Prediction, wrong_content
from ensemble.fusion.mlp import MlpMeta
from ensemble.fusion.vote_meta import VoteMeta
from featurestore.errors import ConfigError


class Meta(Protocol):
    """A fitted meta-classifier: members' columns in, classes and attributes out."""

    @property
    def config(self) -> Any: ...
    @property
    def members(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def attributes(self) -> dict[str, tuple[float, float]]: ...
    @property
    def layer(self) -> str: ...
    @property
    def tensors(self) -> dict[str, Tensor]: ...

    def predict(self, aligned: Aligned) -> Prediction: ...
    def predict_values(self, values: np.ndarray) -> Prediction: ...
    def save(self, directory: Path) -> None: ...


KINDS: dict[str, Callable[[Path], Meta]] = {
    "meta": MetaClassifier.load,
    "mlp": MlpMeta.load,
    "forest": ForestMeta.load,
    "vote": VoteMeta.load,
}


def load_meta(directory: Path) -> Meta:
    """The meta-classifier in a run directory, whatever its kind; ConfigError naming the directory if there is none."""
    with wrong_content(directory):
        kind = json.loads((directory / CONFIG).read_text(encoding="utf-8"))["kind"]
    if kind not in KINDS:
        raise ConfigError(
            f"{directory} holds {kind!r}, which is no kind of meta-classifier ({', '.join(KINDS)}); give the directory "
            "that fit-meta wrote."
        )
    return KINDS[kind](directory)
