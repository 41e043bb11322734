"""Scores of parts of the speakers side by side - women and men, one speaker and another - and the gap between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepser.scores.counts import MIN_PAIRS
from ensemble.evaluation.bootstrap import LEVEL, Interval, Scored, intervals, resample
from featurestore.errors import ConfigError
from featurestore.runtime.jsonable import json_fields

GROUP_SCORES = ("macro_f1", "accuracy", "uar", "mean_ccc")
# A speaker shows few of the classes, and macro-F1 over absent classes does not describe the speaker.
SPEAKER_SCORES = ("accuracy", "uar", "mean_ccc")
MIN_UTTERANCES = 10  # of a speaker that counts in the gap: the score of fewer is mostly chance
QUANTILES = (0.1, 0.9)
PRESENT = "macro_f1_present"
_SPEAKERS = 13  # separates the random streams that share a seed


@dataclass(frozen=True)
class GroupRow:
    """One group: its utterances, its speakers and its scores; a single speaker's have no interval (NaN ends)."""

    name: str
    n: int
    n_clusters: int
    scores: dict[str, Interval]


@dataclass(frozen=True)
class Gap:
    """How far apart groups are in one score: the upper less the lower of the two that are named."""

    upper: str
    lower: str
    interval: Interval


@dataclass(frozen=True)
class GroupTable:
    """Scores by the values of one manifest column, and the gap in each score.

    n_without: utterances without a value there, which are in no group; n_small: speakers with too few utterances to
    count in the gap. left_out: classes that not every group has, whose utterances take no part.
    left_out_attributes: those that not every group with ratings has, which are in no mean CCC.
    """

    column: str
    rows: tuple[GroupRow, ...]
    gaps: dict[str, Gap]
    n_without: int
    n_small: int = 0
    left_out: tuple[str, ...] = ()
    left_out_attributes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        values = json_fields(self)
        return values


def by_group(
    scored: Scored, names: np.ndarray, column: str, n_resamples: int = 1000, *, seed: int = 0, level: float = LEVEL
) -> GroupTable:
    """Return the scores of each group with intervals by speaker, and the gap between the best and the worst group.

    Class scores are of the utterances of those classes that every group has: macro-F1 of a group in which a class does
    not occur is not comparable with that of one in which it does.
    names (N,): each utterance's group, None without one. The speakers of a group are resampled within it, so the gap's
    interval is that of a difference of two independent samples; one group alone has no gap. With more than two groups
    the best and worst are those of the data as they are: their gap is the larger for having been picked.
    """
    group_names = _values(column, names)
    scored, left_out = _on_common_classes(scored, names, group_names)
    scored, left_out_attributes = _on_common_attributes(scored, names, group_names)
    rows, scores_of_group, drawn, n_speakers = [], {}, {}, {}
    for stream, group in enumerate(group_names):
        sums = scored.rows(names == group).sums().counting()
        scores_of_group[group] = _only(GROUP_SCORES, sums.scores())
        drawn[group] = _only(GROUP_SCORES, sums.scores(resample(sums.values, n_resamples, seed, stream)))
        n_speakers[group] = sums.clusters_of()
        scores = intervals(scores_of_group[group], drawn[group], n_speakers[group], level)
        rows.append(GroupRow(group, int((names == group).sum()), len(sums.values), scores))
    gaps = {}
    for score in scores_of_group[group_names[0]]:
        scored_groups = [group for group in group_names if not np.isnan(scores_of_group[group][score])]
        if len(scored_groups) < 2:
            continue
        upper, lower = (
            pick(scored_groups, key=lambda group: scores_of_group[group][score]) for pick in (max, _last_min)
        )
        differences = {score: scores_of_group[upper][score] - scores_of_group[lower][score]}
        resampled = {score: drawn[upper][score] - drawn[lower][score]}
        fewest = min(n_speakers[upper][score], n_speakers[lower][score])
        gaps[score] = Gap(upper, lower, intervals(differences, resampled, fewest, level)[score])
    n_without = int(sum(name is None for name in names))
    return GroupTable(column, tuple(rows), gaps, n_without, left_out=left_out, left_out_attributes=left_out_attributes)


def _on_common_classes(scored: Scored, names: np.ndarray, group_names: list[str]) -> tuple[Scored, tuple[str, ...]]:
    """Return the same without the labels of classes that some group lacks, and these classes that others have."""
    if scored.predicted is None:
        return scored, ()
    labels = [set(scored.labels[names == group].tolist()) - {-1} for group in group_names]
    common, anywhere = set.intersection(*labels), set.union(*labels)
    left_out = tuple(scored.classes[c] for c in sorted(anywhere - common))
    shared_labels = np.where(np.isin(scored.labels, sorted(common)), scored.labels, -1)
    return replace(scored, labels=shared_labels), left_out


