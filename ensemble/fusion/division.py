"""Which utterances an ensemble is fitted on and which it is scored on, so that none is on both sides.

What remains in cross-fitted stacking: the posteriors of fold j come from a member that was trained on fold k, so a
meta-classifier fitted on fold j, to predict fold k, has met fold k's labels through that member. A linear map with few
weights can make little of it, but it is not nothing: only members trained anew inside each outer fold, or a test part
that no member was trained on, are free of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepser.members.folds import outside_folds
from ensemble.evaluation.align import OUT_OF_FOLD, out_of_fold
from ensemble.evaluation.posteriors import fold_names, group_names, posteriors_name
from featurestore.corpus.division import PartRecord
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import group_folds, label_names
from featurestore.errors import ConfigError, ManifestError
from featurestore.store.feature_store import FeatureStore

ALL_FOLDS = "all folds"
N_INNER_FOLDS = 5  # over which an ensemble fitted on development is cross-fitted to be scored there


@dataclass(frozen=True)
class Pass:
    """One fit: the rows (int64 indices) it learns and selects from, and by part those that it then judges."""

    name: str
    fit: np.ndarray
    judge: dict[str, np.ndarray]


@dataclass(frozen=True)
class Division:
    """The passes over `manifest`'s rows; the last one's fit is the ensemble's own, the others judge what it can't.

    folds: (N,) names of folds over which scores are spread, None for utterances outside them; None for splits. column:
    of the folds, or "split".
    in_sample: members whose posteriors may come from models that saw these utterances.
    """

    manifest: Manifest
    passes: tuple[Pass, ...]
    folds: np.ndarray | None
    column: str
    fitted_on: str
    in_sample: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are judged, in their order."""
        return tuple(dict.fromkeys(part for each in self.passes for part in each.judge))

    @property
    def n_fitted(self) -> int:
        """Utterances that the ensemble's own fit learns from."""
        return len(self.passes[-1].fit)

    def rows(self, part: str) -> np.ndarray:
        """Return (n,) the rows of a part, ascending."""
        return np.sort(np.concatenate([each.judge[part] for each in self.passes if part in each.judge]))

    def record(self, name: str) -> PartRecord:
        """Return what the predictions of all parts are made on: the pass that judges each row, "" for none."""
        learned = {int(i) for each in self.passes for i in each.fit}
        labels = label_names(self.manifest) or [None] * len(self.manifest)
        judged = {int(i): each.name for each in self.passes for rows in each.judge.values() for i in rows}
        keys, parts = [self.manifest.keys[i] for i in judged], [p if i in learned else "" for i, p in judged.items()]
        return PartRecord(keys, parts, [labels[i] for i in judged], name)

    def folds_of(self, part: str) -> np.ndarray | None:
        """Return (n,) the folds of a part's rows, None where they have none."""
        rows = self.rows(part)
        return None if self.folds is None or None in self.folds[rows] else self.folds[rows]


def members_of(store: FeatureStore, members: Sequence[str]) -> tuple[str, ...]:
    """Feature sets of members given with or without "posteriors/"; ConfigError for none."""
    chosen = tuple(posteriors_name(store, member) for member in members)
    if not chosen:
        raise ConfigError("An ensemble needs at least one member; name the members' posteriors.")
    return chosen


def divide(
    store: FeatureStore, manifest: Manifest, members: Sequence[str], folds: str | None = None, in_sample: bool = False
) -> Division:
    """Return the passes for a fold column, or (None) for the "split" column, or for "fold" where there is no split.

    With folds, each is judged by a fit on the other folds, and the ensemble's own fit is on all; it judges the splits
    that are outside the folds (`outside_folds`). With splits, the fit
    is on train where every member has out-of-fold posteriors of it, else on development, which is then judged by
    cross-fitting (5 speaker-disjoint parts); every part but train is judged. Posteriors that a member made of its own
    training utterances are refused (ConfigError) unless in_sample is set, which is recorded.
    """
    if folds is None and not manifest.has("split"):
        if not manifest.has("fold"):
            raise ManifestError(
                f"Manifest {manifest.name} has neither a 'split' nor a 'fold' column; name a fold column."
            )
        folds = "fold"
    if folds is not None:
        return _by_fold(store, manifest, members, folds, in_sample)
    return _by_split(store, manifest, members, in_sample)


