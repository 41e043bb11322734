"""Stacking in closed form: ridge regression on members' logits (Wolpert 1992; Breiman 1996), shrunk to their mean."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepser.probes.ridge import class_weights
from deepser.scores.calibration import fit_temperature
from deepser.scores.probabilities import softmax
from ensemble.fusion.config import RidgeConfig
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import scoring_of
from ensemble.fusion.state import RIDGE, MetaState, Prediction

Array = NDArray[np.float64]

# Of whole speakers, over which penalty and structure are chosen and the temperature is fitted; see `Problem.parts`.
N_FOLDS = 5
LOWEST = 1e-6  # of a probability whose logarithm is read


@dataclass(frozen=True)
class Stack:
    """Weights on the inputs of `inputs_of`: of classes (M * C, C) and (C,), of attributes (M, A) and (A,)."""

    weight: Array
    bias: Array
    attribute_weight: Array
    attribute_bias: Array


def predict_ridge(meta: MetaState, values: np.ndarray) -> Prediction:
    """Predict from (M, N, C + A) columns.

    tensors, float64: weight (M * C, C), bias (C,), attribute_weight (M, A), attribute_bias (A,).
    """
    stack = Stack(*(meta.tensors[name].numpy() for name in TENSORS))
    scores, attributes = _outputs(stack, values, len(meta.classes), meta.layer)
    ranges = np.array(meta.ranges, np.float64).reshape(-1, 2)
    attributes = np.clip(attributes, ranges[:, 0], ranges[:, 1]).astype(np.float32)
    return Prediction(scores.astype(np.float32), softmax(scores).astype(np.float32), attributes)


TENSORS = ("weight", "bias", "attribute_weight", "attribute_bias")


def fit_ridge(problem: Problem, config: RidgeConfig) -> MetaState:
    """Ridge regression of the targets on the members' centred logits, all from the rows of the problem.

    What the soft vote of the logits leaves over is regressed, so that a large penalty is that vote. Penalty and
    structure ("own": a class is read off the members' logits of that class alone, with a weight for each; "all": off
    all classes) are the ones whose held-out score over speaker-disjoint parts of these rows is best, and the
    temperature that makes probabilities of the scores is fitted on the same held-out scores. All classes count alike.
    """
    values = problem.inputs(config.layer).values
    targets, n_classes = problem.targets, problem.n_classes
    best: tuple[float, float, str] = (-np.inf, max(config.penalties), "own")
    scores = np.zeros((len(targets.keys), n_classes))
    folds = problem.parts(N_FOLDS)
    score = scoring_of(problem)
    for structure in config.structures:
        for penalty in sorted(config.penalties, reverse=True):
            held_out = np.zeros((len(targets.keys), n_classes + len(targets.attributes)))
            for fold in np.unique(folds):
                train, judged = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
                stack = _fit(values[:, train], problem.rows(train), config, penalty, structure)
                held_out[judged] = np.concatenate(_outputs(stack, values[:, judged], n_classes, config.layer), 1)
            held_out_score = score(held_out)
            if held_out_score > best[0]:
                best, scores = (held_out_score, penalty, structure), held_out[:, :n_classes]
    stack = _fit(values, problem, config, best[1], best[2])
    temperature = _temperature(scores, targets.labels)
    named = dict(zip(targets.attributes, targets.attribute_ranges, strict=True))
    tensors = (stack.weight / temperature, stack.bias / temperature, stack.attribute_weight, stack.attribute_bias)
    history = ({"penalty": best[1], "structure": best[2], "held_out": best[0], "temperature": temperature},)
    return MetaState(
        RIDGE, config, problem.members, targets.classes, named,
        {name: torch.from_numpy(value) for name, value in zip(TENSORS, tensors, strict=True)}, history,
    )  # fmt: skip


def inputs_of(values: np.ndarray, n_classes: int, layer: str) -> Array:
    """Map members' (M, N, C + A) columns -> centred logits (N, M, C) float64; of posteriors the logarithms."""
    logits = values[..., :n_classes].astype(np.float64).transpose(1, 0, 2)
    if layer == "posteriors":
        logits = np.log(np.maximum(logits, LOWEST))
    centred: Array = logits - logits.mean(2, keepdims=True) if n_classes else logits
    return centred


