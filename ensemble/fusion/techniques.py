"""The ways of fusing members, as rows of a table: votes, meta-classifiers, and the best members per attribute."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from ensemble.fusion.config import (
    INPUTS,
    RULES,
    AnyConfig,
    AutoConfig,
    ForestConfig,
    MetaConfig,
    RidgeConfig,
    VoteConfig,
    config_of,
    layer_of,
)  # fmt: skip
from ensemble.fusion.forest import fit_forest
from ensemble.fusion.held_out import cooled, held_out_of, temperature_of, without_selection
from ensemble.fusion.kinds import predict_meta
from ensemble.fusion.linear import LinearSeeds, predict_linear
from ensemble.fusion.mlp import mean_prediction, predict_seeds
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import Selection, scoring_of
from ensemble.fusion.stacking import fit_ridge
from ensemble.fusion.state import MetaState, Prediction
from ensemble.fusion.training import fit_meta, fit_mlp
from ensemble.fusion.vote_meta import fit_vote
from featurestore.errors import ConfigError

CHOICE = "chosen inside"  # the row of a nested choice


@dataclass(frozen=True)
class Fused:
    """A technique's prediction of some utterances, and, where it has seeds, that of each of them alone."""

    whole: Prediction
    seeds: tuple[Prediction, ...] = ()


class Fitted(Protocol):
    """A technique that has learned what it learns; `meta`: what of it is saved."""

    @property
    def meta(self) -> MetaState: ...

    def predict(self, problem: Problem) -> Fused: ...


@dataclass(frozen=True)
class Technique:
    """One way of fusing. name: its row; single: the row of its seeds' mean score, if it has seeds.

    fit: (the fitting rows of the chosen members, how they were chosen) -> what predicts. logits: it reads them.
    classes: it has a word on classes, not on attributes alone. chooses: it chooses settings by the scores of utterances
    of the fitting rows that it holds out.
    """

    name: str
    fit: Callable[[Problem, Selection], Fitted]
    single: str = ""
    logits: bool = False
    classes: bool = True
    chooses: bool = False


@dataclass(frozen=True)
class FittedLinear:
    """Linear maps of the seeds, and their soup."""

    seeds: LinearSeeds

    @property
    def meta(self) -> MetaState:
        return self.seeds.soup()

    def predict(self, problem: Problem) -> Fused:
        state = self.seeds.state
        inputs = problem.inputs(state.layer)
        of_seeds = tuple(predict_linear(state, inputs.values, s) for s in range(len(state.tensors["weight"])))
        return Fused(predict_meta(self.meta, inputs), of_seeds)

    def cooled(self, temperature: float) -> "FittedLinear":
        """Return the same with the logits of classes divided by a temperature."""
        return replace(self, seeds=replace(self.seeds, state=cooled(self.seeds.state, temperature)))


@dataclass(frozen=True)
class FittedMlp:
    """Networks of the seeds; together they say the mean."""

    meta: MetaState

    def predict(self, problem: Problem) -> Fused:
        of_seeds = predict_seeds(self.meta, problem.inputs(self.meta.layer).values)
        return Fused(mean_prediction(of_seeds), of_seeds)

    def cooled(self, temperature: float) -> "FittedMlp":
        """Return the same with the logits of classes divided by a temperature."""
        return replace(self, meta=cooled(self.meta, temperature))


@dataclass(frozen=True)
class FittedOther:
    """A forest or a vote, which has no seeds."""

    meta: MetaState

    def predict(self, problem: Problem) -> Fused:
        return Fused(predict_meta(self.meta, problem.inputs(self.meta.layer)))


def _fit_seeds(problem: Problem, selection: Selection, config: MetaConfig) -> Fitted:
    held_out = held_out_of(problem, config)
    if held_out is None or held_out.why_not:
        config, mask = without_selection(config), None
    else:
        mask = held_out.mask
    inputs = problem.inputs(layer_of(config.inputs))
    fitted: FittedMlp | FittedLinear
    if config.hidden:
        fitted = FittedMlp(fit_mlp(inputs, problem.targets, config, mask))
    else:
        fitted = FittedLinear(fit_meta(inputs, problem.targets, config, mask))
    if mask is None or not problem.has_labels:
        return fitted
    # Fits of other folds stop at other rounds; each is calibrated by those held out, so that all are on one scale.
    judged = fitted.predict(problem.rows(mask)).whole
    return fitted.cooled(temperature_of(judged.probabilities, problem.targets.labels[mask]))


def _fit_forest(problem: Problem, selection: Selection, config: ForestConfig) -> Fitted:
    return FittedOther(fit_forest(problem.inputs(layer_of(config.inputs)), problem.targets, config))


def _fit_vote(problem: Problem, selection: Selection, config: VoteConfig) -> Fitted:
    return FittedOther(fit_vote(problem, config, selection))


def _fit_ridge(problem: Problem, selection: Selection, config: RidgeConfig) -> Fitted:
    return FittedOther(fit_ridge(problem, config))


