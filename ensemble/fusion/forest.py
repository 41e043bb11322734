"""Random forests over members' logits, one per stratified fold (UNICAMP's meta-model in the 2025 challenge)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from deepser.scores.probabilities import log_probabilities
from deepser.training.targets import Targets
from ensemble.evaluation.align import Aligned
from ensemble.fusion.config import ForestConfig, joins_attributes
from ensemble.fusion.state import FOREST, MetaState, Prediction
from ensemble.fusion.votes import soft_vote
from featurestore.errors import ManifestError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

ARRAYS = ("roots", "feature", "threshold", "left", "right", "share")
_STREAM = 6  # separates the folds' draw from others of the same seed


def predict_forest(meta: MetaState, values: np.ndarray) -> Prediction:
    """Return the trees' mean over (M, N, C + A) columns; attributes are the members' mean.

    tensors hold all trees of all forests in flat arrays, so that they are saved as plain numbers and run nobody's code:
    roots (T,) int64; feature, left, right (K,) int32, -1 for a leaf; threshold (K,) float64, a row goes left when its
    value is at most that; share (K, C) float32, the classes among a node's training rows, weighted.
    """
    n_classes = len(meta.classes)
    assert isinstance(meta.config, ForestConfig)
    x = forest_inputs(values, n_classes, meta.config)
    sums = np.zeros((len(x), n_classes))
    roots, feature, threshold, left, right, share = (meta.tensors[name].numpy() for name in ARRAYS)
    _add_leaves(x, roots, feature, threshold, left, right, share, sums)
    probabilities = (sums / len(roots)).astype(np.float32)
    return Prediction(log_probabilities(probabilities), probabilities, soft_vote(values[..., n_classes:]))


def fit_forest(aligned: Aligned, targets: Targets, config: ForestConfig | None = None) -> MetaState:
    """One forest per fold, each fitted on the labelled utterances of the other folds.

    Folds have like shares of every class. ManifestError when fewer than two utterances have a label.
    """
    config = config or ForestConfig()
    forests = fit_forests(aligned, targets, config)
    attributes = dict(zip(targets.attributes, targets.attribute_ranges, strict=True))
    tensors = _flat(forests, len(targets.classes))
    return MetaState(FOREST, config, aligned.members, targets.classes, attributes, tensors)


def fit_forests(aligned: Aligned, targets: Targets, config: ForestConfig) -> list[RandomForestClassifier]:
    """scikit-learn's forests, one per fold."""
    from sklearn.ensemble import RandomForestClassifier  # takes a second to load: few meta-classifiers are forests

    labelled = np.flatnonzero(targets.labels >= 0)
    if len(labelled) < config.n_folds:
        raise ManifestError(
            f"{len(labelled)} labelled utterances can't make {config.n_folds} folds; a forest needs labels."
        )
    x, y = forest_inputs(aligned.values[:, labelled], len(targets.classes), config), targets.labels[labelled]
    # Dealt out class by class, so that every fold has its share of each.
    order = np.random.default_rng((_STREAM, config.seed)).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), np.int64)
    fold[order] = np.arange(len(y)) % config.n_folds
    forests = []
    for k in range(config.n_folds):
        forest = RandomForestClassifier(
            config.n_trees, min_samples_leaf=config.min_leaf_share, class_weight="balanced", n_jobs=-1,
            random_state=config.seed + k,
        )  # fmt: skip
        # Its threads set the process's filters of warnings one after another, and may leave them without any.
        with warnings.catch_warnings():
            forests.append(forest.fit(x[fold != k], y[fold != k]))
    return forests


def forest_inputs(values: np.ndarray, n_classes: int, config: ForestConfig) -> np.ndarray:
    """Members' (M, N, C + A) columns -> (N, M * C) float32, or (N, M * (C + A)) with attributes."""
    chosen = values if joins_attributes(config.inputs) else values[..., :n_classes]
    return np.ascontiguousarray(chosen.transpose(1, 0, 2).reshape(values.shape[1], -1), np.float32)


def _flat(forests: list[RandomForestClassifier], n_classes: int) -> dict[str, Tensor]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    n_nodes = 0
    for forest in forests:
        for tree in (each.tree_ for each in forest.estimators_):
            share = np.zeros((tree.node_count, n_classes), np.float32)
            share[:, forest.classes_] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
            leaf = tree.children_left < 0
            parts["roots"].append(np.array([n_nodes], np.int64))
            parts["feature"].append(np.where(leaf, -1, tree.feature).astype(np.int32))
            parts["threshold"].append(tree.threshold.astype(np.float64))
            for name, children in (("left", tree.children_left), ("right", tree.children_right)):
                parts[name].append(np.where(leaf, -1, children + n_nodes).astype(np.int32))
            parts["share"].append(share)
            n_nodes += tree.node_count
    return {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()}


@numba.njit(nogil=True)
def _add_leaves(x: Any, roots: Any, feature: Any, threshold: Any, left: Any, right: Any, share: Any, sums: Any) -> None:
    """Add the share of the leaf that each row (N, F) reaches, over all trees, to sums (N, C)."""
    for tree in range(roots.shape[0]):
        for n in range(x.shape[0]):
            node = roots[tree]
            while feature[node] >= 0:
                node = left[node] if x[n, feature[node]] <= threshold[node] else right[node]
            for c in range(sums.shape[1]):
                sums[n, c] += share[node, c]
