"""What a corpus asks of a model: soft class targets from votes, consensus labels, and attributes with gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurestore.corpus.manifest import Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.votes import are_counts, augmented_targets, plurality, secondary_weights, soft_targets
from featurestore.errors import ManifestError


@dataclass(frozen=True)
class Targets:
    """Targets of N utterances, in the manifest's order; everything is addressed by class and attribute name."""

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_ranges: tuple[tuple[float, float], ...]
    labels: NDArray[np.int64]  # (N,), -1 where there is no consensus
    # (N, C): votes normalised to sum to one, else the label's one-hot; zeros where unlabelled
    soft: NDArray[np.float32]
    attribute_values: NDArray[np.float32]  # (N, A) on each attribute's own scale, NaN where missing
    ratings: Ratings | None = None  # of the N utterances, labels as class names; read where annotators are dropped
    also: NDArray[np.float64] | None = None  # (N,) what a secondary label of these ratings weighs in the votes

    @staticmethod
    def from_manifest(manifest: Manifest, *, ratings: bool = False) -> "Targets":
        """Return the targets of a manifest; without a label or vote column it is a ManifestError that says so.

        ratings: each annotator's ratings too; a ManifestError where there are neither ratings nor whole vote counts.
        """
        scheme = manifest.scheme
        manifest.check_labelled()
        if not scheme.classes:
            raise ManifestError(
                f"{manifest.name} has neither a 'label' column nor vote_<class> columns, so no class to learn. "
                "Name the label column with `medusa prepare csv --column label=YOURS`."
            )
        index = {name: i for i, name in enumerate(scheme.classes)}
        votes = manifest.votes
        names = manifest.labels if manifest.has("label") else [None] * len(manifest)
        labels = np.array([-1 if name is None else index[name] for name in names], np.int64)
        if votes is None:
            soft = np.zeros((len(manifest), len(index)), np.float32)
        else:
            soft = soft_targets(votes)
            if not manifest.has("label"):
                labels = plurality(votes)
        unvoted = np.flatnonzero((soft.sum(1) == 0) & (labels >= 0))
        soft[unvoted, labels[unvoted]] = 1.0
        dropped = _ratings(manifest) if ratings else None
        also = None if dropped is None or votes is None else secondary_weights(dropped, scheme.classes, votes)
        return Targets(
            keys=tuple(manifest.keys),
            classes=tuple(scheme.classes),
            attributes=tuple(scheme.attributes),
            attribute_ranges=tuple(scheme.attributes.values()),
            labels=labels,
            soft=soft,
            attribute_values=manifest.attributes.astype(np.float32),
            ratings=dropped,
            also=also,
        )

    def without_attributes(self) -> "Targets":
        """Return the classes alone."""
        none = np.zeros((len(self.keys), 0), np.float32)
        return replace(self, attributes=(), attribute_ranges=(), attribute_values=none)

    def rated(self, parts: Sequence[NDArray[np.int64]]) -> "Targets":
        """Return the same with those attributes alone that somebody rated in each of the parts, (n,) indices."""
        is_rated = [~np.isnan(self.attribute_values[part]).all(0) for part in parts]
        rated = np.flatnonzero(np.logical_and.reduce(is_rated))
        if len(rated) == len(self.attributes):
            return self
        return replace(
            self,
            attributes=tuple(self.attributes[a] for a in rated),
            attribute_ranges=tuple(self.attribute_ranges[a] for a in rated),
            attribute_values=self.attribute_values[:, rated],
        )

    @staticmethod
    def unknown(
        keys: tuple[str, ...],
        classes: tuple[str, ...],
        attributes: tuple[str, ...],
        attribute_ranges: tuple[tuple[float, float], ...],
    ) -> "Targets":
        """Return targets without any information: no label, no votes, every attribute missing."""
        labels = np.full(len(keys), -1, np.int64)
        soft = np.zeros((len(keys), len(classes)), np.float32)
        values = np.full((len(keys), len(attributes)), np.nan, np.float32)
        return Targets(keys, classes, attributes, attribute_ranges, labels, soft, values)

    @property
    def one_hot(self) -> NDArray[np.float32]:
        """(N, C): the consensus label alone; zeros where there is none."""
        return np.eye(len(self.classes) + 1, len(self.classes), dtype=np.float32)[self.labels]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,): utterances with a class target or a known attribute, thus of use in training."""
        usable: NDArray[np.bool_] = self.soft.sum(1) > 0
        if self.attributes:
            usable |= ~np.isnan(self.attribute_values).all(1)
        return usable

    def of_epoch(
        self, kind: str, *, smoothing: float = 0.0, seed: int = 0, epoch: int = 0, drop_share: float = 0.2
    ) -> NDArray[np.float32]:
        """Return (N, C) class targets of an epoch: "soft", "one-hot", or "vote-dropping", which seed and epoch fix.

        Vote-dropping leaves out each annotator of an utterance with probability `drop_share`, never all of them
        (SAIL's label augmentation); utterances that nobody rated keep their soft targets. smoothing: the share of every
        target that is spread over all classes.
        """
        target = self.one_hot if kind == "one-hot" else self.soft
        if kind == "vote-dropping":
            if self.ratings is None:
                raise ManifestError("Targets from dropped votes need the ratings: read them with ratings=True.")
            remaining = augmented_targets(
                self.ratings, self.classes, seed=seed, epoch=epoch, share=drop_share,
                also=0.0 if self.also is None else self.also,
            )  # fmt: skip
            target = np.where(remaining.any(1, keepdims=True), remaining, target)
        total = target.sum(1, keepdims=True)
        smoothed: NDArray[np.float32] = (1 - smoothing) * target + smoothing * total / target.shape[1]
        return smoothed


def _ratings(manifest: Manifest) -> Ratings:
    if manifest.ratings is not None:
        return manifest.ratings.renamed(manifest.scheme.corpus_labels)
    if manifest.votes is None:
        raise ManifestError(
            f"{manifest.name} has neither ratings nor vote_<class> columns, so no votes can be dropped; use --targets "
            "soft or one-hot."
        )
    ratings = Ratings.from_counts(manifest.keys, manifest.scheme.classes, manifest.votes)
    if not are_counts(manifest.votes):
        raise ManifestError(
            f"{manifest.name} has shares of votes in its vote_<class> columns, 100 in every row, and not numbers of "
            "annotators, so none can be dropped; use --targets soft or one-hot, or keep the raw votes."
        )
    return ratings
