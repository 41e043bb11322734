"""A group's scores are those of its utterances alone, and the gap is between the groups that are named."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from deepser.scores.metrics import ccc, classification
from ensemble.evaluation.bootstrap import Scored, bootstrap
from ensemble.evaluation.groups import MIN_UTTERANCES, by_group, by_speaker
from ensemble.evaluation.report import _groups
from featurestore.errors import ConfigError

CLASSES = ("angry", "sad", "happy")


def draw(skill: np.ndarray, n_each: int = 40, seed: int = 0) -> tuple[Scored, np.ndarray]:
    """Speakers of n_each utterances whose classes are predicted with the given skill; and each one's speaker."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(len(skill)), n_each)
    labels = rng.integers(0, 3, len(speaker))
    predicted = np.where(rng.random(len(speaker)) < skill[speaker], labels, (labels + 1) % 3)
    target = rng.normal(4, 1, (len(speaker), 1))
    value = target + rng.normal(size=target.shape) * (2 - skill[speaker, None])
    names = np.array([f"{s:02d}" for s in speaker], dtype=object)
    return Scored(CLASSES, labels, predicted, ("arousal",), target, value, names), names


def test_each_row_is_the_groups_own_score_with_its_own_interval() -> None:
    scored, speaker = draw(np.tile([0.9, 0.5], 15))
    gender = np.array([("female", "male")[int(s) % 2] for s in speaker], dtype=object)
    gender[:40] = None
    table = by_group(scored, gender, "gender", 300)
    assert [(row.name, row.n, row.n_clusters) for row in table.rows] == [("female", 560, 14), ("male", 600, 15)]
    assert table.n_without == 40
    assert scored.predicted is not None
    for row in table.rows:
        in_group = gender == row.name
        expected = classification(scored.predicted[in_group], scored.labels[in_group], CLASSES)
        assert row.scores["macro_f1"].value == pytest.approx(expected.macro_f1)
        assert row.scores["uar"].low < expected.uar < row.scores["uar"].high
    first = bootstrap(scored.rows(gender == "female").sums(), 300)
    assert table.rows[0].scores["accuracy"] == first["accuracy"]
    gap = table.gaps["accuracy"]
    assert (gap.upper, gap.lower) == ("female", "male")
    assert gap.interval.value == pytest.approx(
        table.rows[0].scores["accuracy"].value - table.rows[1].scores["accuracy"].value
    )
    assert 0.3 < gap.interval.low < gap.interval.high < 0.5
    json.dumps(table.to_dict(), allow_nan=False)


def test_groups_that_do_not_differ_have_a_gap_around_none() -> None:
    scored, speaker = draw(np.full(40, 0.7), seed=3)
    gender = np.array([("female", "male")[int(s) % 2] for s in speaker], dtype=object)
    gap = by_group(scored, gender, "gender", 400).gaps["uar"]
    assert gap.interval.low < 0 < gap.interval.high
    assert gap.interval.value >= 0
    # Two independent samples: the interval is that of a difference, not twice the same draw.
    assert gap.interval.high - gap.interval.low > 0.02


