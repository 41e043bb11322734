"""The learning rate is a function of how far a stage is, and its ends are the ones that were asked for."""

import math

import pytest

from deepser.config import StageConfig
from deepser.training.schedule import learning_rate
from featurestore.errors import ConfigError


def stage(**settings: object) -> StageConfig:
    return StageConfig("s", "shuffled", 0.0, 10, 1e-3, **settings)  # type: ignore[arg-type]


def test_constant_cosine_and_exponential_reach_their_ends() -> None:
    assert learning_rate(stage(), 7.3) == 1e-3
    cosine = stage(schedule="cosine", min_lr=1e-5)
    assert learning_rate(cosine, 0) == pytest.approx(1e-3)
    assert learning_rate(cosine, 5) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(cosine, 10) == pytest.approx(1e-5)
    assert learning_rate(stage(schedule="cosine"), 2.5) == 1e-3 * 0.5 * (1 + math.cos(math.pi * 0.25))
    exponential = stage(schedule="exponential", min_lr=1e-5)
    ratios = {round(learning_rate(exponential, e + 1) / learning_rate(exponential, e), 9) for e in range(10)}
    assert ratios == {round(0.01**0.1, 9)}
    assert learning_rate(exponential, 10) == pytest.approx(1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_warm_up_rises_from_near_zero(schedule: str) -> None:
    warm = stage(schedule=schedule, min_lr=1e-5, warmup_epochs=3)
    plain = stage(schedule=schedule, min_lr=1e-5)
    assert 0 < learning_rate(warm, 0) < 0.01 * learning_rate(plain, 0)
    assert learning_rate(warm, 1.49) == pytest.approx(0.5 * learning_rate(plain, 1.49))
    assert learning_rate(warm, 3) == learning_rate(plain, 3)


def test_ends_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="above zero"):
        stage(schedule="exponential")
    with pytest.raises(ConfigError, match="at most lr"):
        stage(schedule="cosine", min_lr=1.0)
