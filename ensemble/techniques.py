"""The ways of fusing members, as rows of a table: votes, meta-classifiers, and the best members per attribute."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from ensemble.config import INPUTS, METAS, N_HIDDEN, ForestConfig, MetaConfig, layer_of
from ensemble.forest import ForestMeta, fit_forest
from ensemble.meta import MetaClassifier, Prediction
from ensemble.meta_training import fit_meta, fit_mlp
from ensemble.metas import Meta
from ensemble.mlp import MlpMeta, mean_prediction
from ensemble.problem import Problem
from ensemble.selection import Selection, attribute_scores, best_per_attribute, mean_per_attribute, member_scores
from ensemble.votes import MAJORITY_VOTE, SOFT_VOTE, WEIGHTED_VOTE, soft_vote, vote_shares, weighted_vote
from featurestore.errors import ConfigError
from featurestore.splits import group_folds

META_SINGLE, META_SOUP = "meta (single)", "meta (soup)"
N_BEST = 3  # members per attribute, as SRPOL's


@dataclass(frozen=True)
class Fused:
    """A technique's prediction of some utterances, and, where it has seeds, what each of them says alone."""

    whole: Prediction
    seeds: tuple[Prediction, ...] = ()


class Fitted(Protocol):
    """A technique that has learned what it learns; `meta`: what of it can be saved."""

    @property
    def meta(self) -> Meta | None: ...

    def predict(self, problem: Problem) -> Fused: ...


@dataclass(frozen=True)
class Technique:
    """One way of fusing. name: its row; single: the row of its seeds' mean score, if it has seeds.

    fit: (the fitting rows of the chosen members, how they were chosen) -> what predicts. logits: it reads them.
    classes: it has a word on classes, not on attributes alone.
    """

    name: str
    fit: Callable[[Problem, Selection], Fitted]
    single: str = ""
    logits: bool = False
    classes: bool = True


@dataclass(frozen=True)
class Vote:
    """Fusion of probabilities and attributes by a function each."""

    classes: Callable[[np.ndarray], np.ndarray]
    attributes: Callable[[np.ndarray], np.ndarray]
    meta: None = None

    def predict(self, problem: Problem) -> Fused:
        probabilities = self.classes(problem.probabilities)
        with np.errstate(divide="ignore"):
            return Fused(Prediction(np.log(probabilities), probabilities, self.attributes(problem.attributes)))


def majority(problem: Problem, selection: Selection) -> Vote:
    """The class most members put first; attributes are their mean (the challenge's top-k fusion)."""
    return Vote(vote_shares, soft_vote)


def soft(problem: Problem, selection: Selection) -> Vote:
    """The mean of probabilities, and of attributes."""
    return Vote(soft_vote, soft_vote)


def weighted(problem: Problem, selection: Selection) -> Vote:
    """The weighted mean. A member weighs as often as it was chosen, where the selection counts.

    Else its class weight is its macro-F1 above chance (1 / C) on the fitting rows, an attribute's weight its
    concordance there; nothing weighs less than zero.
    """
    if selection.counts is not None:
        counts = np.array(selection.counts, np.float64)
        return Vote(partial(weighted_vote, weights=counts), partial(weighted_vote, weights=counts))
    by_class = np.zeros(len(problem.members))
    if problem.has_labels:
        by_class = (member_scores(problem) - 1 / problem.n_classes).clip(min=0)
    by_attribute = attribute_scores(problem).clip(min=0)
    return Vote(partial(weighted_vote, weights=by_class), partial(weighted_vote, weights=by_attribute))


def per_attribute(problem: Problem, selection: Selection, k: int = N_BEST) -> Vote:
    """Each attribute the mean of the k members best at it on the fitting rows (SRPOL); classes by soft vote."""
    return Vote(soft_vote, partial(mean_per_attribute, chosen=best_per_attribute(problem, k)))


@dataclass(frozen=True)
class FittedLinear:
    """Linear maps of the seeds, and their soup."""

    seeds: MetaClassifier

    @property
    def meta(self) -> MetaClassifier:
        return self.seeds.soup()

    def predict(self, problem: Problem) -> Fused:
        inputs = problem.inputs(self.seeds.layer)
        own = tuple(self.seeds.predict(inputs, s) for s in range(len(self.seeds.weight)))
        return Fused(self.meta.predict(inputs), own)