def _by_fold(store: FeatureStore, manifest: Manifest, members: Sequence[str], column: str, in_sample: bool) -> Division:
    outside = outside_folds(manifest, column)
    if outside.all():
        outside[:] = False
    learned = np.flatnonzero(~outside)
    folds = np.full(len(manifest), None, dtype=object)
    folds[learned] = fold_names(manifest.rows(learned) if outside.any() else manifest, column)
    inside = _in_sample_members(store, members, in_sample)
    passes = [
        Pass(f"fold {fold}", learned[folds[learned] != fold], {ALL_FOLDS: np.flatnonzero(folds == fold)})
        for fold in sorted(set(folds[learned]))
    ]
    splits = manifest.column("split") if outside.any() else folds
    rest = {split: np.flatnonzero(outside & (splits == split)) for split in dict.fromkeys(splits[outside].tolist())}
    return Division(
        manifest=manifest,
        passes=(*passes, Pass(ALL_FOLDS, learned, rest)),
        folds=folds,
        column=column,
        fitted_on=f"the other folds of column {column!r}",
        in_sample=inside,
        notes=tuple(_in_sample_note(inside)),
    )


def _by_split(store: FeatureStore, manifest: Manifest, members: Sequence[str], in_sample: bool) -> Division:
    split = manifest.column("split")
    split_names = sorted({part for part in split if part is not None})
    folds_of_members = [out_of_fold(store[member].spec) for member in members]
    full = all(how == "fold" or (in_sample and how not in OUT_OF_FOLD) for how in folds_of_members)
    on_train = "train" in split_names and full
    inside = _in_sample_members(store, members, in_sample)
    fit_part = "train" if on_train else "development"
    if fit_part not in split_names:
        raise ManifestError(
            f"Manifest {manifest.name} has no split 'development', and not every member has out-of-fold posteriors "
            f"of 'train', so there is nothing to fit on (splits: {', '.join(split_names)}). "
            "Fit members over folds of train: fit-deepser --folds N (such as 5)."
        )
    used = [part for part in split_names if part != "train" or on_train]
    rows = np.array([part in used for part in split])
    manifest, parts = manifest.rows(rows), split[rows]
    rows_of = {part: np.flatnonzero(parts == part) for part in used}
    passes = []
    if fit_part == "development":
        fit_rows = rows_of[fit_part]
        inner = _inner_folds(manifest, fit_rows)
        passes = [
            Pass(f"development {fold + 1}", fit_rows[inner != fold], {fit_part: fit_rows[inner == fold]})
            for fold in range(inner.max() + 1)
        ]
    judged = {part: index for part, index in rows_of.items() if part not in ("train", fit_part)}
    notes = [
        "Not every member has out-of-fold posteriors of train, so the ensemble is fitted on development; "
        "its scores there are cross-fitted over speaker-disjoint parts."
    ]
    return Division(
        manifest=manifest,
        passes=(*passes, Pass(fit_part, rows_of[fit_part], judged)),
        folds=None,
        column="split",
        fitted_on=fit_part,
        in_sample=inside,
        notes=(*([] if on_train else notes), *_in_sample_note(inside)),
    )


def _inner_folds(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """Return (n,) speaker-disjoint parts of some rows, or parts by utterance where all are of one speaker."""
    groups = group_names(manifest)[rows].tolist()
    if len(set(groups)) == 1:
        groups = [manifest.keys[i] for i in rows]
    return group_folds(groups, min(N_INNER_FOLDS, len(set(groups))))


def _in_sample_members(store: FeatureStore, members: Sequence[str], in_sample: bool) -> tuple[str, ...]:
    """Return members whose posteriors may come from models that saw these utterances; refused unless asked for."""
    inside = tuple(member for member in members if out_of_fold(store[member].spec) not in OUT_OF_FOLD)
    if inside and not in_sample:
        raise ConfigError(
            f"The posteriors of {', '.join(inside)} are not recorded as out of fold: they may come from a model that "
            "learned from these very utterances, and an ensemble would learn to trust that confidence. Fit the "
            "members over folds, or ask for in-sample posteriors by name."
        )
    return inside


def _in_sample_note(inside: Sequence[str]) -> list[str]:
    return [f"In-sample posteriors were used, as asked for: {', '.join(inside)}."] if inside else []
