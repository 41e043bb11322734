"""Which training part a fold has, and what a rare class leaves of it."""

from dataclasses import replace

import numpy as np

from deepser.config import TrainConfig
from deepser.members.folds import FoldPlan, thin_draws
from tests.helpers.messages import mentions

CLASSES = ("calm", "angry", "rare")


def test_a_class_with_one_clip_is_named_before_a_balanced_stage_draws_three() -> None:
    labels = np.array([0, 1] * 100 + [2, -1])
    plan = FoldPlan(("a", "b"), np.array([0, 0, 1, 1] * 50 + [0, 1]), "test")
    (sentence,) = thin_draws(TrainConfig(), labels, CLASSES, plan)
    # Fold a learns from b's clips, which are of two classes; fold b from a's.
    assert mentions(sentence, "stage2", "1 of 2 folds", "3 of 101", "rare has 1", "train.stages.1.sampler")
    assert thin_draws(TrainConfig(), np.where(labels == 2, 1, labels), CLASSES, plan) == []
    shuffled = replace(TrainConfig(), stages=TrainConfig().stages[:1])
    assert thin_draws(shuffled, labels, CLASSES, plan) == []
    assert thin_draws(TrainConfig(), np.full(202, -1), CLASSES, plan) == []
