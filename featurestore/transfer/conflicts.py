"""Utterances that two stores hold under one id and one feature set's name, made from different data."""

from collections.abc import Sequence

import numpy as np

from featurestore.errors import StoreError
from featurestore.sets.feature_set import FeatureSet


def check_no_conflict(source: FeatureSet, target: FeatureSet, target_name: str, has_prune: bool) -> None:
    """Raise StoreError where both sets have an utterance, made from other data: which one counted would be by chance.

    Data are compared as recorded: samples or text where one decoder read both, else the file's size and piece. Where
    either records nothing, the rows must be the same. target_name: of the store, in the message. has_prune: whether
    the command can remove what the source no longer has.
    """
    keys = sorted(set(source) & set(target))
    if not keys:
        return
    different = _first_different(source, target, keys)
    if different is not None:
        prune = "--prune makes the set there as the source's is, and removes what that lacks. " if has_prune else ""
        raise StoreError(
            f"Feature set {source.name!r} in {target_name} has utterances of the source's ids, such as "
            f"{different!r}, that were made from other data. {prune}Remove the set there, or copy into another "
            "store; nothing was copied."
        )


def _first_different(source: FeatureSet, target: FeatureSet, keys: Sequence[str]) -> str | None:
    """Return the first key that was made from other data, None where there is none."""
    own, other = source.identities(keys), target.identities(keys)
    decoders = [
        np.array([*each.decoders, ""], object)[each.decoder_numbers]  # -1, no decoder, is the last
        for each in (own, other)
    ]
    with_digests = own.digests.any(1) & other.digests.any(1) & (decoders[0] == decoders[1])
    with_files = ~with_digests & (own.n_bytes >= 0) & (other.n_bytes >= 0)
    other_digest = (own.digests != other.digests).any(1)
    other_file = own.n_bytes != other.n_bytes
    for mine, theirs in ((own.starts_s, other.starts_s), (own.ends_s, other.ends_s)):
        other_file |= ~np.isclose(mine, theirs, rtol=0, atol=1e-6, equal_nan=True)
    found = np.flatnonzero((with_digests & other_digest) | (with_files & other_file))
    if len(found):
        return keys[int(found[0])]
    unrecorded = [keys[i] for i in np.flatnonzero(~with_digests & ~with_files).tolist()]
    if not unrecorded or source.rows_digest(unrecorded) == target.rows_digest(unrecorded):
        return None
    while len(unrecorded) > 1:
        half = unrecorded[: len(unrecorded) // 2]
        is_first = source.rows_digest(half) != target.rows_digest(half)
        unrecorded = half if is_first else unrecorded[len(half) :]
    return unrecorded[0]
