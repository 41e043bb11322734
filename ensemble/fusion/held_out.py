"""The speakers who choose a meta-classifier's rounds and its temperature, and take no part in its training."""

from dataclasses import replace

import numpy as np

from deepser.scores.calibration import fit_temperature
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.problem import Problem
from ensemble.fusion.state import LINEAR, MetaState
from featurestore.corpus.held_out import HeldOut, choose_held_out


def held_out_of(problem: Problem, config: MetaConfig) -> HeldOut | None:
    """Return the held-out part of a problem's utterances, None where `config` keeps the last round of all.

    The choice is that of `choose_held_out`; besides, something must be known of the part.
    """
    if config.select != "macro_f1":
        return None
    labels = problem.targets.labels
    held_out = choose_held_out([str(group) for group in problem.groups], config.held_out, labels=labels)
    if held_out.why_not:
        return held_out
    usable = (
        labels[held_out.mask] >= 0
        if problem.has_labels
        else ~np.isnan(problem.targets.attribute_values[held_out.mask]).all(1)
    )
    if usable.any():
        return held_out
    why = "nothing is known of the utterances of the speakers that could be held out"
    return HeldOut(np.zeros(len(labels), bool), (), config.held_out, {}, why)


def without_selection(config: MetaConfig) -> MetaConfig:
    """Return the settings for when no speaker can be held out: all rounds, and a soup of all seeds."""
    return replace(config, select="last", soup="uniform")


def temperature_of(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that calibrates (n, C) probabilities on held-out utterances with (n,) labels.

    The labels are softened as Platt (1999) does, by 1 / (n + 2), so that a small part that is all right leaves the
    confidence below 1. 1 where no utterance has a label.
    """
    n = int((labels >= 0).sum())
    return fit_temperature(probabilities, labels, smoothing=1 / (n + 2)) if n else 1.0


def cooled(state: MetaState, temperature: float) -> MetaState:
    """Return a linear meta-classifier or an MLP whose class logits are divided by a temperature."""
    n_classes = len(state.classes)
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    for name in ("weight", "bias") if state.kind == LINEAR else ("weight", "output"):
        # (S, F, C + A) and (S, C + A) of the linear map, (S, C + A, ...) of the MLP.
        (tensors[name][..., :n_classes] if state.kind == LINEAR else tensors[name][:, :n_classes]).div_(temperature)
    return replace(state, tensors=tensors)
