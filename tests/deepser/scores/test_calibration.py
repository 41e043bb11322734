"""Calibration equals scikit-learn's, temperatures are the likelihood's optimum, and no fold sees its own labels."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import jensenshannon
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from deepser.scores.calibration import (
    COLDEST,
    HOTTEST,
    calibration,
    cross_entropies,
    cross_scaled,
    fit_temperature,
    jensen_shannons,
    scale,
    soft_scores,
)
from featurestore.errors import ConfigError, ManifestError

N_CLASSES = 4


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def draw(n: int = 4000, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and softmax(sharpness * z): calibrated where that is 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, N_CLASSES)) * 1.5
    labels = (softmax(z).cumsum(1) < rng.random((n, 1))).sum(1)
    return softmax(sharpness * z).astype(np.float32), labels


@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_reliability_curve_is_scikit_learns_and_ece_its_weighted_gap(n_bins: int, sharpness: float) -> None:
    p, labels = draw(sharpness=sharpness)
    result = calibration(p, labels, n_bins)
    correct = p.argmax(1) == labels
    accuracy, confidence = calibration_curve(correct, p.max(1).astype(np.float64), n_bins=n_bins)
    filled = result.bins
    np.testing.assert_allclose([each.accuracy for each in filled], accuracy)
    np.testing.assert_allclose([each.confidence for each in filled], confidence)
    gaps = np.abs(accuracy - confidence)
    assert result.ece == pytest.approx(np.average(gaps, weights=[each.n for each in filled]))
    assert result.mce == pytest.approx(gaps.max())
    assert sum(each.n for each in result.bins) == result.n == len(p)
    assert result.accuracy == pytest.approx(correct.mean())


def test_likelihood_and_brier_score_are_scikit_learns() -> None:
    p, labels = draw(500, 2.0)
    result = calibration(p, labels)
    classes = list(range(N_CLASSES))
    exact = p / p.sum(1, dtype=np.float64, keepdims=True)
    assert result.nll == pytest.approx(log_loss(labels, exact, labels=classes), rel=1e-6)
    assert result.brier == pytest.approx(brier_score_loss(labels, exact, labels=classes), rel=1e-5)
    certain = np.eye(2, dtype=np.float32)[[0, 1]]
    wrong = np.array([0, 0])
    assert calibration(certain, wrong).nll == pytest.approx(log_loss(wrong, certain, labels=[0, 1]), rel=1e-3)


def test_overconfidence_is_reported_and_a_calibrated_system_has_almost_no_error() -> None:
    good, sharp = (calibration(*draw(20_000, sharpness)) for sharpness in (1.0, 3.0))
    assert good.ece < 0.02
    assert sharp.ece > 0.1
    assert sharp.confidence > sharp.accuracy + 0.1
    json.dumps(sharp.to_dict(), allow_nan=False)


@pytest.mark.parametrize("sharpness", [0.3, 0.8, 1.0, 2.5, 6.0])
def test_a_temperature_undoes_the_sharpness_and_is_the_optimum(sharpness: float) -> None:
    p, labels = draw(20_000, sharpness)
    result = fit_temperature(p, labels)
    assert result == pytest.approx(sharpness, rel=0.05)
    searched = minimize_scalar(
        lambda t: calibration(scale(p, t), labels).nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}
    )
    assert result == pytest.approx(searched.x, rel=2e-3)
    assert calibration(scale(p, result), labels).ece < 0.02


def test_the_temperature_is_scikit_learns() -> None:
    frozen = pytest.importorskip("sklearn.frozen")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV

    class Given(ClassifierMixin, BaseEstimator):
        """Says the logits that it is shown."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
            self.classes_ = np.unique(y)
            self.n_features_in_ = x.shape[1]
            return self

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(1)

    p, labels = draw(3000, 2.0)
    z = np.log(p.astype(np.float64))
    scaler = CalibratedClassifierCV(frozen.FrozenEstimator(Given().fit(z, labels)), method="temperature")
    try:
        scaler.fit(z, labels)
    except ValueError:
        pytest.skip("this scikit-learn has no temperature scaling")
    np.testing.assert_allclose(scaler.predict_proba(z), scale(p, fit_temperature(p, labels)), atol=2e-3)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_scaling_keeps_the_order_of_classes_and_sums_to_one(seed: int, temperature: float) -> None:
    p = softmax(np.random.default_rng(seed).normal(size=(8, N_CLASSES))).astype(np.float32)
    scaled = scale(p, temperature)
    np.testing.assert_allclose(scaled.sum(1), 1, rtol=1e-5)
    assert (scaled[np.arange(8), p.argmax(1)] == scaled.max(1)).all()
    np.testing.assert_allclose(scale(p, 1.0), p, atol=1e-6)


