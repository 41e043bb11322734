"""Every kind of meta-classifier that can be fitted, saved and used: linear, MLP, forest, ridge regression, votes."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from deepser.config import from_dict
from deepser.training.checkpoint import check_digest, save_atomically, tensors_digest
from ensemble.evaluation.align import Aligned, column_names, differences
from ensemble.fusion.config import Config, ForestConfig, MetaConfig, RidgeConfig, VoteConfig
from ensemble.fusion.forest import ARRAYS, predict_forest
from ensemble.fusion.linear import predict_linear
from ensemble.fusion.mlp import predict_mlp
from ensemble.fusion.stacking import TENSORS, predict_ridge
from ensemble.fusion.state import FOREST, LINEAR, MLP, RIDGE, VOTE, MetaState, Prediction
from ensemble.fusion.vote_meta import predict_vote
from featurestore.errors import AlignmentError, ConfigError
from featurestore.runtime.durable import replace_text, writing
from featurestore.runtime.json_text import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Kind:
    """A kind of meta-classifier.

    config: how it is trained. tensors: the names of what it learns. predict_values: (state, (M, N, C + A) columns in
    the order of its members, classes and attributes) -> predictions of the N utterances.
    """

    config: type[Config]
    tensors: tuple[str, ...]
    predict_values: Callable[[MetaState, np.ndarray], Prediction]


KINDS = {
    LINEAR: Kind(MetaConfig, ("weight", "bias"), predict_linear),
    MLP: Kind(MetaConfig, ("weight", "hidden", "output"), predict_mlp),
    FOREST: Kind(ForestConfig, ARRAYS, predict_forest),
    VOTE: Kind(VoteConfig, ("weights",), predict_vote),
    RIDGE: Kind(RidgeConfig, TENSORS, predict_ridge),
}


def predict_meta(meta: MetaState, aligned: Aligned) -> Prediction:
    """Predict from members' posteriors (or logits, see `meta.layer`), by the meta-classifier's kind.

    Raises AlignmentError unless members and columns are those that it was fitted on, in that order.
    """
    check_inputs(meta, aligned)
    return KINDS[meta.kind].predict_values(meta, aligned.values)


def check_inputs(meta: MetaState, aligned: Aligned) -> None:
    """Raise AlignmentError unless these are the members and columns that it was fitted on, in their order."""
    columns = column_names(meta.classes, tuple(meta.attributes))
    if aligned.members != meta.members or aligned.columns != columns:
        missing, surplus = differences((*aligned.members, *aligned.columns), (*meta.members, *columns))
        raise AlignmentError(
            f"The meta-classifier reads members {', '.join(meta.members)} with columns {', '.join(columns)}; found "
            f"members {', '.join(aligned.members)} with columns {', '.join(aligned.columns)}. Give it what it was "
            "fitted on, in that order.",
            {"meta-classifier": missing},
            {"meta-classifier": surplus},
        )


def save_meta(directory: Path, meta: MetaState) -> None:
    """Write model.safetensors and config.json into `directory`, made if need be, each whole or not at all.

    config.json records which weights it belongs to, so that those of two fits can't be taken together.
    """
    save_atomically(meta.tensors, directory / WEIGHTS)
    described = {name: getattr(meta, name) for name in ("kind", "members", "classes", "attributes", "history")}
    described |= {"config": dataclasses.asdict(meta.config), "weights": tensors_digest(meta.tensors)}
    text = json.dumps(described, indent=2, ensure_ascii=False)
    with writing(directory / CONFIG, ConfigError):
        replace_text(directory / CONFIG, text + "\n")


def load_meta(directory: Path) -> MetaState:
    """Read what `save_meta` wrote, whatever its kind; ConfigError names the directory if there is none."""
    with _wrong_content(directory):
        described = read_json((directory / CONFIG).read_text(encoding="utf-8"))
        name = str(described["kind"])
    if name not in KINDS:
        raise ConfigError(
            f"{directory} holds {name!r}, which is no kind of meta-classifier ({', '.join(KINDS)}); give the directory "
            "that fit-meta wrote."
        )
    kind = KINDS[name]
    with _wrong_content(directory):
        tensors = load_file(directory / WEIGHTS)
        check_digest(tensors, described.get("weights"), directory / WEIGHTS, "medusa fit-meta")
        return MetaState(
            kind=name,
            config=from_dict(kind.config, described["config"], f"{directory / CONFIG}: config"),
            members=tuple(described["members"]),
            classes=tuple(described["classes"]),
            attributes={attribute: (low, high) for attribute, (low, high) in described["attributes"].items()},
            tensors={tensor: tensors[tensor] for tensor in kind.tensors},
            history=tuple(described["history"]),
        )


@contextmanager
def _wrong_content(directory: Path) -> Iterator[None]:
    """Turn a failure to read what is in `directory` into a ConfigError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConfigError(
            f"{directory} holds no meta-classifier ({type(error).__name__}: {error}); "
            "give the directory that fit-meta wrote."
        ) from error