def test_of_several_groups_the_best_and_the_worst_are_named() -> None:
    scored, speaker = draw(np.repeat([0.9, 0.4, 0.6], 5))
    group = np.array(["xyz"[int(s) // 5] for s in speaker], dtype=object)
    gap = by_group(scored, group, "accent", 50).gaps["mean_ccc"]
    assert (gap.upper, gap.lower) == ("x", "y")


def test_equal_groups_are_two_and_one_group_has_no_gap() -> None:
    scored, speaker = draw(np.full(6, 1.0))
    half = np.array(["left" if int(s) < 3 else "right" for s in speaker], dtype=object)
    gap = by_group(scored, half, "side", 20).gaps["accuracy"]
    assert {gap.upper, gap.lower} == {"left", "right"}
    assert gap.interval.value == 0
    one_group = by_group(scored, np.full(len(speaker), "left", dtype=object), "side", 20)
    assert one_group.gaps == {}
    assert len(one_group.rows) == 1
    with pytest.raises(ConfigError, match="'side' is empty"):
        by_group(scored, np.full(len(speaker), None, dtype=object), "side")


def test_speakers_come_worst_first_and_their_gap_is_between_percentiles() -> None:
    skill = np.linspace(0.1, 0.95, 40)
    scored, speaker = draw(skill, 200)
    names = speaker.copy()
    names[:5] = None
    table = by_speaker(scored, names, 500)
    accuracy = [row.scores["accuracy"].value for row in table.rows]
    assert accuracy == sorted(accuracy)
    assert len(table.rows) == 40
    assert table.n_without == 5
    assert scored.predicted is not None
    correct = scored.predicted == scored.labels
    accuracies = {name: correct[names == name].mean() for name in set(speaker.tolist())}
    assert {row.name: row.scores["accuracy"].value for row in table.rows} == pytest.approx(accuracies)
    gap = table.gaps["accuracy"]
    low, high = np.quantile(list(accuracies.values()), [0.1, 0.9])
    assert gap.interval.value == pytest.approx(high - low)
    assert gap.interval.low < high - low < gap.interval.high
    assert (gap.upper, gap.lower) == ("90th percentile", "10th percentile")
    assert math.isnan(table.rows[0].scores["uar"].low)
    json.dumps(table.to_dict(), allow_nan=False)


def test_a_speaker_of_few_utterances_is_listed_and_not_in_the_gap() -> None:
    scored, speaker = draw(np.full(12, 0.8), 30)
    few = speaker == "03"
    few[np.flatnonzero(few)[: MIN_UTTERANCES - 1]] = False
    frequent = scored.rows(~few)
    table = by_speaker(frequent, speaker[~few], 50)
    assert table.n_small == 1
    assert next(row for row in table.rows if row.name == "03").n == MIN_UTTERANCES - 1
    others = by_speaker(scored.rows(speaker != "03"), speaker[speaker != "03"], 50)
    assert table.gaps["accuracy"].interval == others.gaps["accuracy"].interval


def test_groups_are_compared_on_the_classes_that_all_have_and_the_others_are_named() -> None:
    scored, speaker = draw(np.full(40, 0.7), seed=3)
    gender = np.array([("female", "male")[int(s) % 2] for s in speaker], dtype=object)
    present = ~((gender == "male") & (scored.labels == 2))  # no man is happy
    scored, gender = scored.rows(present), gender[present]
    table = by_group(scored, gender, "gender", 200)
    assert table.left_out == ("happy",)
    assert scored.predicted is not None
    for row in table.rows:
        in_group = (gender == row.name) & (scored.labels < 2)
        expected = classification(scored.predicted[in_group], scored.labels[in_group], CLASSES)
        assert row.scores["macro_f1"].value == pytest.approx(expected.macro_f1_present)
        assert row.scores["uar"].value == pytest.approx(expected.uar)
    assert table.gaps["macro_f1"].interval.value < 0.1
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False))["left_out"] == ["happy"]


def rated_by(gender: np.ndarray, rated: dict[str, str], *, classes: bool = True) -> Scored:
    """Return utterances with two attributes, each of them rated for the genders named alone."""
    scored, speaker = draw(np.tile([0.9, 0.5], 15))
    rng = np.random.default_rng(5)
    targets = rng.normal(4, 1, (len(speaker), 2))
    values = targets + rng.normal(size=targets.shape) * [0.2, 2.0]
    for a, name in enumerate(("arousal", "valence")):
        targets[~np.isin(gender, rated[name].split()), a] = np.nan
    return replace(
        scored, predicted=scored.predicted if classes else None, attributes=("arousal", "valence"), targets=targets,
        values=values,
    )  # fmt: skip


def test_groups_are_compared_on_the_attributes_that_all_have_and_the_others_are_named() -> None:
    _, speaker = draw(np.tile([0.9, 0.5], 15))
    gender = np.array([("female", "male")[int(s) % 2] for s in speaker], dtype=object)
    scored = rated_by(gender, {"arousal": "female male", "valence": "male"})
    table = by_group(scored, gender, "gender", 100)
    assert table.left_out_attributes == ("valence",)
    for row in table.rows:
        expected = ccc(scored.values[gender == row.name, 0], scored.targets[gender == row.name, 0])
        assert row.scores["mean_ccc"].value == pytest.approx(expected)
    assert abs(table.gaps["mean_ccc"].interval.value) < 0.1
    text = "".join(str(part) for part in _groups(table))
    assert "not every gender with ratings has valence" in text
    apart = rated_by(gender, {"arousal": "female", "valence": "male"}, classes=False)
    table = by_group(apart, gender, "gender", 100)
    assert table.left_out_attributes == ("arousal", "valence")
    assert all(math.isnan(row.scores["mean_ccc"].value) for row in table.rows)
    assert table.gaps == {}
    rated = by_group(rated_by(gender, {"arousal": "male", "valence": "male"}), gender, "gender", 100)
    assert rated.left_out_attributes == ()  # the other group has no rating at all


def test_a_speaker_without_an_attribute_has_no_mean_ccc_beside_those_with_it() -> None:
    _, speaker = draw(np.tile([0.9, 0.5], 15))
    gender = np.array([("female", "male")[int(s) % 2] for s in speaker], dtype=object)
    scored = rated_by(gender, {"arousal": "female male", "valence": "male"})
    by_name = {row.name: row.scores["mean_ccc"].value for row in by_speaker(scored, speaker, 50).rows}
    assert all(math.isnan(value) == (int(name) % 2 == 0) for name, value in by_name.items())
    own = speaker == "01"
    values = [ccc(scored.values[own, a], scored.targets[own, a]) for a in range(2)]
    assert by_name["01"] == pytest.approx(np.mean(values))
