"""Which model of a member sees which utterance: given folds, speaker-disjoint folds, or one split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepser.config import TrainConfig
from deepser.training.data import Indices
from featurestore.corpus.cross_corpus import CrossCorpus
from featurestore.corpus.division import part_name
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import group_folds, speaker_groups
from featurestore.errors import ManifestError

THIN = 0.1  # of the labelled training clips: a balanced epoch of fewer learns from hardly any


@dataclass(frozen=True)
class FoldPlan:
    """Which model sees which utterance: fold f's model learns from every other fold and judges fold f.

    `folds` (N,): index into `names`, or -1 for an utterance no model learns from (development, test); those are judged
    by all models together. With one fold there is one model, which learns from all of it and judges the rest alone.
    """

    names: tuple[str, ...]
    folds: Indices
    rule: str  # how it came about; recorded with the posteriors

    @property
    def oof(self) -> str:
        """Posteriors of training utterances: "fold", from a model that never saw them, or "none" (there are none)."""
        return "fold" if len(self.names) > 1 else "none"

    def train_at(self, fold: int) -> Indices:
        if len(self.names) == 1:
            return np.flatnonzero(self.folds == 0)
        return np.flatnonzero((self.folds >= 0) & (self.folds != fold))

    def judged_at(self, fold: int) -> Indices:
        unseen = self.folds == -1
        return np.flatnonzero(unseen if len(self.names) == 1 else unseen | (self.folds == fold))


def plan_folds(
    manifest: Manifest,
    *,
    cv: str | None = None,
    n_folds: int = 1,
    seed: int = 0,
    corpora: CrossCorpus | None = None,
) -> FoldPlan:
    """Return the fold plan of a manifest.

    cv: a column whose values are the folds; every utterance is judged by a model that did not learn from it. An
    utterance may have no fold where its `split` is another than train: no model learns from it.
    Otherwise the `split` column counts: models learn from train, in `n_folds` speaker-disjoint folds, and judge the
    rest. corpora: those by which `CrossCorpus.divide` made that column; the posteriors record them.
    Raises ManifestError when the column is missing or empty somewhere, or names too few folds, and when there are fewer
    speakers than folds.
    """
    if not manifest.has(cv or "split"):
        manifest.check_labelled()  # of a folder of recordings that is the first thing to say
    if cv is not None:
        values = [None if v is None or v != v or v == "" else str(v) for v in manifest.column(cv).tolist()]
        outside = outside_folds(manifest, cv)
        missing = [i for i, v in enumerate(values) if v is None and not outside[i]]
        if missing:
            key = manifest.keys[missing[0]]
            raise ManifestError(f"Column {cv!r} is empty for {key!r}; every training utterance needs a fold.")
        names = tuple(sorted({v for v in values if v is not None}, key=lambda v: (len(v), v)))
        if len(names) < 2:
            raise ManifestError(f"Column {cv!r} holds {list(names)}; cross-validation needs two folds or more.")
        index = {name: i for i, name in enumerate(names)}
        return FoldPlan(names, np.array([-1 if v is None else index[v] for v in values], np.int64), f"cv:{cv}")
    if not manifest.has("split"):
        hint = (
            " It has a 'fold' column: use --cv fold." if manifest.has("fold") else " Or name a column of folds: --cv."
        )
        raise ManifestError(f"Manifest {manifest.name} has no 'split' column that says what to train on.{hint}")
    train = manifest.column("split") == "train"
    if not train.any():
        split_names = ", ".join(sorted({str(v) for v in manifest.column("split")}))
        raise ManifestError(f"No utterance of {manifest.name} has split 'train'; found {split_names}.")
    folds = np.full(len(manifest), -1, np.int64)
    if n_folds == 1:
        if train.all():
            raise ManifestError(
                f"Every utterance of {manifest.name} has split 'train', so nothing is left to judge a model on; "
                "cross-validate with --folds N or --cv COLUMN, or hold a part out: `medusa split --hold-out 0.1`."
            )
        folds[train] = 0
        return FoldPlan(("all",), folds, corpora.rule if corpora else "split")
    train_rows = np.flatnonzero(train)
    speakers = speaker_groups(manifest)[train_rows].tolist()
    if len(set(speakers)) < n_folds:
        raise ManifestError(
            f"Split train of {manifest.name} has {len(set(speakers))} speakers, too few for {n_folds} folds without "
            "one in two of them; make fewer folds."
        )
    folds[train_rows] = group_folds(speakers, n_folds, seed=seed)
    return FoldPlan(
        tuple(str(i + 1) for i in range(n_folds)),
        folds,
        f"{corpora.rule if corpora else 'split'}, {n_folds} speaker-disjoint folds",
    )


def outside_folds(manifest: Manifest, column: str) -> NDArray[np.bool_]:
    """Return (N,) which utterances have no fold and are in another split than train: no model learns from them."""
    folds = manifest.column(column).tolist()
    if not manifest.has("split"):
        return np.zeros(len(manifest), bool)
    splits = manifest.column("split").tolist()
    return np.array([not part_name(f) and s not in (None, "train") for f, s in zip(folds, splits, strict=True)], bool)


def thin_draws(train: TrainConfig, labels: Indices, classes: Sequence[str], plan: FoldPlan) -> list[str]:
    """Return a sentence for each stage whose balanced draws leave out nearly all of the training part of some fold.

    labels: (N,), -1 where there is none. A class with a clip or two makes every other class as rare.
    """
    parts = [labels[plan.train_at(fold)] for fold in range(len(plan.names))]
    counts = [np.bincount(part[part >= 0], minlength=len(classes)) for part in parts]
    rarest = [int(n[n > 0].min(initial=n.max(initial=0))) for n in counts]
    drawn = [least * int((n > 0).sum()) for least, n in zip(rarest, counts, strict=True)]
    thin = [f for f, n in enumerate(counts) if drawn[f] < THIN * n.sum()]
    if not thin:
        return []
    fold = min(thin, key=lambda f: drawn[f] / counts[f].sum())
    rare = ", ".join(name for name, n in zip(classes, counts[fold], strict=True) if n == rarest[fold])
    where = f"in {len(thin)} of {len(counts)} folds" if len(counts) > 1 else "here"
    return [
        f"{stage.name} draws as many clips of each class as the rarest has: less than a tenth {where}, as few as "
        f"{drawn[fold]:,} of {int(counts[fold].sum()):,} labelled clips an epoch, since {rare} has {rarest[fold]:,}. "
        "Merge or leave out such a class, or choose another sampler "
        f"(--set train.stages.{i}.sampler=inverse-frequency)."
        for i, stage in enumerate(train.stages)
        if stage.sampler == "balanced" and not stage.samples_per_epoch
    ]
