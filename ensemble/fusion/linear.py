"""The linear meta-classifier and its soup (MEDUSA, stages 3 and 4); how a meta-classifier of any kind is stored."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from deepser.config import from_dict
from deepser.training.checkpoint import save_atomically
from ensemble.evaluation.align import Aligned, column_names
from ensemble.fusion.config import MetaConfig, layer_of
from featurestore.errors import AlignmentError, ConfigError
from featurestore.runtime.durable import replace_text, writing

CONFIG, WEIGHTS = "config.json", "model.safetensors"


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
    follows but the sigmoid that keeps an attribute within its range. in_soup: the seeds that a greedy soup chose, none
    for all.
    """

    config: MetaConfig
    members: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: dict[str, tuple[float, float]]
    weight: Tensor
    bias: Tensor
    history: tuple[dict[str, Any], ...] = ()
    in_soup: tuple[int, ...] = ()

    def predict(self, aligned: Aligned, which: int = 0) -> Prediction:
        """Predictions of map number `which`. AlignmentError if members or columns aren't those it was fitted on."""
        check_inputs(aligned, self.members, self.classes, tuple(self.attributes))
        return self.predict_values(aligned.values, which)

    def predict_values(self, values: np.ndarray, which: int = 0) -> Prediction:
        """As `predict`, from a bare (M, N, C + A) array in the order of `members`, `classes` and `attributes`."""
        outputs = prepare(values, len(self.classes), self.ranges) @ self.weight[which] + self.bias[which]
        logits, z = outputs[:, : len(self.classes)], outputs[:, len(self.classes) :]
        return Prediction(logits.numpy(), logits.softmax(1).numpy(), to_scale(z, self.ranges).numpy())

    @property
    def layer(self) -> str:
        """The layer of members' posteriors that it reads."""
        return layer_of(self.config.inputs)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of each attribute."""
        return tuple(self.attributes.values())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is learned, by name."""
        return {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}

    def soup(self) -> "MetaClassifier":
        """The average of the seeds' weights, or of those in `in_soup`, as a classifier with one map (MEDUSA)."""
        which = list(self.in_soup) or slice(None)
        weight, bias = self.weight[which].mean(0, keepdim=True), self.bias[which].mean(0, keepdim=True)
        return dataclasses.replace(self, weight=weight, bias=bias, in_soup=())

    def save(self, directory: Path) -> None:
        """Writes config.json and model.safetensors into `directory`, made if need be."""
        save_meta(directory, "meta", self, self.history)

    @classmethod
    def load(cls, directory: Path) -> "MetaClassifier":
        """Reads what `save` wrote. ConfigError naming the directory when no linear meta-classifier is in it."""
        config, names, described, tensors = read_meta(directory, "meta", MetaConfig)
        with wrong_content(directory):
            return cls(config, *names, tensors["weight"], tensors["bias"], tuple(described["history"]))


def check_inputs(
    aligned: Aligned, members: tuple[str, ...], classes: tuple[str, ...], attributes: tuple[str, ...]
) -> None:
    """AlignmentError unless these are the members and columns, in their order."""
    columns = column_names(classes, attributes)
    if aligned.members != members or aligned.columns != columns:
        raise AlignmentError(
            f"The meta-classifier reads members {', '.join(members)} with columns {', '.join(columns)}; found "
            f"members {', '.join(aligned.members)} with columns {', '.join(aligned.columns)}. Give it what it was "
            "fitted on, in that order."
        )


def save_meta(directory: Path, kind: str, meta: Any, history: tuple[dict[str, Any], ...] = ()) -> None:
    """Writes a meta-classifier's `tensors` and, as JSON, its kind, config, members, classes and attributes."""
    save_atomically(meta.tensors, directory / WEIGHTS)
    described = {"kind": kind} | {name: getattr(meta, name) for name in ("members", "classes", "attributes")}
    described |= {"history": history, "config": dataclasses.asdict(meta.config)}
    text = json.dumps(described, indent=2, ensure_ascii=False)
    with writing(directory / CONFIG, ConfigError):
        replace_text(directory / CONFIG, text + "\n")


def read_meta(directory: Path, kind: str, config: type) -> tuple[Any, tuple[Any, Any, Any], dict[str, Any], dict]:
    """What `save_meta` wrote: the config, (members, classes, attributes), all that was described, the tensors."""
    with wrong_content(directory):
        described = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        if described["kind"] != kind:
            raise ConfigError(f"{directory} holds a meta-classifier of kind {described['kind']!r}, not {kind!r}.")
        saved = from_dict(config, described["config"], f"{directory / CONFIG}: config")
        attributes = {name: (low, high) for name, (low, high) in described["attributes"].items()}
        names = tuple(described["members"]), tuple(described["classes"]), attributes
        return saved, names, described, load_file(directory / WEIGHTS)


@contextmanager
def wrong_content(directory: Path) -> Iterator[None]:
    """A failure to read what is in `directory` becomes a ConfigError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConfigError(
            f"{directory} holds no meta-classifier ({type(error).__name__}: {error}); "
            "give the directory that fit-meta wrote."
        ) from error


def prepare(
    values: np.ndarray, n_classes: int, ranges: tuple[tuple[float, float], ...], constant: bool = False
) -> Tensor:
    """Members' (M, N, C + A) columns -> (N, M * (C + A)) float32: classes centred per row, attributes on -1..1.

    constant: with one more column, of ones.
    """
    n_members, n, n_columns = values.shape
    x = torch.empty(n, n_members * n_columns + constant)
    x[:, n_members * n_columns :] = 1
    inputs = x[:, : n_members * n_columns].unflatten(1, (n_members, n_columns))
    inputs.copy_(torch.from_numpy(np.ascontiguousarray(values, np.float32)).transpose(0, 1))
    inputs[..., :n_classes] -= inputs[..., :n_classes].mean(2, keepdim=True)
    for a, (low, high) in enumerate(ranges, n_classes):
        inputs[..., a] = (inputs[..., a] - (low + high) / 2) / ((high - low) / 2)
    return x


def to_scale(z: Tensor, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """(..., A) -> low + (high - low) * sigmoid(z), each attribute on its own scale (1 + 6 * sigmoid on 1..7)."""
    low, high = z.new_tensor(ranges).reshape(-1, 2).T
    return low + (high - low) * z.sigmoid()
