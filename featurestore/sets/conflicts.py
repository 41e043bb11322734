"""Utterances that lie under one key in two places, made from different data: which one counts is by chance."""

from collections.abc import Collection, Iterator

import numpy as np

from featurestore.sets.snapshot import Snapshot

REMEDY = (
    "`medusa featurize --again mismatched` with the right manifest puts new rows in place of both; or remove the set "
    "(`medusa store rm`) and make it anew."
)
BLOCK = 1 << 20  # utterances that are compared at a time: some 250 MB


def differing(
    ours: Snapshot, positions: np.ndarray, theirs: Snapshot, their_positions: np.ndarray, *, by_rows: bool = True
) -> np.ndarray:
    """Return which utterances, one here and one there, were made from different data, bool (n,).

    Data are compared as recorded: samples or text where one decoder read both, else the file's size and piece. Where
    either records nothing, rows whose checksums differ are of different data (by_rows), or nothing is known (False).
    """
    found = np.zeros(len(positions), bool)
    for part in _blocks(len(positions)):
        found[part] = _differing(ours, positions[part], theirs, their_positions[part], by_rows)
    return found


def conflicting_copies(snapshot: Snapshot, *, by_rows: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of copies that don't count, made from other data than those that do, and the latter's."""
    copies = snapshot.index.shadowed
    counting = snapshot.index.counting(copies)
    found = differing(snapshot, copies, snapshot, counting, by_rows=by_rows)
    return copies[found], counting[found]


def conflicting_keys(snapshot: Snapshot) -> set[str]:
    """Return the keys that have copies made from different data."""
    return {snapshot.index.key(i) for i in conflicting_copies(snapshot)[0].tolist()}


def conflicts(snapshot: Snapshot, *, by_rows: bool = True, besides: Collection[bytes] = ()) -> list[str]:
    """Return a sentence for each two segments that hold a key, other than `besides`, made from different data."""
    copies, counting = conflicting_copies(snapshot, by_rows=by_rows)
    index = snapshot.index
    others = np.array([index.key_bytes(i) not in besides for i in copies.tolist()], bool)
    copies, counting = copies[others], counting[others]
    if not len(copies):
        return []
    pairs = np.stack([index.segment[counting], index.segment[copies]], axis=1)
    of_pair, firsts, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    sentences = []
    for (own, other), first, n in zip(of_pair.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        more = f" and {n - 1:,} more keys" if n > 1 else ""
        sentences.append(
            f"{snapshot.segments[own].path}: {index.key(int(copies[first]))!r}{more} also {'lie' if n > 1 else 'lies'} "
            f"in {snapshot.segments[other].path.name}, made from other data; the first is read, by its name alone. "
            f"{REMEDY}"
        )
    return sentences


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, first + BLOCK) for first in range(0, n, BLOCK))


def _differing(
    ours: Snapshot, positions: np.ndarray, theirs: Snapshot, their_positions: np.ndarray, by_rows: bool
) -> np.ndarray:
    own, other = ours.identities(positions), theirs.identities(their_positions)
    numbers: dict[str, int] = {"": -1}
    decoders = []
    for each in (own, other):
        of_name = [numbers.setdefault(name, len(numbers)) for name in (*each.decoders, "")]  # -1, none, is the last
        decoders.append(np.array(of_name)[each.decoder_numbers])
    with_digests = own.digests.any(1) & other.digests.any(1) & (decoders[0] == decoders[1])
    with_files = ~with_digests & (own.n_bytes >= 0) & (other.n_bytes >= 0)
    other_digest = (own.digests != other.digests).any(1)
    other_file = own.n_bytes != other.n_bytes
    for mine, its in ((own.starts_s, other.starts_s), (own.ends_s, other.ends_s)):
        other_file |= ~np.isclose(mine, its, rtol=0, atol=1e-6, equal_nan=True)
    found: np.ndarray = (with_digests & other_digest) | (with_files & other_file)
    unrecorded = np.flatnonzero(~with_digests & ~with_files)
    if by_rows and len(unrecorded):
        here, there = positions[unrecorded], their_positions[unrecorded]
        layers = ours.spec.layers
        found[unrecorded] = (ours.index.n_rows[here] != theirs.index.n_rows[there]) | (
            ours.checksums(here, layers) != theirs.checksums(there, layers)
        ).any(1)
    return found
