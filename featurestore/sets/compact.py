"""Merging a feature set's small segments into large ones, while others read it and write to it.

The merged segments are committed first, then the old ones removed, the last name first. Of a key that stands in several
segments the one in the smallest name counts (FORMAT.md, section 6), so a reader finds the same rows at every moment:
every segment that holds a copy which does not count is merged too, and among the old segments the one that counts goes
last. A crash in between leaves both, which the next compaction clears up. Rows are copied as they are stored and
compared with their checksums on the way.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurestore.errors import SegmentGone, StoreError
from featurestore.format.identity import Identities, Identity, from_arrays
from featurestore.format.segment import Segment, row_checksum
from featurestore.format.segment_writer import SegmentWriter, remove_stale
from featurestore.runtime.durable import set_aside, sync_directory
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.key_index import encode_key

SEGMENT_BYTES = 1 << 30
# How often to begin again when segments that are being merged are gone.
MAX_ATTEMPTS = 20

# Told (utterances copied, utterances in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CompactReport:
    """Segments before and after, utterances copied, and copies of keys dropped that did not count."""

    n_before: int
    n_after: int
    n_copied: int
    n_dropped: int


def compact(
    features: FeatureSet,
    *,
    segment_bytes: int = SEGMENT_BYTES,
    format: str | None = None,
    compress: str | None = None,
    progress: Progress | None = None,
) -> CompactReport:
    """Merge segments of less than half of `segment_bytes` of rows, up to that size, and drop copies of keys.

    format, compress: where given, also rewrite every segment that is stored otherwise. An interrupt loses the segment
    being written and nothing else. StoreError names a segment whose rows are damaged; it is left as it is. Of several
    compactions of one set, each waits for the one before it.
    """
    with _alone(features.path):
        for _ in range(MAX_ATTEMPTS - 1):
            with contextlib.suppress(SegmentGone):  # by another compaction, where there are no locks
                return _compact(features, segment_bytes, format, compress, progress)
        return _compact(features, segment_bytes, format, compress, progress)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until no other compaction of this set runs; where the file system has no locks, go on."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{directory} can't be read: {error.strerror}.") from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def drop(features: FeatureSet, keys: Iterable[str]) -> int:
    """Remove every copy of these utterances, and return how many of them the set held.

    The segments that hold them are written anew without them; readers see each segment before or after. An interrupt
    loses nothing: run it again. StoreError as in `compact`.
    """
    unwanted = {encode_key(key) for key in keys}
    with _alone(features.path):
        for _ in range(MAX_ATTEMPTS - 1):
            with contextlib.suppress(SegmentGone):
                return _drop(features, unwanted)
        return _drop(features, unwanted)


def _drop(features: FeatureSet, unwanted: set[bytes]) -> int:
    features.refresh()
    index = features.index
    positions = index.positions_of_bytes(sorted(unwanted))
    dropped = set(positions[positions >= 0].tolist())
    n_held = len(dropped)
    dropped.update(position for position in index.shadowed if index.key_bytes(position) in unwanted)
    if dropped:
        chosen = set(index.segment[sorted(dropped)].tolist())
        _rewrite(features, chosen, dropped, SEGMENT_BYTES, features.format, features.compress, None)
    return n_held


def _compact(
    features: FeatureSet, segment_bytes: int, format: str | None, compress: str | None, progress: Progress | None
) -> CompactReport:
    with contextlib.suppress(OSError):
        remove_stale(features.path)
    features.refresh()
    index, segments = features.index, features.segments
    new_format = features.format if format is None else format
    new_compress = (features.compress if new_format == features.format else "") if compress is None else compress
    shadowed = np.array(sorted(index.shadowed), dtype=np.int64)
    chosen = set(index.segment[shadowed].tolist())
    row_bytes = features.spec.row_type.row_bytes(features.dim) * len(features.layers)
    small = [i for i, segment in enumerate(segments) if segment.n_rows * row_bytes < segment_bytes // 2]
    if len(small) > 1:
        chosen.update(small)
    if format is not None or compress is not None:
        stored = [(segment.format, segment.info.compress) for segment in segments]
        chosen.update(i for i, each in enumerate(stored) if each != (new_format, new_compress))
    return _rewrite(features, chosen, set(), segment_bytes, new_format, new_compress, progress)


def _rewrite(
    features: FeatureSet,
    chosen: set[int],
    dropped: set[int],
    segment_bytes: int,
    format: str,
    compress: str,
    progress: Progress | None,
) -> CompactReport:
    """Merge the chosen segments into new ones without the dropped positions and copies that don't count."""
    index, segments = features.index, features.segments
    # A copy that counts must not lose to one that doesn't while old segments go: all segments with the key take part.
    chosen = set(chosen)
    for position in index.shadowed:
        chosen.add(int(index.segment[position]))
        chosen.add(int(index.segment[index.positions_of_bytes([index.key_bytes(position)])[0]]))
    old = [segments[i] for i in sorted(chosen)]
    positions = [p for i in sorted(chosen) for p in range(*index.segment_starts[i : i + 2].tolist())]
    remaining = [p for p in positions if p not in index.shadowed and p not in dropped]
    new_segments: list[Path] = []
    writer: SegmentWriter | None = None
    try:
        for done, (key, rows, scales, duration_s, identity) in enumerate(_stored(features, remaining)):
            writer = writer or SegmentWriter(features.path, features.spec, format, compress)
            writer.append(key, rows, duration_s, scales, identity)
            if writer.n_bytes >= segment_bytes:
                new_segments.append(writer.commit())
                writer = None
            if progress is not None:
                progress(done + 1, len(remaining))
        if writer is not None:
            new_segments.append(writer.commit())
            writer = None
    finally:
        if writer is not None:
            writer.discard()
    for segment in reversed(old):
        if segment.path not in new_segments:
            remove_segment(segment.path)
    try:
        sync_directory(features.path)
    except OSError as error:
        raise StoreError(f"{features.path} can't be written: {error.strerror or error}.") from error
    features.refresh()
    return CompactReport(
        len(segments), len(segments) - len(old) + len(new_segments), len(remaining), len(positions) - len(remaining)
    )


