"""Scores from sums are the scores; resamples are those of whole speakers; tests hold their level."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepser.scores.metrics import evaluate
from ensemble.evaluation import bootstrap as module
from ensemble.evaluation.bootstrap import Scored, Sums, bootstrap, compare, resample
from featurestore.errors import ConfigError

CLASSES = ("angry", "sad", "happy")
ATTRIBUTES = ("arousal", "valence")
NAMES = ("a", "b")


def draw(n: int = 120, n_speakers: int = 12, seed: int = 0, skill: float = 0.5, noise: float = 1.0) -> Scored:
    """Utterances of one truth (its own seed), predicted with more or less skill by a system of seed `seed`."""
    truth, rng = np.random.default_rng(99), np.random.default_rng(seed)
    labels = truth.integers(-1, len(CLASSES), n)
    targets = truth.normal(4, 1, (n, 2)).astype(np.float32)
    targets[truth.random((n, 2)) < 0.2] = np.nan
    predicted = np.where(rng.random(n) < skill, labels.clip(0), rng.integers(0, len(CLASSES), n))
    values = (np.nan_to_num(targets, nan=4.0) + noise * rng.normal(size=(n, 2))).astype(np.float32)
    clusters = np.array([f"s{i}" for i in truth.integers(0, n_speakers, n)], dtype=object)
    means = {"cross_entropy": np.where(labels < 0, np.nan, rng.random(n))}
    return Scored(CLASSES, labels, predicted, ATTRIBUTES, targets, values, clusters, means)


def reference(scored: Scored) -> dict[str, float]:
    """Return the same scores by the functions that look at every utterance."""
    result = evaluate(scored.predicted, scored.labels, CLASSES, scored.values, scored.targets, scored.attributes)
    assert result.classification is not None
    assert result.concordance is not None
    actual = result.scores() | {f"f1_{name}": own.f1 for name, own in result.classification.per_class.items()}
    actual |= {f"ccc_{name}": value for name, value in result.concordance.ccc.items()}
    return actual | {"cross_entropy": float(np.nanmean(scored.means["cross_entropy"]))}


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, float]) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(value, abs=1e-9, nan_ok=True), name


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 8))
def test_scores_from_sums_are_the_scores(seed: int, n: int, n_speakers: int) -> None:
    scored = draw(n, n_speakers, seed)
    if (scored.labels >= 0).any():
        assert_same(scored.sums().scores(), reference(scored))


def test_constants_and_missing_targets_are_scored_as_ever() -> None:
    scored = draw(50)
    constant = replace(scored, values=np.full((50, 2), 3.7, np.float32))
    assert constant.sums().scores()["mean_ccc"] == 0 == reference(constant)["mean_ccc"]
    all_equal = replace(scored, targets=np.full((50, 2), 5.3, np.float32))
    assert all_equal.sums().scores()["ccc_arousal"] == 0
    half = replace(scored, targets=np.where([True, False], scored.targets, np.nan))
    assert_same(half.sums().scores(), reference(half))
    unlabelled = replace(scored, labels=np.full(50, -1), means={})
    assert math.isnan(unlabelled.sums().scores()["macro_f1"])
    far = replace(scored, targets=scored.targets + 1e4, values=scored.values + 1e4)
    assert far.sums().scores()["ccc_valence"] == pytest.approx(scored.sums().scores()["ccc_valence"], abs=1e-2)


def test_speakers_of_whom_nothing_is_known_are_not_resampled() -> None:
    scored = replace(draw(120, 12), means={})
    labels = np.where(np.isin(scored.clusters, ["s0", "s1", "s2"]), scored.labels, -1)
    some = replace(scored, labels=labels, attributes=(), targets=np.empty((120, 0)), values=np.empty((120, 0)))
    assert some.predicted is not None
    assert some.n_clusters == 3
    assert bootstrap(some.sums()) == bootstrap(some.rows(labels >= 0).sums())
    other = replace(some, predicted=(some.predicted + 1) % 3)
    assert compare(some.sums(), other.sums(), NAMES).n_clusters == 3

    one = replace(scored, labels=np.where(scored.clusters == "s0", scored.labels, -1))
    result = bootstrap(one.sums())
    assert one.n_clusters == 12, "all have attributes"
    assert math.isnan(result["uar"].low), "of one speaker nothing varies"
    assert result["ccc_arousal"].low < result["ccc_arousal"].high
    apart = compare(one.sums(), replace(one, predicted=(one.predicted + 1) % 3).sums(), NAMES)
    assert math.isnan(apart.differences["uar"].low)


def test_a_resample_is_whole_speakers_with_all_their_utterances() -> None:
    scored = draw(80, 7)
    sums = scored.sums()
    speakers = sorted(set(scored.clusters.tolist()))
    # The same draws by hand: rows repeated, every score computed anew.
    drawn = np.random.default_rng((module._DRAWN, 5, 0)).integers(0, len(speakers), (20, len(speakers)))
    scores = sums.scores(resample(sums.values, 20, seed=5))
    for b in range(20):
        rows = np.concatenate([np.flatnonzero(scored.clusters == speakers[g]) for g in drawn[b]])
        assert_same({name: values[b] for name, values in scores.items()}, reference(scored.rows(rows)))


def test_resamples_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = draw().sums()
    alone_scores, compared = bootstrap(sums, 50, seed=3), compare(sums, draw(seed=1).sums(), NAMES, 50, seed=3)
    assert bootstrap(sums, 50, seed=4) != alone_scores
    monkeypatch.setattr(module, "CHUNK_BYTES", 8 * 12 * 7)  # seven resamples at a time
    for name, interval in bootstrap(sums, 50, seed=3).items():
        assert (interval.low, interval.high) == pytest.approx(
            (alone_scores[name].low, alone_scores[name].high), rel=1e-12
        ), name
    repeated = compare(sums, draw(seed=1).sums(), NAMES, 50, seed=3)
    assert {name: own.p for name, own in repeated.differences.items()} == {
        name: own.p for name, own in compared.differences.items()
    }


def test_intervals_are_quantiles_around_the_score_and_wider_at_a_higher_level() -> None:
    sums = draw(2000, 60).sums()
    narrow, wide = (bootstrap(sums, 400, level=level) for level in (0.5, 0.95))
    for name, interval in wide.items():
        assert interval.low < interval.value < interval.high, name
        assert interval.low < narrow[name].low < narrow[name].high < interval.high, name
    scores = sums.scores(resample(sums.values, 400, 0))["uar"]
    assert wide["uar"].low == pytest.approx(np.quantile(scores, 0.025))


def test_speakers_that_differ_widen_the_interval_as_utterances_alone_would_not() -> None:
    rng = np.random.default_rng(0)
    speaker = np.arange(3000) // 100
    good = rng.random(30)[speaker] > rng.random(3000)
    labels = rng.integers(0, 3, 3000)
    nothing = np.empty((3000, 0), np.float32)
    by_speaker = Scored(CLASSES, labels, np.where(good, labels, (labels + 1) % 3), (), nothing, nothing, speaker)
    by_utterance = replace(by_speaker, clusters=np.arange(3000))
    width = [i.high - i.low for i in (bootstrap(s.sums(), 300)["accuracy"] for s in (by_speaker, by_utterance))]
    assert width[0] > 3 * width[1]
    # Thirty independent speakers: 2 * 1.96 standard errors of their mean accuracy.
    expected = 2 * 1.96 * np.std([good[speaker == s].mean() for s in range(30)]) / np.sqrt(30)
    assert width[0] == pytest.approx(expected, rel=0.15)


def test_one_speaker_has_no_interval_and_no_resample_gives_none() -> None:
    for actual in (bootstrap(draw(30, 1).sums(), 20), bootstrap(draw().sums(), 0)):
        assert math.isnan(actual["uar"].low)
        assert math.isnan(actual["uar"].high)
        assert not math.isnan(actual["uar"].value)


def test_a_system_does_not_differ_from_itself() -> None:
    sums = draw().sums()
    result = compare(sums, sums, NAMES, 99)
    for name, difference in result.differences.items():
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1), name


def test_differences_are_signed_and_intervals_those_of_the_paired_resamples() -> None:
    better, worse = draw(600, 30, seed=1, skill=0.8, noise=0.3).sums(), draw(600, 30, seed=2, skill=0.4).sums()
    ahead, behind = compare(better, worse, NAMES, 300), compare(worse, better, NAMES, 300)
    for score in ("macro_f1", "accuracy", "uar", "mean_ccc", "ccc_valence"):
        forward, backward = ahead.differences[score], behind.differences[score]
        assert forward.low > 0
        assert forward.p == pytest.approx(1 / 301)
        assert (backward.value, backward.low, backward.high) == pytest.approx(
            (-forward.value, -forward.high, -forward.low)
        )
        assert forward.value == pytest.approx(forward.first - forward.second)
        differences = (
            better.scores(resample(better.values, 300, 0))[score] - worse.scores(resample(worse.values, 300, 0))[score]
        )
        assert forward.low == pytest.approx(np.quantile(differences, 0.025))
    json.dumps(ahead.to_dict(), allow_nan=False)


def test_the_p_value_is_that_of_all_swaps() -> None:
    a, b = draw(60, 6, seed=1, skill=0.7), draw(60, 6, seed=2, skill=0.4)
    speakers = sorted(set(a.clusters.tolist()))
    observed = reference(a)["macro_f1"] - reference(b)["macro_f1"]
    assert a.predicted is not None
    assert b.predicted is not None
    at_least = 0
    for swap in itertools.product([False, True], repeat=len(speakers)):
        swapped = np.isin(a.clusters.astype(str), [s for s, yes in zip(speakers, swap, strict=True) if yes])
        first = replace(a, predicted=np.where(swapped, b.predicted, a.predicted))
        second = replace(b, predicted=np.where(swapped, a.predicted, b.predicted))
        at_least += abs(reference(first)["macro_f1"] - reference(second)["macro_f1"]) >= abs(observed) - 1e-12
    exact = at_least / 2 ** len(speakers)
    drawn = compare(a.sums(), b.sums(), NAMES, 62).differences["macro_f1"].p  # 63 ways to swap some of six
    assert drawn == pytest.approx(exact, abs=0.15)
    for n_resamples in (63, 4000):
        assert compare(a.sums(), b.sums(), NAMES, n_resamples).differences["macro_f1"].p == pytest.approx(exact)


def test_equal_systems_are_called_different_as_rarely_as_the_level_says() -> None:
    p = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        speaker = np.arange(100) // 10
        labels = rng.integers(0, 3, 100)
        # Both systems are good with some speakers and bad with others, each in its own way.
        skill = rng.random((2, 10))[:, speaker]
        guesses = [np.where(rng.random(100) < s, labels, rng.integers(0, 3, 100)) for s in skill]
        nothing = np.empty((100, 0), np.float32)
        sums = [Scored(CLASSES, labels, guess, (), nothing, nothing, speaker).sums() for guess in guesses]
        p.append(compare(sums[0], sums[1], NAMES, 99, seed=trial).differences["macro_f1"].p)
    rejected = np.mean(np.array(p) <= 0.1)
    assert 0.03 < rejected < 0.18  # 0.1, give or take four standard errors
    assert 0.35 < np.median(p) < 0.65


def test_what_can_not_be_compared_or_resampled_is_refused() -> None:
    sums = draw().sums()
    with pytest.raises(ConfigError, match="not of the same utterances"):
        compare(sums, draw(n_speakers=5).sums(), NAMES, 10)
    with pytest.raises(ConfigError, match="not of the same utterances"):
        compare(sums, replace(draw(), means={}).sums(), NAMES, 10)
    with pytest.raises(ConfigError, match="1 resample or more"):
        compare(sums, sums, NAMES, 0)
    with pytest.raises(ConfigError, match="0 or more"):
        bootstrap(sums, -1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        bootstrap(sums, 10, level=95)
    with pytest.raises(ConfigError, match="nothing to resample"):
        replace(draw(), predicted=None, attributes=(), means={}).sums()


def test_attributes_alone_are_enough() -> None:
    sums = replace(draw(), predicted=None).sums()
    assert isinstance(sums, Sums)
    assert set(bootstrap(sums, 20)) == {"ccc_arousal", "ccc_valence", "mean_ccc", "cross_entropy"}


def test_a_ccc_of_one_rating_has_no_interval_though_its_speaker_is_drawn_twice() -> None:
    targets = np.array([[3.0], [np.nan], [np.nan]])
    no_labels = np.full(3, -1)
    scored = Scored((), no_labels, None, ("arousal",), targets, np.ones((3, 1)), np.array(["a", "b", "c"]))
    result = bootstrap(scored.sums(), 200)["ccc_arousal"]
    assert all(map(np.isnan, (result.value, result.low, result.high)))


def test_a_resample_without_an_attribute_has_no_mean_ccc_and_one_of_no_ratings_counts_in_none() -> None:
    scored = draw(n_speakers=12)
    targets = scored.targets.copy()
    targets[scored.clusters != "s3", 1] = np.nan
    sums = replace(scored, targets=targets).sums()
    drawn = sums.scores(resample(sums.values, 500, 0))
    lacking = np.isnan(drawn["ccc_valence"])
    assert 0.2 < lacking.mean() < 0.5
    np.testing.assert_array_equal(np.isnan(drawn["mean_ccc"]), lacking)
    mean = (drawn["ccc_arousal"] + drawn["ccc_valence"]) / 2
    np.testing.assert_allclose(drawn["mean_ccc"], mean, rtol=1e-12)
    targets[:, 1] = np.nan
    nowhere = replace(scored, targets=targets).sums()
    drawn = nowhere.scores(resample(nowhere.values, 50, 0))
    np.testing.assert_array_equal(drawn["mean_ccc"], drawn["ccc_arousal"])
