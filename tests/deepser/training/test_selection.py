"""What selects an epoch is a score of the whole held-out part, by name."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepser.config import LossConfig
from deepser.scores import metrics
from deepser.training.losses import soft_cross_entropy
from deepser.training.selection import held_out_score
from deepser.training.targets import Targets
from featurestore.corpus.splits import balanced_sets
from featurestore.errors import ConfigError

CLASSES, N = ("a", "b", "c"), 60


def targets(*, labelled: bool = True) -> Targets:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(N) < 0.8, rng.choice(3, N, p=[0.7, 0.2, 0.1]), -1)
    soft = np.eye(4, 3, dtype=np.float32)[labels]
    values = np.stack([rng.uniform(1, 7, N), np.full(N, np.nan)], 1).astype(np.float32)
    values[::7] = np.nan
    keys = tuple(f"u{i}" for i in range(N))
    ranges = ((1.0, 7.0), (1.0, 7.0))
    return Targets(keys, CLASSES, ("arousal", "power"), ranges, labels if labelled else np.full(N, -1), soft, values)


def outputs(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(40, 3)).astype(np.float32), rng.uniform(1, 7, (40, 2)).astype(np.float32)


AT = np.arange(10, 50)


def score(rule: str, on: str = "all", of: Targets | None = None) -> float:
    return held_out_score(rule, on, *outputs(), of or targets(), AT, LossConfig(), seed=0)


@pytest.mark.parametrize("rule", ["macro_f1", "micro_f1", "accuracy", "uar"])
def test_class_scores_are_those_of_the_whole_part(rule: str) -> None:
    expected = metrics.classification(outputs()[0], targets().labels[AT], CLASSES)
    assert score(rule) == getattr(expected, rule)


def test_balanced_is_the_mean_over_balanced_draws() -> None:
    labels, logits = targets().labels[AT], outputs()[0]
    draws = balanced_sets(labels, seed=0)
    expected = np.mean([metrics.classification(logits[d], labels[d], CLASSES).macro_f1 for d in draws])
    assert score("macro_f1", "balanced") == pytest.approx(float(expected))
    assert score("macro_f1", "balanced") != score("macro_f1")


def test_attributes_are_scored_over_what_is_known() -> None:
    arousal = metrics.ccc(outputs()[1][:, 0], targets().attribute_values[AT, 0])
    assert score("mean_ccc") == score("ccc:arousal") == arousal
    with pytest.raises(ConfigError, match="it has arousal"):
        score("ccc:power")


def test_the_loss_is_of_the_whole_part_at_once_and_less_is_better() -> None:
    logits, attributes = outputs()
    y = targets().attribute_values[AT]
    rated = ~np.isnan(y)
    entropy = soft_cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets().soft[AT]), torch.ones(3))
    expected = 1.5 * float(entropy) + 0.4 * float(np.square(attributes[rated] - y[rated]).mean())
    assert score("loss") == pytest.approx(-expected, rel=1e-5)


def test_a_part_without_labels_selects_by_no_class_score() -> None:
    unlabelled = targets(labelled=False)
    with pytest.raises(ConfigError, match=r"--select.*held-out.*consensus label"):
        score("macro_f1", of=unlabelled)
    assert not math.isnan(score("mean_ccc", of=unlabelled))


def test_the_loss_of_one_hot_targets_is_that_of_the_labels() -> None:
    voted = replace(targets(), soft=np.full((N, 3), 1 / 3, np.float32))
    by_kind = [
        held_out_score("loss", "all", *outputs(), voted, AT, LossConfig(), seed=0, kind=kind)
        for kind in ("one-hot", "soft", "vote-dropping")
    ]
    assert by_kind[0] == score("loss")  # whose soft targets are the labels
    assert by_kind[1] == by_kind[2] != by_kind[0]
