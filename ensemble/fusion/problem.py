"""What an ensemble is about: members' posteriors, targets and speakers of the same utterances, in one order."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepser.members.scales import check_scales
from deepser.members.sources import check_all_sources
from deepser.training.targets import Targets
from ensemble.evaluation.align import ATTRIBUTE_PREFIX, Aligned, column_names, load_posteriors
from ensemble.evaluation.posteriors import group_names, shared_attributes, targets_of
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import group_folds
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore


@dataclass(frozen=True)
class Problem:
    """Everything of N utterances that fitting and scoring need; logits where something reads them.

    groups: (N,) who must not be on both sides of a division, the speaker where it is known.
    """

    posteriors: Aligned
    logits: Aligned | None
    targets: Targets
    groups: np.ndarray

    @property
    def members(self) -> tuple[str, ...]:
        return self.posteriors.members

    @property
    def n_classes(self) -> int:
        return len(self.targets.classes)

    @property
    def probabilities(self) -> np.ndarray:
        """(M, N, C) float32."""
        return self.posteriors.values[..., : self.n_classes]

    @property
    def attributes(self) -> np.ndarray:
        """(M, N, A) float32, on their own scales."""
        return self.posteriors.values[..., self.n_classes :]

    @property
    def has_labels(self) -> bool:
        return bool((self.targets.labels >= 0).any())

    def inputs(self, layer: str) -> Aligned:
        """Return members' "posteriors" or "logits"."""
        if layer == "posteriors":
            return self.posteriors
        if self.logits is None:
            raise ConfigError("This problem was loaded without the members' logits; load_problem(..., logits=True).")
        return self.logits

    def rows(self, index: np.ndarray) -> "Problem":
        """Return some utterances: (n,) int indices or an (N,) bool mask."""
        index = np.arange(len(self.groups))[index]
        t = self.targets
        targets = dataclasses.replace(
            t,
            keys=tuple(map(t.keys.__getitem__, index.tolist())),
            labels=t.labels[index],
            soft=t.soft[index],
            attribute_values=t.attribute_values[index],
        )
        logits = None if self.logits is None else self.logits.rows(index)
        return Problem(self.posteriors.rows(index), logits, targets, self.groups[index])

    @property
    def one_group(self) -> bool:
        """Whether all utterances are of one group, so that none can be held out from the others."""
        return len(set(self.groups.tolist())) == 1

    def parts(self, n: int) -> NDArray[np.int64]:
        """Return (N,) the part of each utterance, n parts at most, that share no group.

        Where all are of one group, utterances are dealt out one by one.
        """
        groups = self.targets.keys if self.one_group else [str(group) for group in self.groups]
        return group_folds(groups, max(min(n, len(set(groups))), 1), labels=self.targets.labels)

    def choose(self, which: Sequence[int]) -> "Problem":
        """Return some members, in the order given."""
        if list(which) == list(range(len(self.members))):
            return self
        logits = None if self.logits is None else self.logits.choose(which)
        return Problem(self.posteriors.choose(which), logits, self.targets, self.groups)


def load_problem(store: FeatureStore, manifest: Manifest, members: Sequence[str], logits: bool = False) -> Problem:
    """Return members' posteriors of every utterance of the manifest, with its targets.

    members: names of feature sets, such as "posteriors/m08". Attributes are those that the scheme and the first member
    share, and that somebody rated; members' classes are not read where the scheme has none. AlignmentError lists per
    member the utterances it lacks; ConfigError where a member has an attribute on another scale than the manifest.
    """
    shared = shared_attributes(store, manifest, members[0]) if members else ()
    attributes = tuple(name for name in shared if not np.isnan(manifest.column(f"attr_{name}")).all())
    for member in members:
        check_scales(manifest, store[member])
    columns = column_names(manifest.scheme.classes, attributes)
    unread = column_names(_unread(store, manifest, members), [name for name in shared if name not in attributes])
    posteriors = load_posteriors(store, members, manifest.keys, columns=columns, surplus=unread)
    check_all_sources(manifest, [store[member] for member in members])
    aligned = load_posteriors(store, members, manifest.keys, "logits", columns, surplus=unread) if logits else None
    return Problem(posteriors, aligned, targets_of(manifest, attributes), group_names(manifest))


def unread_classes(store: FeatureStore, manifest: Manifest, members: Sequence[str]) -> list[str]:
    """Return a note where members have classes and the manifest has none, so that attributes alone are fused."""
    classes = _unread(store, manifest, members)
    if not classes:
        return []
    return [
        f"{manifest.name} has no labels, so members' classes ({', '.join(classes)}) are left out: attributes alone."
    ]


def _unread(store: FeatureStore, manifest: Manifest, members: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that some of the members have, where the manifest has attributes alone."""
    if manifest.scheme.classes or not manifest.scheme.attributes:
        return ()
    columns = (name for member in members for name in store[member].spec.columns)
    return tuple(dict.fromkeys(name for name in columns if not name.startswith(ATTRIBUTE_PREFIX)))
