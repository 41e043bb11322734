"""From keys to rows: the utterances of all segments, found by 64-bit hash and then compared byte for byte."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import StoreError
from featurestore.format.segment import Segment
from featurestore.format.segment_info import hash_keys

# Keys that were looked up are remembered, so that from the second epoch on a batch of 32 costs 5 us instead of 80 (a
# tenth of the time in which a fast machine copies its rows); no more than these, to bound memory (about 25 MB).
MAX_KNOWN = 1 << 18
# A call with so many keys is kept with its answer for the next: a report asks for the whole corpus several times.
REMEMBERED = 1024
# Keys that are looked up at a time, where there are more.
BLOCK = 1 << 16
COMPARED = 1 << 13  # byte for byte at a time, within the processor's cache


class KeyIndex:
    """Where each utterance of a feature set lies; positions 0..n-1 count utterances in the order of `segments`.

    Builds no Python object per key (44 bytes and the key itself per utterance). When two segments hold the same key,
    the one that comes first in `segments` (sorted by name) counts and the other is shadowed.

    segment: int32 (n,) index into `segments`. first_row, n_rows: int64 (n,) rows within that segment. shadowed: int64,
    the shadowed positions, rising.
    """

    def __init__(
        self, segments: Sequence[Segment], before: "KeyIndex | None" = None, segments_before: Sequence[Segment] = ()
    ) -> None:
        """before: an index of `segments_before`: of those that are here again nothing is read."""
        places = {} if before is None else {id(segment): i for i, segment in enumerate(segments_before)}
        for segment in segments:
            if id(segment) not in places:
                segment.check_counts()
        n = sum(segment.n_utterances for segment in segments)
        self.segment = np.empty(n, dtype=np.int32)
        self.first_row = np.empty(n, dtype=np.int64)
        self.n_rows = np.empty(n, dtype=np.int64)
        self._keys = np.empty(sum(segment.key_bytes for segment in segments), dtype=np.uint8)
        self._key_starts = np.zeros(n + 1, dtype=np.int64)
        # The first position of each segment, and the end.
        self.segment_starts = np.zeros(len(segments) + 1, dtype=np.int64)
        hashes = np.empty(n, dtype=np.uint64)
        known_hashes = np.empty(0, np.uint64) if before is None else before._unsorted_hashes()
        first = first_byte = 0
        for i, segment in enumerate(segments):
            last, last_byte = first + segment.n_utterances, first_byte + segment.key_bytes
            self.segment[first:last] = i
            if before is not None and id(segment) in places:
                earlier = slice(*before.segment_starts[places[id(segment)] : places[id(segment)] + 2].tolist())
                byte, end = before._key_starts[earlier.start], before._key_starts[earlier.stop]
                self._keys[first_byte:last_byte] = before._keys[byte:end]
                hashes[first:last] = known_hashes[earlier]
                self.first_row[first:last] = before.first_row[earlier]
                self.n_rows[first:last] = before.n_rows[earlier]
                key_starts = before._key_starts[earlier.start : earlier.stop + 1] - byte
            else:
                small = segment.load_index()
                self._keys[first_byte:last_byte] = small["keys"]
                hashes[first:last] = small["key_hashes"]
                self.first_row[first:last] = small["offsets"][:-1]
                self.n_rows[first:last] = np.diff(small["offsets"])
                key_starts = small["key_offsets"]
            self._key_starts[first : last + 1] = key_starts + first_byte
            first, first_byte = last, last_byte
            self.segment_starts[i + 1] = last
        self._key_view = self._keys.data
        self._order = rising_order(hashes)  # of equal hashes the one in the first segment comes first
        self._hashes = hashes[self._order]
        self._known: dict[str, int] = {}
        self._last: tuple[list[str], np.ndarray] | None = None  # the last long question and its answer
        self.shadowed = self._find_shadowed(segments)

    def _unsorted_hashes(self) -> np.ndarray:
        """Return the hash of each position's key, uint64 (n,)."""
        hashes = np.empty(len(self._hashes), np.uint64)
        hashes[self._order] = self._hashes
        return hashes

    def __len__(self) -> int:
        return len(self.segment) - len(self.shadowed)

    def key_bytes(self, position: int) -> bytes:
        """Return the key at a position, as utf-8."""
        return bytes(self._key_view[self._key_starts[position] : self._key_starts[position + 1]])

    def key(self, position: int) -> str:
        """Return the key at a position; StoreError when it is no utf-8."""
        try:
            return self.key_bytes(position).decode()
        except UnicodeDecodeError as error:
            raise StoreError(f"Key {self.key_bytes(position)!r} is no utf-8: the store is damaged.") from error

    def __iter__(self) -> Iterator[str]:
        counts = np.ones(len(self.segment), bool)
        counts[self.shadowed] = False
        for first in range(0, len(counts), BLOCK):
            for position in (first + np.flatnonzero(counts[first : first + BLOCK])).tolist():
                yield self.key(position)

    def position(self, key: str) -> int:
        """Return the position of a key, -1 where there is none: `positions` of one key, without arrays of one."""
        position = self._known.get(key)
        if position is None:
            encoded = encode_keys([key])[0]
            key_hash = hash_keys([encoded])[0]
            position = self._walk(int(self._hashes.searchsorted(key_hash)), key_hash, encoded)
        return position

    def positions(self, keys: Sequence[str]) -> np.ndarray:
        """Position of each key, int64 (n,); -1 where there is none."""
        if isinstance(keys, str):
            raise StoreError(f"A sequence of keys was expected, a single key was given: {keys!r}; put it into a list.")
        if len(keys) >= REMEMBERED:
            return self._positions_of_many(keys if isinstance(keys, list) else list(keys))
        positions_of_keys = np.array([self._known.get(key, -1) for key in keys], dtype=np.int64)
        unknown = np.flatnonzero(positions_of_keys < 0).tolist()
        if unknown:
            positions = self.positions_of_bytes(encode_keys([keys[i] for i in unknown]))
            positions_of_keys[unknown] = positions
            if len(self._known) < MAX_KNOWN:
                self._known.update((keys[i], p) for i, p in zip(unknown, positions.tolist(), strict=True) if p >= 0)
        return positions_of_keys

    def _positions_of_many(self, keys: list[str]) -> np.ndarray:
        last = self._last
        if last is None or last[0] != keys:
            positions = np.empty(len(keys), np.int64)
            for first in range(0, len(keys), BLOCK):
                positions[first : first + BLOCK] = self.positions_of_bytes(encode_keys(keys[first : first + BLOCK]))
            if len(self._known) + len(keys) <= MAX_KNOWN:
                self._known.update((key, p) for key, p in zip(keys, positions.tolist(), strict=True) if p >= 0)
            last = self._last = list(keys), positions
        return last[1].copy()

    def positions_of_bytes(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return `positions` for keys that are utf-8 already, by their hashes alone."""
        positions = np.full(len(keys), -1, dtype=np.int64)
        if not len(self._hashes) or not len(keys):
            return positions
        hashes = hash_keys(keys)
        # Sorted, so that what is looked up next lies nearby: of ten million, seven times as fast.
        order = np.argsort(hashes)
        places = np.empty(len(keys), np.int64)
        places[order] = np.searchsorted(self._hashes, hashes[order])
        there = np.flatnonzero(self._hashes[np.minimum(places, len(self._hashes) - 1)] == hashes)
        candidates = self._order[places[there]]
        lengths = np.fromiter(map(len, keys), np.int64, len(keys))
        starts = (np.cumsum(lengths) - lengths)[there]
        same = _same_runs(
            (self._keys, self._key_starts[candidates], self._key_starts[candidates + 1]),
            (np.frombuffer(b"".join(keys), np.uint8), starts, starts + lengths[there]),
        )
        positions[there[same]] = candidates[same]
        for i in there[~same].tolist():
            positions[i] = self._walk(int(places[i]), hashes[i], keys[i])
        return positions

    def counting(self, positions: np.ndarray) -> np.ndarray:
        """Return the positions that count for the keys at these ones, int64 (n,)."""
        counting = [
            self.positions_of_bytes([self.key_bytes(i) for i in positions[first : first + BLOCK].tolist()])
            for first in range(0, len(positions), BLOCK)
        ]
        return np.concatenate([*counting, np.empty(0, np.int64)])

    def common(self, other: "KeyIndex") -> tuple[np.ndarray, np.ndarray]:
        """Return the positions, here (rising) and there, of the keys that both have; of copies those that count."""
        if not len(self._hashes) or not len(other._hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(other._hashes, self._hashes), len(other._hashes) - 1)
        alike = self._order[other._hashes[places] == self._hashes]  # few keys, unless most are the same
        positions = np.setdiff1d(alike, self.shadowed, assume_unique=True)
        theirs = np.empty(len(positions), np.int64)
        for first in range(0, len(positions), BLOCK):
            block = positions[first : first + BLOCK].tolist()
            theirs[first : first + BLOCK] = other.positions_of_bytes([self.key_bytes(i) for i in block])
        return positions[theirs >= 0], theirs[theirs >= 0]

    def _walk(self, place: int, key_hash: np.uint64, key: bytes) -> int:
        """Return the position of `key` among equal hashes, from `place` on; -1 when it is not there."""
        while place < len(self._hashes) and self._hashes[place] == key_hash:
            position = int(self._order[place])
            if self.key_bytes(position) == key:
                return position
            place += 1
        return -1

    def _find_shadowed(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return positions whose key also lies in an earlier segment, rising; StoreError when it lies twice in one."""
        places = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        shadowed = [np.empty(0, np.int64)]
        for first in range(0, len(places), BLOCK):
            block = places[first : first + BLOCK]
            earlier, later = self._order[block], self._order[block + 1]
            same = _same_runs(
                (self._keys, self._key_starts[earlier], self._key_starts[earlier + 1]),
                (self._keys, self._key_starts[later], self._key_starts[later + 1]),
            )
            for i in np.flatnonzero(same & (self.segment[earlier] == self.segment[later])).tolist():
                raise self._twice(segments, int(later[i]))
            shadowed.append(later[same])
            # Different keys of equal hashes: the one before may be further off.
            others = (self._counting_before(segments, place) for place in block[~same].tolist())
            shadowed.append(np.array([position for position in others if position is not None], np.int64))
        return np.sort(np.concatenate(shadowed))

    def _counting_before(self, segments: Sequence[Segment], place: int) -> int | None:
        """Return the position behind `place` where its key stands before among equal hashes; else None."""
        position = int(self._order[place + 1])
        key, earlier = self.key_bytes(position), place
        while earlier >= 0 and self._hashes[earlier] == self._hashes[place]:
            other = int(self._order[earlier])
            if self.key_bytes(other) == key:
                if self.segment[other] == self.segment[position]:
                    raise self._twice(segments, position)
                return position
            earlier -= 1
        return None

    def _twice(self, segments: Sequence[Segment], position: int) -> StoreError:
        return StoreError(
            f"{segments[int(self.segment[position])].path}: the key "
            f"{self.key_bytes(position).decode(errors='replace')!r} stands in it twice, so that it is unknown which "
            "rows count. Remove the segment (`medusa store rm SET --damaged`) and encode its utterances again."
        )


# Runs of bytes: those of an array, uint8, from each start to each end, int64 (n,).
_ByteRuns = tuple[np.ndarray, np.ndarray, np.ndarray]


def rising_order(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return np.argsort(hashes, kind="stable") in a quarter of the time, for hashes of which few begin alike.

    Numbers are sorted several times as fast as their places. So a place takes the low bits of its hash, and what the
    high bits leave open, some hundred of ten million, is sorted once more.
    """
    low = np.uint64((1 << len(hashes).bit_length()) - 1)
    packed = hashes & ~low
    packed |= np.arange(len(hashes), dtype=np.uint64)
    packed.sort()
    undecided = np.zeros(len(hashes), bool)
    undecided[1:] = (packed[1:] ^ packed[:-1]) <= low
    undecided[:-1] |= undecided[1:]
    packed &= low
    order = packed.view(np.int64)
    places = order[undecided]
    order[undecided] = places[np.argsort(hashes[places], kind="stable")]
    return order


def _same_runs(ours: _ByteRuns, theirs: _ByteRuns) -> np.ndarray:
    """Return whether each run of bytes equals the other, bool (n,)."""
    same = np.empty(len(ours[1]), bool)
    for first in range(0, len(same), COMPARED):
        part = slice(first, first + COMPARED)
        (own, own_starts, own_ends), (other, other_starts, other_ends) = (
            (data, starts[part], ends[part]) for data, starts, ends in (ours, theirs)
        )
        lengths = own_ends - own_starts
        alike = lengths == other_ends - other_starts
        lengths = np.where(alike, lengths, 0)
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        differs = own[np.repeat(own_starts, lengths) + within] != other[np.repeat(other_starts, lengths) + within]
        n_different = np.concatenate([np.zeros(1, np.int64), np.cumsum(differs)])
        same[part] = alike & (n_different[ends] == n_different[ends - lengths])
    return same


def encode_key(key: str) -> bytes:
    """Return a key as utf-8; StoreError when it is not a string that utf-8 can hold."""
    if not isinstance(key, str):
        raise StoreError(f"Keys must be strings; found {type(key).__name__} {key!r}.")
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"Key {key!r} can't be written as utf-8 (a lone surrogate); rename the utterance.") from error


def encode_keys(keys: Sequence[str]) -> list[bytes]:
    """Return `encode_key` of several keys."""
    try:
        return [key.encode() for key in keys]  # a third of the time
    except (AttributeError, UnicodeEncodeError):
        return [encode_key(key) for key in keys]
