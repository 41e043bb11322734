"""A small MLP as meta-classifier: the linear map plus one hidden layer; its seeds are averaged in their predictions."""

import numpy as np

from deepser.scores.probabilities import log_probabilities
from ensemble.fusion.linear import prepare, to_scale
from ensemble.fusion.state import MetaState, Prediction
from ensemble.fusion.votes import soft_vote


def predict_mlp(meta: MetaState, values: np.ndarray) -> Prediction:
    """Return the mean of the seeds' probabilities and attributes, see `predict_seeds`."""
    return mean_prediction(predict_seeds(meta, values))


def predict_seeds(meta: MetaState, values: np.ndarray) -> tuple[Prediction, ...]:
    """Map (M, N, C + A) -> the prediction of each of S seeds.

    tensors: weight (S, C + A, F), hidden (S, H, F), output (S, C + A, H), where F counts the members' columns and a
    constant 1; the outputs are weight @ x + output @ relu(hidden @ x). Hidden units of two seeds have nothing in
    common, so weights can't be averaged.
    """
    n_classes = len(meta.classes)
    x = prepare(values, n_classes, meta.ranges, constant=True).T
    predictions = []
    for weight, hidden, output in zip(*(meta.tensors[k] for k in ("weight", "hidden", "output")), strict=True):
        outputs = (weight @ x + output @ (hidden @ x).relu()).T
        logits, z = outputs[:, :n_classes], outputs[:, n_classes:]
        predictions.append(Prediction(logits.numpy(), logits.softmax(1).numpy(), to_scale(z, meta.ranges).numpy()))
    return tuple(predictions)


def mean_prediction(predictions: tuple[Prediction, ...]) -> Prediction:
    """Return the mean of probabilities and attributes; the logits are the logarithms of the mean probabilities."""
    probabilities = soft_vote(np.stack([p.probabilities for p in predictions]))
    attributes = soft_vote(np.stack([p.attributes for p in predictions]))
    return Prediction(log_probabilities(probabilities), probabilities, attributes)
