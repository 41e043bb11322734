import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import confusion_matrix, f1_score

from deepser.scores.counts import ccc_of_sums, class_f1, confusions, macro_f1, mean_f1
from deepser.scores.metrics import ccc, classification
from deepser.scores.probabilities import entropy, log_probabilities, softmax
from deepser.training.losses import ccc_loss
from ensemble.evaluation.bootstrap import Scored
from ensemble.fusion.seed_training import _mean_ccc


def reference(x: np.ndarray, y: np.ndarray) -> float:
    """Lin 1989, equation by equation, over the known targets."""
    pairs = [(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True) if not math.isnan(b)]
    n = len(pairs)
    mean_x, mean_y = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in pairs) / n
    variance_x, variance_y = sum((a - mean_x) ** 2 for a, _ in pairs) / n, sum((b - mean_y) ** 2 for _, b in pairs) / n
    return 2 * covariance / (variance_x + variance_y + (mean_x - mean_y) ** 2)


def by_sums(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    return float(ccc_of_sums(np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])))


def by_bootstrap(x: np.ndarray, y: np.ndarray) -> float:
    labels, speakers = np.full(len(x), -1), np.full(len(x), "s")
    scored = Scored((), labels, None, ("arousal",), y[:, None], x[:, None], speakers)
    return float(scored.sums().scores()["ccc_arousal"])


def by_seeds(x: np.ndarray, y: np.ndarray) -> float:
    rated = ~np.isnan(y)
    arrays = (x[None, None], np.nan_to_num(y)[None], rated[None].astype(np.float64))
    return float(_mean_ccc(*(torch.from_numpy(array) for array in arrays))[0])


def by_loss(x: np.ndarray, y: np.ndarray) -> float:
    return 1 - float(ccc_loss(torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None]))


CCC: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "metrics": ccc, "sums": by_sums, "bootstrap": by_bootstrap, "seeds": by_seeds, "loss": by_loss,
}  # fmt: skip


@pytest.mark.parametrize("name", CCC)
@pytest.mark.parametrize("seed", range(6))
def test_every_concordance_is_lins(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.uniform(1, 7, 50)
    x = 0.6 * y + rng.normal(size=50) + seed
    y[rng.random(50) < 0.2] = np.nan
    assert CCC[name](x, y) == pytest.approx(reference(x, y), abs=1e-7)


@pytest.mark.parametrize("name", CCC)
def test_every_concordance_of_a_constant_prediction_is_zero(name: str) -> None:
    assert CCC[name](np.full(9, 4.0), np.arange(9.0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", CCC)
def test_every_concordance_of_the_targets_themselves_is_one(name: str) -> None:
    y = np.array([1.0, np.nan, 3.0, 7.0])
    assert CCC[name](np.nan_to_num(y), y) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_macro_f1_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(0, 5, (3, 20)), rng.integers(0, 4, (3, 20))
    counts = confusions(predicted, labels, 5)
    for k in range(3):
        all_classes, present = range(5), np.unique(labels[k])
        np.testing.assert_array_equal(counts[k], confusion_matrix(labels[k], predicted[k], labels=list(all_classes)))
        for absent, averaged in (("zero", all_classes), ("skip", present)):
            expected = f1_score(labels[k], predicted[k], labels=list(averaged), average="macro", zero_division=0)
            assert macro_f1(predicted, labels, 5, absent=absent)[k] == pytest.approx(expected)  # type: ignore[arg-type]


def test_an_absent_class_counts_zero_or_nothing_as_the_caller_says() -> None:
    labels = predicted = np.array([0, 1, 2])
    assert macro_f1(predicted, labels, 4, absent="zero") == 0.75
    assert macro_f1(predicted, labels, 4, absent="skip") == 1.0
    assert classification(predicted, labels, tuple("abcd")).macro_f1 == 0.75


def test_without_any_utterance_macro_f1_by_the_challenges_rule_is_undefined() -> None:
    nothing = np.zeros((2, 2))
    assert math.isnan(mean_f1(class_f1(nothing), nothing.sum(-1), absent="zero"))


def test_softmax_keeps_its_dtype_and_bears_large_logits() -> None:
    logits = np.array([[1e4, 0, -1e4], [1, 2, 3]], np.float32)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, torch.from_numpy(logits).softmax(1).numpy(), rtol=1e-6)


def test_entropy_is_in_nats_with_zero_for_what_is_certain() -> None:
    p = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25]], np.float32)
    np.testing.assert_allclose(entropy(p), scipy_entropy(p.astype(np.float64), axis=1), atol=1e-6)
    assert entropy(p)[0] == 0


def test_the_logarithm_of_zero_is_float32s_smallest() -> None:
    result = log_probabilities(np.array([[0, 1]], np.float32))
    assert result.dtype == np.float32
    assert result[0] == pytest.approx([math.log(np.finfo(np.float32).tiny), 0])