@dataclass(frozen=True)
class FittedMlp:
    """Networks of the seeds; together they say the mean."""

    meta: MlpMeta

    def predict(self, problem: Problem) -> Fused:
        own = self.meta.predict_seeds(problem.inputs(self.meta.layer).values)
        return Fused(mean_prediction(own), own)


@dataclass(frozen=True)
class FittedForest:
    meta: ForestMeta

    def predict(self, problem: Problem) -> Fused:
        return Fused(self.meta.predict(problem.inputs(self.meta.layer)))


def _fit_seeds(problem: Problem, selection: Selection, config: MetaConfig) -> Fitted:
    held_out = None
    if config.select == "macro_f1":
        held_out = group_folds(problem.groups.tolist(), max(2, round(1 / config.held_out))) == 0
    inputs = problem.inputs(layer_of(config.inputs))
    if config.hidden:
        return FittedMlp(fit_mlp(inputs, problem.targets, config, held_out))
    return FittedLinear(fit_meta(inputs, problem.targets, config, held_out))


def _fit_forest(problem: Problem, selection: Selection, config: ForestConfig) -> Fitted:
    return FittedForest(fit_forest(problem.inputs(layer_of(config.inputs)), problem.targets, config))


def meta_technique(config: MetaConfig | ForestConfig) -> Technique:
    """The row of a meta-classifier; inputs other than its kind's usual ones are part of its name."""
    usual = type(config)().inputs
    on = "" if config.inputs == usual else f" on {config.inputs}"
    reads_logits = layer_of(config.inputs) == "logits"
    if isinstance(config, ForestConfig):
        return Technique(f"forest{on}", partial(_fit_forest, config=config), logits=reads_logits)
    fit = partial(_fit_seeds, config=config)
    if config.hidden:
        return Technique(f"MLP{on} (mean)", fit, f"MLP{on} (single)", reads_logits)
    name = META_SOUP if config.soup == "uniform" else "meta (greedy soup)"
    return Technique(name.replace("meta", f"meta{on}"), fit, META_SINGLE.replace("meta", f"meta{on}"), reads_logits)


VOTES = {
    "majority": Technique(MAJORITY_VOTE, majority),
    "soft": Technique(SOFT_VOTE, soft),
    "weighted": Technique(WEIGHTED_VOTE, weighted),
    "attributes": Technique(f"best {N_BEST} per attribute", per_attribute, classes=False),
}


def techniques_of(
    rows: str, config: MetaConfig | None = None, forest: ForestConfig | None = None, attributes: bool = True
) -> tuple[Technique, ...]:
    """Techniques by name, comma-separated; a meta-classifier's inputs may follow a colon: "soft,linear,mlp:logits".

    "all" is every vote, the linear meta-classifier on each kind of input, the MLP and the forest; attributes=False:
    without what differs only where there are attributes. config and forest: how meta-classifiers are trained.
    ConfigError for a name that is none.
    """
    config, forest = config or MetaConfig(), forest or ForestConfig()
    names = [name.strip() for name in rows.split(",") if name.strip()]
    if names == ["all"]:
        others = [inputs for inputs in INPUTS if inputs != config.inputs]
        if not attributes:
            others = [layer for layer in ("posteriors", "logits") if layer != layer_of(config.inputs)]
        votes = [name for name in VOTES if attributes or name != "attributes"]
        names = [*votes, "linear", *(f"linear:{inputs}" for inputs in others), "mlp", "forest"]
    found = []
    for name in names:
        kind, _, inputs = name.partition(":")
        if name in VOTES:
            found.append(VOTES[name])
        elif kind == "forest":
            found.append(meta_technique(replace(forest, inputs=inputs or forest.inputs)))
        elif kind in METAS:
            hidden = (config.hidden or N_HIDDEN) if kind == "mlp" else 0
            soup = "uniform" if kind == "mlp" else config.soup
            found.append(meta_technique(replace(config, hidden=hidden, soup=soup, inputs=inputs or config.inputs)))
        else:
            raise ConfigError(f"{name!r} is no way of fusing; there are {', '.join((*VOTES, *METAS))}, or all.")
    if not found or len({each.name for each in found}) != len(found):
        raise ConfigError(f"Name one or more ways of fusing, each once; found {rows!r}.")
    return tuple(found)