@dataclass(frozen=True)
class FittedChoice:
    """What was chosen among several ways of fusing, and the held-out score of each by name."""

    chosen: Fitted
    name: str
    scores: dict[str, float]

    @property
    def meta(self) -> MetaState:
        return self.chosen.meta

    def predict(self, problem: Problem) -> Fused:
        return Fused(self.chosen.predict(problem).whole)


def _fit_choice(problem: Problem, selection: Selection, config: AutoConfig) -> Fitted:
    """Fit the candidate with the best score over speaker-disjoint parts of the problem's rows on all of these rows."""
    ways = candidates_of(config)
    folds = problem.parts(config.n_folds)
    names = np.unique(folds)
    if len(names) < 2:
        return FittedChoice(ways[0].fit(problem, selection), ways[0].name, {})
    score, scores = scoring_of(problem), {}
    for way in ways:
        held_out = np.zeros(problem.posteriors.values.shape[1:], np.float32)
        for fold in names:
            fit = way.fit(problem.rows(folds != fold), selection)
            predicted = fit.predict(problem.rows(folds == fold)).whole
            held_out[folds == fold] = np.concatenate([predicted.probabilities, predicted.attributes], 1)
        scores[way.name] = score(held_out)
    best = max(ways, key=lambda way: scores[way.name])
    return FittedChoice(best.fit(problem, selection), best.name, scores)


def candidates_of(config: AutoConfig) -> list["Technique"]:
    """Return the ways of fusing that are chosen from, in their order."""
    return [technique(config_of(name, config.linear)) for name in config.candidates]


def technique(config: AnyConfig) -> Technique:
    """Return the row of a way of fusing; inputs other than its kind's usual ones are part of its name."""
    if isinstance(config, VoteConfig):
        of_attributes = config.rule == "attributes"
        name = f"best {config.n_best} per attribute" if of_attributes else f"{config.rule} vote"
        name = "best member" if config.rule == "best" else name
        return Technique(name, partial(_fit_vote, config=config), classes=not of_attributes)
    if isinstance(config, AutoConfig):
        reads_logits = any(each.logits for each in candidates_of(config))
        return Technique(CHOICE, partial(_fit_choice, config=config), logits=reads_logits, chooses=True)
    on = "" if config.inputs == type(config)().inputs else f" on {config.inputs}"
    reads_logits = layer_of(config.inputs) == "logits"
    if isinstance(config, RidgeConfig):
        return Technique(f"ridge{on}", partial(_fit_ridge, config=config), logits=reads_logits, chooses=True)
    if isinstance(config, ForestConfig):
        return Technique(f"forest{on}", partial(_fit_forest, config=config), logits=reads_logits)
    fit = partial(_fit_seeds, config=config)
    if config.hidden:
        return Technique(f"MLP{on} (mean)", fit, f"MLP{on} (single)", reads_logits)
    soup = "soup" if config.soup == "uniform" else "greedy soup"
    return Technique(f"meta{on} ({soup})", fit, f"meta{on} (single)", reads_logits)


def techniques_of(
    rows: str,
    config: MetaConfig | None = None,
    forest: ForestConfig | None = None,
    *,
    attributes: bool = True,
    classes: bool = True,
) -> tuple[Technique, ...]:
    """Return techniques by name, comma-separated; inputs may follow a colon: "soft,linear,mlp:logits".

    "all" is every vote, the linear meta-classifier on each kind of input, the MLP and the forest; attributes=False:
    without what differs only where there are attributes; classes=False: without what differs only where there are
    classes, or needs them. config and forest: how meta-classifiers are trained.
    ConfigError for a name that is none.
    """
    config, forest = config or MetaConfig(), forest or ForestConfig()
    names = [name.strip() for name in rows.split(",") if name.strip()]
    if names == ["all"]:
        others = [inputs for inputs in INPUTS if inputs != config.inputs]
        if not attributes:
            others = [layer for layer in ("posteriors", "logits") if layer != layer_of(config.inputs)]
        votes = [rule for rule in RULES if rule != "best" and (attributes or rule != "attributes")]
        names = [*votes, "linear", *(f"linear:{inputs}" for inputs in others), "mlp", "forest", "ridge"]
        if not classes:
            names = [name for name in names if name not in ("majority", "forest") and ":" not in name]
    techniques = []
    for name in names:
        kind, _, inputs = name.partition(":")
        linear = replace(config, soup="uniform") if kind == "mlp" else config
        technique_config = config_of(kind, linear, forest)
        if inputs:
            if isinstance(technique_config, VoteConfig | AutoConfig):
                raise ConfigError(f"{name!r}: votes read posteriors; only meta-classifiers take inputs.")
            technique_config = replace(technique_config, inputs=inputs)
        techniques.append(technique(technique_config))
    if not techniques or len({each.name for each in techniques}) != len(techniques):
        raise ConfigError(f"Name one or more ways of fusing, each once; found {rows!r}.")
    return tuple(techniques)
