"""The linear meta-classifier: what it is, how it predicts, its soup, and how it is stored (MEDUSA, stages 3 and 4)."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepser.config import from_dict
from ensemble.align import Aligned, AlignmentError, column_names
from ensemble.config import MetaConfig
from featurestore.errors import ConfigError


@dataclass(frozen=True)
class Prediction:
    """`logits` and `probabilities` (N, C) float32; `attributes` (N, A) float32 on the scheme's scales."""

    logits: np.ndarray
    probabilities: np.ndarray
    attributes: np.ndarray


@dataclass(frozen=True)
class MetaClassifier:
    """Linear maps from all members' columns to class logits and attributes, one per seed (a soup has one).

    weight: (S, M * (C + A), C + A) float32, bias: (S, C + A), over inputs as `prepare` makes them. Nothing non-linear
    follows but the sigmoid that keeps an attribute within its range.
    """

    config: MetaConfig
    members: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: dict[str, tuple[float, float]]
    weight: Tensor
    bias: Tensor
    history: tuple[dict[str, Any], ...] = ()

    def predict(self, aligned: Aligned, which: int = 0) -> Prediction:
        """Predictions of map number `which`. AlignmentError if members or columns aren't those it was fitted on."""
        columns = column_names(self.classes, tuple(self.attributes))
        if aligned.members != self.members or aligned.columns != columns:
            raise AlignmentError(
                f"The meta-classifier reads members {', '.join(self.members)} with columns {', '.join(columns)}; found "
                f"members {', '.join(aligned.members)} with columns {', '.join(aligned.columns)}. Give it what it was "
                "fitted on, in that order."
            )
        return self.predict_values(aligned.values, which)

    def predict_values(self, values: np.ndarray, which: int = 0) -> Prediction:
        """As `predict`, from a bare (M, N, C + A) array in the order of `members`, `classes` and `attributes`."""
        outputs = prepare(values, len(self.classes), self.ranges) @ self.weight[which] + self.bias[which]
        logits, z = outputs[:, : len(self.classes)], outputs[:, len(self.classes) :]
        return Prediction(logits.numpy(), logits.softmax(1).numpy(), to_scale(z, self.ranges).numpy())

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each attribute."""
        return tuple(self.attributes.values())

    def soup(self) -> "MetaClassifier":
        """The uniform average of the seeds' weights, as a classifier with one map (MEDUSA, stage 4)."""
        return dataclasses.replace(self, weight=self.weight.mean(0, keepdim=True), bias=self.bias.mean(0, keepdim=True))

    def save(self, directory: Path) -> None:
        """Writes config.json and model.safetensors into `directory`, made if need be."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_file(tensors, directory / "model.safetensors")
        described = {"kind": "meta"} | {
            name: getattr(self, name) for name in ("members", "classes", "attributes", "history")
        }
        described["config"] = dataclasses.asdict(self.config)
        text = json.dumps(described, indent=2, ensure_ascii=False)
        (directory / "config.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "MetaClassifier":
        """Reads what `save` wrote. ConfigError naming the directory when no meta-classifier is in it."""
        try:
            described = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            tensors = load_file(directory / "model.safetensors")
            return cls(
                config=from_dict(MetaConfig, described["config"], f"{directory / 'config.json'}: config"),
                members=tuple(described["members"]),
                classes=tuple(described["classes"]),
                attributes={name: (low, high) for name, (low, high) in described["attributes"].items()},
                weight=tensors["weight"],
                bias=tensors["bias"],
                history=tuple(described["history"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ConfigError(
                f"{directory} holds no meta-classifier ({type(error).__name__}: {error}); "
                "give the directory that fit-meta wrote."
            ) from error


def prepare(values: np.ndarray, n_classes: int, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """Members' (M, N, C + A) columns -> (N, M * (C + A)) float32: classes centred per row, attributes on -1..1."""
    x = torch.from_numpy(np.array(values, np.float32))
    x[..., :n_classes] -= x[..., :n_classes].mean(2, keepdim=True)
    for a, (low, high) in enumerate(ranges, n_classes):
        x[..., a] = (x[..., a] - (low + high) / 2) / ((high - low) / 2)
    return x.permute(1, 0, 2).reshape(x.shape[1], -1)


def to_scale(z: Tensor, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """(..., A) -> low + (high - low) * sigmoid(z), each attribute on its own scale (1 + 6 * sigmoid on 1..7)."""
    low, high = z.new_tensor(ranges).reshape(-1, 2).T
    return low + (high - low) * z.sigmoid()
