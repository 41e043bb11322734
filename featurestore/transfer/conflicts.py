"""What two stores hold under one feature set's name: an id made from different data, and what the target alone has."""

from collections.abc import Collection

import numpy as np

from featurestore.errors import StoreError
from featurestore.sets.conflicts import differing
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.snapshot import Snapshot


def check_no_conflict(source: FeatureSet, target: FeatureSet, target_name: str, has_prune: bool) -> None:
    """Raise StoreError where both sets have an utterance, made from other data: which one counted would be by chance.

    Data are compared as in `sets.conflicts`. target_name: of the store, in the message. has_prune: whether the command
    can remove what the source no longer has.
    """
    key, n = source.reading(lambda ours: target.reading(lambda theirs: _first_different(ours, theirs)))
    if n:
        prune = "--prune removes the segments there that hold these, with what else is in them. " if has_prune else ""
        raise StoreError(
            f"Feature set {source.name!r} in {target_name} has {n:,} utterances of the source's ids, such "
            f"as {key!r}, that were made from other data. {prune}Remove the set there, "
            "or copy into another store; nothing was copied."
        )


def only_there(source: FeatureSet, target: FeatureSet, surplus: Collection[str]) -> dict[str, int]:
    """Return which of the target's segments hold utterances that the source lacks, and how many.

    surplus: names of segments that the source hasn't. Those are left out that hold an utterance which the source has of
    other data: the source's replace them.
    """
    counts = source.reading(lambda ours: target.reading(lambda theirs: _lacking_by_segment(ours, theirs)))
    return {name: n for name, n in counts.items() if name in surplus}


def _lacking_by_segment(ours: Snapshot, theirs: Snapshot) -> dict[str, int]:
    positions, their_positions = ours.index.common(theirs.index)
    our_place = np.full(len(theirs.index.segment), -1, np.int64)
    our_place[their_positions] = positions
    copies = theirs.index.shadowed
    our_place[copies] = our_place[theirs.index.counting(copies)]
    shared = np.flatnonzero(our_place >= 0)
    replaced = theirs.index.segment[shared[differing(ours, our_place[shared], theirs, shared)]]
    n_lacking = np.bincount(theirs.index.segment[our_place < 0], minlength=len(theirs.segments))
    n_lacking[replaced] = 0
    return {segment.path.name: n for segment, n in zip(theirs.segments, n_lacking.tolist(), strict=True) if n}


def _first_different(ours: Snapshot, theirs: Snapshot) -> tuple[str, int]:
    """Return the first key that was made from other data, and how many there are; "" and 0 where there is none."""
    positions, their_positions = ours.index.common(theirs.index)
    different = positions[differing(ours, positions, theirs, their_positions)]
    return (ours.index.key(int(different[0])), len(different)) if len(different) else ("", 0)
