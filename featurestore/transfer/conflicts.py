"""Utterances that two stores hold under one id and one feature set's name, made from different data."""

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
        prune = "--prune makes the set there as the source's is, and removes what that lacks. " if has_prune else ""
        raise StoreError(
            f"Feature set {source.name!r} in {target_name} has {n:,} utterances of the source's ids, such "
            f"as {key!r}, that were made from other data. {prune}Remove the set there, "
            "or copy into another store; nothing was copied."
        )


def _first_different(ours: Snapshot, theirs: Snapshot) -> tuple[str, int]:
    """Return the first key that was made from other data, and how many there are; "" and 0 where there is none."""
    positions, their_positions = ours.index.common(theirs.index)
    different = positions[differing(ours, positions, theirs, their_positions)]
    return (ours.index.key(int(different[0])), len(different)) if len(different) else ("", 0)
