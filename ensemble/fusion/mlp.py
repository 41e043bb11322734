"""A small MLP as meta-classifier: the linear map plus one hidden layer; its seeds are averaged in their predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble.evaluation.align import Aligned
from ensemble.fusion.config import MetaConfig, layer_of
from ensemble.fusion.linear import Prediction, check_inputs, prepare, read_meta, save_meta, to_scale, wrong_content
from ensemble.fusion.votes import soft_vote


@dataclass(frozen=True)
class MlpMeta:
    """Networks of S seeds. Hidden units of two seeds have nothing in common, so weights can't be averaged.

    tensors: weight (S, C + A, F), hidden (S, H, F), output (S, C + A, H), where F counts the members' columns and a
    constant 1; the outputs are weight @ x + output @ relu(hidden @ x).
    """

    config: MetaConfig
    members: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: dict[str, tuple[float, float]]
    tensors: dict[str, Tensor]
    history: tuple[dict[str, Any], ...] = ()

    @property
    def layer(self) -> str:
        """The layer of members' posteriors that it reads."""
        return layer_of(self.config.inputs)

    def predict(self, aligned: Aligned) -> Prediction:
        """The mean of the seeds' probabilities and attributes. AlignmentError as for the linear meta-classifier."""
        check_inputs(aligned, self.members, self.classes, tuple(self.attributes))
        return self.predict_values(aligned.values)

    def predict_values(self, values: np.ndarray) -> Prediction:
        """As `predict`, from a bare (M, N, C + A) array in the order of `members`, `classes` and `attributes`."""
        return mean_prediction(self.predict_seeds(values))

    def predict_seeds(self, values: np.ndarray) -> tuple[Prediction, ...]:
        """(M, N, C + A) -> each seed's own prediction."""
        ranges, n_classes = tuple(self.attributes.values()), len(self.classes)
        x = prepare(values, n_classes, ranges, constant=True).T
        found = []
        for weight, hidden, output in zip(*(self.tensors[k] for k in ("weight", "hidden", "output")), strict=True):
            outputs = (weight @ x + output @ (hidden @ x).relu()).T
            logits, z = outputs[:, :n_classes], outputs[:, n_classes:]
            found.append(Prediction(logits.numpy(), logits.softmax(1).numpy(), to_scale(z, ranges).numpy()))
        return tuple(found)

    def save(self, directory: Path) -> None:
        """Writes config.json and model.safetensors into `directory`, made if need be."""
        save_meta(directory, "mlp", self, self.history)

    @classmethod
    def load(cls, directory: Path) -> "MlpMeta":
        """Reads what `save` wrote. ConfigError naming the directory when no MLP is in it."""
        config, names, described, tensors = read_meta(directory, "mlp", MetaConfig)
        with wrong_content(directory):
            tensors = {name: tensors[name] for name in ("weight", "hidden", "output")}
            return cls(config, *names, tensors, tuple(described["history"]))


def mean_prediction(predictions: tuple[Prediction, ...]) -> Prediction:
    """The mean of probabilities and attributes; the logits are the logarithms of the mean probabilities."""
    probabilities = soft_vote(np.stack([p.probabilities for p in predictions]))
    attributes = soft_vote(np.stack([p.attributes for p in predictions]))
    return Prediction(log_probabilities(probabilities), probabilities, attributes)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> its logarithm, -87 for what is 0 in float32."""
    return torch.from_numpy(probabilities).clamp(min=torch.finfo(torch.float32).tiny).log().numpy()