def test_without_a_finite_optimum_the_fit_stops_at_the_end_of_its_range() -> None:
    p = np.tile([[0.6, 0.4]], (10, 1))
    assert fit_temperature(p, np.zeros(10, int)) == pytest.approx(COLDEST, rel=1e-6)
    assert fit_temperature(p, np.ones(10, int)) == pytest.approx(HOTTEST, rel=1e-6)
    assert math.isfinite(fit_temperature(np.eye(2)[[0, 1]], np.array([0, 1])))
    assert math.isfinite(fit_temperature(np.full((4, 2), 0.5), np.array([0, 1, 1, 1])))


def test_a_folds_labels_do_not_reach_its_own_temperature() -> None:
    p, labels = draw(900, 2.0)
    folds = np.array(["a", "b", "c"])[np.arange(900) % 3]
    scaled, actual = cross_scaled(p, labels, folds)
    spoiled = np.where(folds == "b", 0, labels)
    repeated, changed = cross_scaled(p, spoiled, folds)
    assert changed["b"] == actual["b"]
    assert changed["a"] != actual["a"]
    assert np.array_equal(repeated[folds == "b"], scaled[folds == "b"])
    _, ordered = cross_scaled(p, labels, np.array(["10", "b", "2"])[np.arange(900) % 3])
    assert list(ordered) == ["2", "10", "b"]
    of_c = folds == "c"
    assert actual["c"] == fit_temperature(p[~of_c], labels[~of_c])
    np.testing.assert_array_equal(scaled[of_c], scale(p[of_c], actual["c"]))


@given(st.integers(0, 2**32 - 1))
def test_soft_scores_equal_scipy_and_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(size=(6, N_CLASSES))).astype(np.float32)
    votes = rng.multinomial(5, np.full(N_CLASSES, 1 / N_CLASSES), 6) / 5
    votes[0] = 0  # nobody voted
    divergences, entropies = jensen_shannons(p, votes), cross_entropies(p, votes)
    assert math.isnan(divergences[0])
    assert math.isnan(entropies[0])
    for n in range(1, 6):
        assert divergences[n] == pytest.approx(jensenshannon(p[n].astype(float), votes[n], base=2) ** 2, abs=1e-6)
        assert entropies[n] == pytest.approx(-sum(v * math.log(q) for v, q in zip(votes[n], p[n], strict=True)))
    result = soft_scores(p, votes)
    assert result is not None
    assert result.n == 5
    assert result.vote_entropy - 1e-6 <= result.cross_entropy
    assert 0 <= result.jensen_shannon <= 1
    assert soft_scores(p, votes * 0) is None


def test_soft_scores_at_their_ends() -> None:
    votes = np.eye(2)[[0, 1]]
    equal, opposite = soft_scores(votes, votes), soft_scores(1 - votes, votes)
    assert equal is not None
    assert opposite is not None
    assert (equal.jensen_shannon, opposite.jensen_shannon) == (0, 1)
    assert equal.cross_entropy == pytest.approx(0, abs=1e-6)
    assert math.isfinite(opposite.cross_entropy)


def test_what_is_no_distribution_or_has_no_label_is_refused() -> None:
    p, labels = draw(20)
    with pytest.raises(ConfigError, match=r"row 3 sums to 2"):
        calibration(np.where(np.arange(20)[:, None] == 2, 2 * p, p), labels)
    with pytest.raises(ManifestError, match=r"[Nn]o utterance.*consensus.*calibration"):
        calibration(p, np.full(20, -1))
    with pytest.raises(ConfigError, match="for 19 labels"):
        calibration(p, labels[1:])
    with pytest.raises(ConfigError, match="more than 0"):
        scale(p, 0.0)
    with pytest.raises(ConfigError, match="1 bin or more"):
        calibration(p, labels, 0)
    labels_known = labels.copy()
    labels_known[5:] = -1
    assert calibration(p, labels_known, 1) == calibration(p[:5], labels[:5], 1)


@pytest.mark.parametrize("share", [0.6, 0.8, 2 / 5, 1 / 3, 7 / 15])
def test_a_probability_on_the_edge_of_a_bin_is_in_the_same_bin_in_float32_and_float64(share: float) -> None:
    rows = np.tile([share, *[(1 - share) / 3] * 3], (7, 1))
    rows = np.concatenate([rows, np.tile([0.9, 0.05, 0.03, 0.02], (5, 1))])
    labels = np.array([0, 1] * 6)
    from_float32, from_float64 = calibration(rows.astype(np.float32), labels), calibration(rows, labels)
    assert from_float32.ece == pytest.approx(from_float64.ece, abs=1e-6)
    assert [each.n for each in from_float32.bins] == [each.n for each in from_float64.bins]