def _outputs(stack: Stack, values: np.ndarray, n_classes: int, layer: str) -> tuple[Array, Array]:
    """Return scores (N, C) and attributes (N, A)."""
    x = inputs_of(values, n_classes, layer)
    attributes = values[..., n_classes:].astype(np.float64)
    read = np.einsum("mna,ma->na", attributes, stack.attribute_weight) + stack.attribute_bias
    return x.reshape(len(x), -1) @ stack.weight + stack.bias, read


def _fit(values: np.ndarray, problem: Problem, config: RidgeConfig, penalty: float, structure: str) -> Stack:
    n_classes, n_members = problem.n_classes, len(values)
    x = inputs_of(values, n_classes, config.layer)
    weight, bias = np.zeros((n_members * n_classes, n_classes)), np.zeros(n_classes)
    soft = problem.targets.soft.astype(np.float64)
    labelled = soft.sum(1) > 0
    if n_classes and labelled.any():
        x, y = x[labelled], soft[labelled]
        rows = class_weights(y)
        weight, bias = _towards_the_vote(x, y, rows / rows.mean(), penalty, structure)
    predicted = problem.attributes.astype(np.float64)
    attribute_weight = np.full((n_members, predicted.shape[2]), 1 / n_members)
    attribute_bias = np.zeros(predicted.shape[2])
    for a, column in enumerate(problem.targets.attribute_values.T):
        has_value = ~np.isnan(column)
        if has_value.any():
            inputs = predicted[:, has_value, a].T
            residual = column[has_value] - inputs.mean(1)
            delta, offset = _ridge(inputs, residual, np.ones(len(inputs)), penalty)
            attribute_weight[:, a] += delta
            attribute_bias[a] = offset
    return Stack(weight, bias, attribute_weight, attribute_bias)


def _towards_the_vote(x: Array, y: Array, rows: Array, penalty: float, structure: str) -> tuple[Array, Array]:
    """Return weights (M * C, C) and biases (C,): the scaled mean of logits, and what a ridge regression adds to it."""
    n_members, n_classes = x.shape[1:]
    vote = x.mean(1)
    centred = y - y.mean(1, keepdims=True)
    slope = float((rows[:, None] * vote * centred).sum() / max((rows[:, None] * vote**2).sum(), 1e-12))
    weight = np.zeros((n_members, n_classes, n_classes))
    weight[:, np.arange(n_classes), np.arange(n_classes)] = slope / n_members
    bias = np.zeros(n_classes)
    remainder = y - slope * vote
    for c, read in _reads(x, structure):
        delta, bias[c] = _ridge(read.reshape(len(x), -1), remainder[:, c], rows, penalty)
        if structure == "own":
            weight[:, c, c] += delta
        else:
            weight[:, :, c] += delta.reshape(n_members, n_classes)
    return weight.reshape(-1, n_classes), bias


def _reads(x: Array, structure: str) -> Iterator[tuple[int, Array]]:
    """Each class, and the logits that it is read off."""
    for c in range(x.shape[2]):
        yield c, x[:, :, c] if structure == "own" else x


def _ridge(x: Array, y: Array, rows: Array, penalty: float) -> tuple[Array, float]:
    """Return weights (F,) and intercept of a weighted ridge regression; penalty in units of the inputs' mean square."""
    total = rows.sum()
    x_mean, y_mean = rows @ x / total, float(rows @ y / total)
    weighted = (x - x_mean) * rows[:, None]
    gram = weighted.T @ (x - x_mean) / total
    scale = max(float(np.trace(gram)) / len(gram), 1e-12)
    solution: Array = np.linalg.solve(gram + penalty * scale * np.eye(len(gram)), weighted.T @ (y - y_mean) / total)
    return solution, y_mean - float(x_mean @ solution)


def _temperature(scores: Array, labels: NDArray[np.int64]) -> float:
    """Of the held-out scores (n, C), labels softened as `held_out.temperature_of` does."""
    n = int((labels >= 0).sum())
    if not n or not scores.any():
        return 1.0
    # A score is about a probability, and its softmax nearly uniform: first to the scale of logits.
    scale = max(float(scores.std()), 1e-9)
    return scale * fit_temperature(softmax(scores / scale), labels, smoothing=1 / (n + 2))
