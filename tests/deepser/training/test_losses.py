"""The losses are the paper's, missing attributes are masked, and MixUp mixes targets as it mixes vectors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deepser.config import LossConfig
from deepser.scores import metrics
from deepser.training.losses import (
    Mix,
    ccc_loss,
    class_weights,
    focal_loss,
    gaussian_mse,
    masked_mse,
    soft_cross_entropy,
    total_loss,
)


def test_stage_1_weights_follow_the_formula() -> None:
    labels = np.array([0] * 8 + [1] * 2 + [-1] * 5)
    expected = [(10 / (2 * 8)) ** 0.5, (10 / (2 * 2)) ** 0.5]
    np.testing.assert_allclose(class_weights(labels, 2, 0.5), expected, rtol=1e-6)
    np.testing.assert_array_equal(class_weights(labels, 2, 0.0), [1.0, 1.0])
    np.testing.assert_array_equal(class_weights(labels, 3, 0.5)[2], 0.0)
    # Uniform weights, and those of clips that have votes and no label, leave no class's votes out.
    np.testing.assert_array_equal(class_weights(labels, 3, 0.0), [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(class_weights(np.full(4, -1), 3, 0.5), [1.0, 1.0, 1.0])


def test_soft_cross_entropy_equals_torch_on_probabilities() -> None:
    logits, soft = torch.randn(5, 4), torch.rand(5, 4).softmax(1)
    expected = torch.nn.functional.cross_entropy(logits, soft)
    torch.testing.assert_close(soft_cross_entropy(logits, soft, torch.ones(4)), expected)


def batch(seed: int, n: int = 6, n_classes: int = 4, n_attributes: int = 3) -> tuple[Tensor, ...]:
    """logits, soft, weights, predicted attributes, targets with gaps, ranges."""
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(n, n_classes, generator=generator).softmax(1)
    soft[0] = 0  # a clip that has no class target
    values = 1 + 6 * torch.rand(n, n_attributes, generator=generator)
    values[torch.rand(n, n_attributes, generator=generator) < 0.3] = float("nan")
    ranges = torch.tensor([(1.0, 7.0), (1.0, 5.0), (-1.0, 1.0)])[:n_attributes]
    predicted = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * torch.rand(n, n_attributes, generator=generator)
    logits = 3 * torch.randn(n, n_classes, generator=generator)
    return logits, soft, torch.rand(n_classes, generator=generator), predicted, values, ranges


@given(seed=st.integers(0, 1000), gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_class_losses_are_the_plain_loops(seed: int, gamma: float) -> None:
    logits, soft, weights, *_ = batch(seed)
    p = logits.double().softmax(1).tolist()
    total = entropy = 0.0
    for b, row in enumerate(p):
        for c, share in enumerate(row):
            entropy -= float(weights[c] * soft[b, c]) * math.log(share) / len(p)
            total -= float(weights[c] * soft[b, c]) * (1 - share) ** gamma * math.log(share) / len(p)
    assert float(focal_loss(logits, soft, weights, gamma)) == pytest.approx(total, rel=1e-4, abs=1e-6)
    assert float(soft_cross_entropy(logits, soft, weights)) == pytest.approx(entropy, rel=1e-4, abs=1e-6)


@given(seed=st.integers(0, 1000), sigma=st.sampled_from([3.0, 5.0, 7.0]))
def test_attribute_losses_are_the_plain_loops(seed: int, sigma: float) -> None:
    *_, predicted, values, ranges = batch(seed)
    squares, penalised = [], []
    for b in range(predicted.shape[0]):
        for a, (low, high) in enumerate(ranges.tolist()):
            y, guess = float(values[b, a]), float(predicted[b, a])
            if not math.isnan(y):
                apart_points = (guess - (low + high) / 2) / (high - low) * 6  # in points of a scale from 1 to 7
                squares.append((y - guess) ** 2)
                penalised.append(math.exp(-(apart_points**2) / (2 * sigma**2)) * (y - guess) ** 2)
    n = max(len(squares), 1)
    assert float(masked_mse(predicted, values)) == pytest.approx(sum(squares) / n, rel=1e-4, abs=1e-6)
    assert float(gaussian_mse(predicted, values, ranges, sigma)) == pytest.approx(
        sum(penalised) / n, rel=1e-4, abs=1e-6
    )
    expected = 0.0
    for a in range(predicted.shape[1]):
        if (~values[:, a].isnan()).sum() > 1:
            expected += 1 - metrics.ccc(predicted[:, a].numpy(), values[:, a].numpy())
    assert float(ccc_loss(predicted, values)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_gaussian_penalty_is_srpols_on_their_scale() -> None:
    guess, y, ranges = torch.tensor([[4.0], [7.0]]), torch.tensor([[6.0], [5.0]]), torch.tensor([[1.0, 7.0]])
    expected = (1 * 4 + math.exp(-(3**2) / (2 * 3**2)) * 4) / 2
    assert float(gaussian_mse(guess, y, ranges, 3.0)) == pytest.approx(expected)


def test_concordance_does_not_depend_on_the_scale() -> None:
    *_, predicted, values, _ = batch(1)
    torch.testing.assert_close(ccc_loss(predicted, values), ccc_loss((predicted - 1) / 6, (values - 1) / 6))


@pytest.mark.parametrize("classes", ["cross-entropy", "focal"])
@pytest.mark.parametrize("attributes", ["mse", "ccc", "gaussian-mse"])
def test_the_weights_of_a_loss_weigh_and_a_zero_leaves_out(classes: str, attributes: str) -> None:
    logits, soft, weights, predicted, values, ranges = batch(3)
    logits.requires_grad_()
    predicted.requires_grad_()

    def loss(alpha: float, beta: float) -> Tensor:
        config = LossConfig(classes, attributes, alpha, beta)
        return total_loss(config, logits, soft, weights, predicted, values, ranges)

    torch.testing.assert_close(loss(0.75, 0.25), 0.75 * loss(1, 0) + 0.25 * loss(0, 1))
    loss(1, 0).backward()
    assert predicted.grad is None
    loss(0, 1).backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[values.isnan()].abs().sum() == 0
    without_attributes = total_loss(LossConfig(), logits, soft, weights, predicted[:, :0], values[:, :0], ranges[:0])
    torch.testing.assert_close(without_attributes, 1.5 * soft_cross_entropy(logits, soft, weights))


def test_losses_of_extreme_outputs_have_finite_gradients() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(2), 0.5).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    constant = torch.full((3, 1), 4.0, requires_grad=True)
    ccc_loss(constant, torch.full((3, 1), 4.0)).backward()
    assert constant.grad is not None
    assert torch.isfinite(constant.grad).all()


def test_missing_attributes_neither_count_nor_send_gradients() -> None:
    predicted = torch.zeros(2, 3, requires_grad=True)
    targets = torch.tensor([[1.0, float("nan"), 3.0], [float("nan")] * 3])
    loss = masked_mse(predicted, targets)
    loss.backward()
    assert loss.item() == (1 + 9) / 2
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[1].abs().sum() == 0
    assert masked_mse(predicted, torch.full((2, 3), float("nan"))).item() == 0


def test_mixup_mixes_vectors_and_targets_alike_per_clip() -> None:
    mix = Mix.draw(64, 0.3, 0.2, np.random.default_rng(0))
    x, y = torch.randn(64, 5), torch.rand(64, 8)
    mixed = mix(torch.cat([x, y], 1))
    torch.testing.assert_close(mixed, torch.cat([mix(x), mix(y)], 1))
    assert 5 < int((mix.weight < 1).sum()) < 40
    assert len(set(mix.weight[mix.weight < 1].tolist())) > 1, "lambda is drawn per clip"


def test_an_unmixed_clip_keeps_its_attributes_when_its_partner_has_none() -> None:
    mix = Mix(torch.tensor([[1.0], [0.5]]), torch.tensor([1, 0]))
    mixed = mix(torch.tensor([[4.0], [float("nan")]]))
    assert mixed[0].item() == 4.0
    assert torch.isnan(mixed[1]).all()