def _stored(
    features: FeatureSet, positions: list[int]
) -> Iterator[tuple[bytes, list[np.ndarray], list[np.ndarray], float, Identity | None]]:
    """Key, rows and scales per layer as they are stored, duration and identity, of each position."""
    index, segments = features.index, features.segments
    durations: dict[int, np.ndarray] = {}
    identities: dict[int, Identities] = {}
    recorded: dict[int, np.ndarray] = {}
    for position in positions:
        number = int(index.segment[position])
        if number not in durations:
            durations = {number: segments[number].small("durations_s")}
            identities = {number: from_arrays([segments[number].identities()])}
            recorded = {number: identities[number].recorded}
        local = position - int(index.segment_starts[number])
        rows, scales = _utterance(segments[number], local, int(index.first_row[position]), int(index.n_rows[position]))
        identity = identities[number][local] if recorded[number][local] else None
        yield index.key_bytes(position), rows, scales, float(durations[number][local]), identity


def _utterance(segment: Segment, local: int, first: int, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rows: list[np.ndarray] = []
    scales: list[np.ndarray] = []
    for column, layer in enumerate(segment.spec.layers):
        file = segment.layer(layer)
        file.fetch([(first, n)])
        rows.append(np.ascontiguousarray(file.slice(first, n)))
        if segment.spec.row_type.scaled:
            scales.append(segment.scales(layer).slice(first, n))
        if row_checksum(rows[-1], scales[-1] if scales else None) != segment.checksums()[local, column]:
            raise StoreError(
                f"{segment.path}: rows of utterance {local}, layer {layer}, were altered (wrong checksum), so that "
                "nothing was removed. `medusa store verify` names what is damaged; restore it, or remove the segment."
            )
    return rows, scales


def remove_segment(path: Path) -> None:
    """Remove a segment at once for whoever looks, then its files; who has it open keeps what is mapped."""
    try:
        removed_path = set_aside(path)
    except FileNotFoundError:
        return  # another compaction was faster
    except OSError as error:
        raise StoreError(f"{path} can't be removed: {error.strerror}.") from error
    if removed_path.is_dir():
        shutil.rmtree(removed_path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # like rmtree: what stays is stale, and the next writer removes it
            removed_path.unlink()
