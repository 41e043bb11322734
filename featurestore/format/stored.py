"""Many utterances at once as a segment stores them, copied from one segment to another: no Python object for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.errors import StoreError
from featurestore.format.identity import Identities, from_arrays
from featurestore.format.rowfile import RowFile
from featurestore.format.segment import Segment, row_checksums


@dataclass(frozen=True)
class StoredUtterances:
    """N utterances, one after the other, in memory.

    keys: uint8, their utf-8 bytes; key_offsets int64 (N + 1,); key_hashes uint64 (N,). offsets: int64 (N + 1,) of their
    rows. layers: per layer (sum T, D) as stored. scales: per layer float32 (sum T,), of int8 rows alone. checksums:
    uint32 (N, L), of these rows. durations_s: float64 (N,). identities: None where the segment records none.
    """

    keys: np.ndarray
    key_offsets: np.ndarray
    key_hashes: np.ndarray
    offsets: np.ndarray
    layers: Sequence[np.ndarray]
    scales: Sequence[np.ndarray]
    checksums: np.ndarray
    durations_s: np.ndarray
    identities: Identities | None

    def __len__(self) -> int:
        return len(self.durations_s)

    def part(self, first: int, last: int) -> "StoredUtterances":
        """Return utterances first:last, as views."""
        keys, rows = self.key_offsets[first : last + 1], self.offsets[first : last + 1]
        return StoredUtterances(
            self.keys[keys[0] : keys[-1]],
            keys - keys[0],
            self.key_hashes[first:last],
            rows - rows[0],
            [layer[rows[0] : rows[-1]] for layer in self.layers],
            [scales[rows[0] : rows[-1]] for scales in self.scales],
            self.checksums[first:last],
            self.durations_s[first:last],
            None if self.identities is None else self.identities.take(np.arange(first, last)),
        )


def stored_utterances(segment: Segment, kept: np.ndarray) -> Iterator[StoredUtterances]:
    """Yield the utterances of a segment where `kept` (bool (n,)) is true, in their order, a block at a time.

    StoreError where rows that are kept, or what leads to them, were altered.
    """
    small = segment.load_index()
    durations_s, checksums = segment.small("durations_s"), segment.checksums()
    recorded = segment.identities()
    identities = None if isinstance(recorded, int) else from_arrays([recorded])
    del recorded
    for first, last in segment.blocks(small["offsets"]):
        chosen = np.flatnonzero(kept[first:last])
        if not len(chosen):
            continue
        offsets, take = small["offsets"][first : last + 1], _Taking(kept[first:last])
        rows, scales = [], []
        for layer in segment.spec.layers:
            rows.append(take.runs(_copied(segment.layer(layer), offsets), offsets))
            if segment.spec.row_type.scaled:
                scales.append(take.runs(_copied(segment.scales(layer), offsets), offsets))
        key_offsets = small["key_offsets"][first : last + 1]
        block = StoredUtterances(
            take.runs(small["keys"][key_offsets[0] : key_offsets[-1]], key_offsets),
            take.offsets(key_offsets),
            take.each(small["key_hashes"][first:last]),
            take.offsets(offsets),
            rows,
            scales,
            take.each(checksums[first:last]),
            take.each(durations_s[first:last]),
            None if identities is None else identities.take(first + chosen),
        )
        _check(segment, block, first + chosen)
        yield block


class _Taking:
    """What is kept of a block's arrays, themselves where that is all; kept: bool (n,)."""

    def __init__(self, kept: np.ndarray) -> None:
        self._kept = kept
        self._all = bool(kept.all())

    def each(self, values: np.ndarray) -> np.ndarray:
        """Return what is kept of an array that has a value, or a row, for each utterance."""
        return values if self._all else values[self._kept]

    def runs(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return what is kept of an array that has a run for each utterance; offsets: int64 (n + 1,)."""
        return values if self._all else values[np.repeat(self._kept, np.diff(offsets))]

    def offsets(self, offsets: np.ndarray) -> np.ndarray:
        """Return where the runs that are kept begin and end, int64, from 0."""
        lengths = self.each(np.diff(offsets))
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _copied(file: RowFile, offsets: np.ndarray) -> np.ndarray:
    """Return a block's rows in memory, so that what is compared with checksums is what will be written."""
    first, n = int(offsets[0]), int(offsets[-1] - offsets[0])
    file.fetch([(first, n)])
    return np.array(file.slice(first, n))


def _check(segment: Segment, block: StoredUtterances, numbers: np.ndarray) -> None:
    for k, layer in enumerate(segment.spec.layers):
        crcs = row_checksums(block.layers[k], block.scales[k] if block.scales else None, block.offsets)
        wrong = np.flatnonzero(crcs != block.checksums[:, k])
        if len(wrong):
            raise StoreError(
                f"{segment.path}: rows of utterance {numbers[wrong[0]]}, layer {layer}, were altered (wrong checksum), "
                "so that nothing was removed. `medusa store verify` names what is damaged; restore it, or remove the "
                "segment."
            )
