"""The learning rate as a pure function of how far a stage is."""

import math

from deepser.config import StageConfig


def learning_rate(stage: StageConfig, at_epoch: float) -> float:
    """Return the learning rate at a fractional epoch of a stage.

    Linear warm-up, times: constant; cosine from lr to min_lr; or exponential, the same factor every epoch, to min_lr.
    """
    warm = min(1.0, (at_epoch + 1e-2) / stage.warmup_epochs) if stage.warmup_epochs else 1.0
    progress = at_epoch / stage.epochs
    if stage.schedule == "constant":
        return stage.lr * warm
    if stage.schedule == "exponential":
        rate: float = stage.lr * warm * (stage.min_lr / stage.lr) ** progress
        return rate
    return warm * (stage.min_lr + (stage.lr - stage.min_lr) * 0.5 * (1 + math.cos(math.pi * progress)))
