"""What a corpus asks of a model: soft class targets from votes, consensus labels, and attributes with gaps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ManifestError
from featurestore.manifest import Manifest
from featurestore.votes import plurality, soft_targets


@dataclass(frozen=True)
class Targets:
    """Targets of N utterances, in the manifest's order; everything is addressed by class and attribute name."""

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_ranges: tuple[tuple[float, float], ...]
    labels: NDArray[np.int64]  # (N,), -1 where there is no consensus
    soft: NDArray[
        np.float32
    ]  # (N, C): votes normalised to sum to one, else the label's one-hot; zeros where unlabelled
    attribute_values: NDArray[np.float32]  # (N, A) on each attribute's own scale, NaN where missing

    @staticmethod
    def from_manifest(manifest: Manifest) -> "Targets":
        """The targets of a manifest; without a label or vote column it is a ManifestError that says so."""
        scheme = manifest.scheme
        if not scheme.classes:
            raise ManifestError(
                f"{manifest.name} has neither a 'label' column nor vote_<class> columns, so there is nothing to learn. "
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
        return Targets(
            keys=tuple(manifest.keys),
            classes=tuple(scheme.classes),
            attributes=tuple(scheme.attributes),
            attribute_ranges=tuple(scheme.attributes.values()),
            labels=labels,
            soft=soft,
            attribute_values=manifest.attributes.astype(np.float32),
        )

    @staticmethod
    def unknown(
        keys: tuple[str, ...],
        classes: tuple[str, ...],
        attributes: tuple[str, ...],
        attribute_ranges: tuple[tuple[float, float], ...],
    ) -> "Targets":
        """Utterances that nothing is known of: no label, no votes, every attribute missing."""
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
        return (
            (self.soft.sum(1) > 0) | ~np.isnan(self.attribute_values).all(1)
            if self.attributes
            else self.soft.sum(1) > 0
        )