def _on_common_attributes(scored: Scored, names: np.ndarray, group_names: list[str]) -> tuple[Scored, tuple[str, ...]]:
    """Return the same with the attributes that have a CCC in each group that has one, and the others' names."""
    rated = np.array([(~np.isnan(scored.targets[names == group])).sum(0) >= MIN_PAIRS for group in group_names])
    rated = rated.reshape(len(group_names), len(scored.attributes))
    somewhere, everywhere = np.any(rated, 0), np.all(rated[np.any(rated, 1)], 0)
    left_out = tuple(scored.attributes[a] for a in np.flatnonzero(somewhere & ~everywhere))
    if not left_out:
        return scored, ()
    kept = np.flatnonzero(everywhere & somewhere)
    if not len(kept) and scored.predicted is None:  # there is nothing else, so that no group has a score
        return replace(scored, targets=np.full_like(scored.targets, np.nan)), left_out
    attributes = tuple(scored.attributes[a] for a in kept)
    targets, values = scored.targets[:, kept], scored.values[:, kept]
    return replace(scored, attributes=attributes, targets=targets, values=values), left_out


def by_speaker(
    scored: Scored, names: np.ndarray, n_resamples: int = 1000, *, seed: int = 0, level: float = LEVEL
) -> GroupTable:
    """Return the scores of each speaker, the worst accuracy (else CCC) first, and the gap between speakers.

    names (N,): the speaker of each utterance, None where unknown. The gap is from the 10th to the 90th percentile of
    the speakers with MIN_UTTERANCES or more, its interval from resampling them: the single best and worst of many
    speakers would mostly show who has the fewest utterances. Chance widens it too; compare it between systems. The mean
    CCC of a speaker who lacks an attribute that others have is NaN.
    """
    speaker_names = _values("speaker", names)
    has_speaker = np.array([name is not None for name in names])
    rows = scored.rows(has_speaker)
    of_speakers = Scored(
        rows.classes,
        rows.labels,
        rows.predicted,
        rows.attributes,
        rows.targets,
        rows.values,
        names[has_speaker].astype(str),
    )
    sums = of_speakers.sums()  # a row per speaker, in the order of `speaker_names`
    counts = dict(zip(*np.unique(names[has_speaker].astype(str), return_counts=True), strict=True))
    n = np.array([counts[name] for name in speaker_names])
    all_scores = sums.scores(sums.values)
    concordances = [all_scores[f"ccc_{name}"] for name in sums.attributes]
    defined = [values for values in concordances if not np.isnan(values).all()]
    if defined:  # an attribute that no speaker has a CCC of makes none undefined
        all_scores["mean_ccc"] = np.mean(defined, 0)
    scores = _only(SPEAKER_SCORES, all_scores)
    first = next(iter(scores))
    order = sorted(range(len(speaker_names)), key=lambda i: (np.isnan(scores[first][i]), scores[first][i]))
    table = [
        GroupRow(speaker_names[i], int(n[i]), 1, {s: Interval(float(v[i]), np.nan, np.nan) for s, v in scores.items()})
        for i in order
    ]
    large = n >= MIN_UTTERANCES
    gaps = {}
    low, high = (f"{100 * q:g}th percentile" for q in QUANTILES)
    for score, values in scores.items():
        counted = values[large & ~np.isnan(values)]
        if len(counted) > 1:
            drawn = np.random.default_rng((_SPEAKERS, seed)).integers(0, len(counted), (n_resamples, len(counted)))
            resampled = {score: _spread(counted[drawn])}
            spread = intervals({score: _spread(counted[None])[0]}, resampled, len(counted), level)
            gaps[score] = Gap(high, low, spread[score])
    return GroupTable("speaker", tuple(table), gaps, int((~has_speaker).sum()), int((~large).sum()))


def _spread(values: np.ndarray) -> np.ndarray:
    """Return (B,) upper less lower percentile of each row of (B, G)."""
    low, high = np.quantile(values, QUANTILES, axis=1)
    difference: np.ndarray = high - low
    return difference


def _last_min(names: list[str], key: Any) -> str:
    """Return the last of the smallest, so that among equals the upper and the lower are not the same group."""
    return min(reversed(names), key=key)


def _values(column: str, names: np.ndarray) -> list[str]:
    values = sorted({str(name) for name in names.tolist() if name is not None})
    if not values:
        raise ConfigError(f"Column {column!r} is empty, so there are no groups to set side by side; choose another.")
    return values


def _only(names: tuple[str, ...], scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the scores by these names.

    Macro-F1 is that of the classes that occur, since groups are compared on such.
    """
    return {name: scores[PRESENT if name == "macro_f1" else name] for name in names if name in scores}
