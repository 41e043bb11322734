"""The losses are the paper's, missing attributes are masked, and MixUp mixes targets as it mixes vectors."""

import numpy as np
import torch

from deepser.losses import Mix, class_weights, masked_mse, soft_cross_entropy


def test_stage_1_weights_follow_the_formula() -> None:
    labels = np.array([0] * 8 + [1] * 2 + [-1] * 5)
    expected = [(10 / (2 * 8)) ** 0.5, (10 / (2 * 2)) ** 0.5]
    np.testing.assert_allclose(class_weights(labels, 2, 0.5), expected, rtol=1e-6)
    np.testing.assert_array_equal(class_weights(labels, 2, 0.0), [1.0, 1.0])
    np.testing.assert_array_equal(class_weights(labels, 3, 0.5)[2], 0.0)


def test_soft_cross_entropy_equals_torch_on_probabilities() -> None:
    logits, soft = torch.randn(5, 4), torch.rand(5, 4).softmax(1)
    expected = torch.nn.functional.cross_entropy(logits, soft)
    torch.testing.assert_close(soft_cross_entropy(logits, soft, torch.ones(4)), expected)


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
