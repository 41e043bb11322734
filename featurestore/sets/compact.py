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
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from featurestore.errors import SegmentGone, StoreError
from featurestore.format.segment import Segment
from featurestore.format.segment_writer import SegmentWriter, remove_stale
from featurestore.format.stored import stored_utterances
from featurestore.runtime.durable import set_aside, sync_directory
from featurestore.sets.conflicts import conflicting_keys, conflicts
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.key_index import encode_key

SEGMENT_BYTES = 1 << 30
# How often to begin again when segments that are being merged are gone.
MAX_ATTEMPTS = 20

T = TypeVar("T")

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

    def attempt() -> CompactReport:
        return _rewrite(features, _chosen(features, segment_bytes, format, compress), segment_bytes, progress)

    return _attempts(features, attempt)


def _attempts(features: FeatureSet, attempt: Callable[[], T]) -> T:
    """Let `attempt` choose what to rewrite and do so, again where segments are gone."""
    with _alone(features.path):
        for _ in range(MAX_ATTEMPTS - 1):
            with contextlib.suppress(SegmentGone):  # by another compaction, where there are no locks
                result = attempt()
                break
        else:
            result = attempt()
    if features.is_loaded:
        features.refresh()
    return result


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


def drop(features: FeatureSet, keys: Iterable[str], conflicting: Iterable[str] = ()) -> int:
    """Remove every copy of these utterances, and return how many of them the set held.

    conflicting: keys that are removed, too, where two segments hold them, made from different data.

    The segments that hold them are written anew without them; readers see each segment before or after. An interrupt
    loses nothing: run it again. StoreError as in `compact`, and for any other key that two segments hold, made from
    different data: one of the copies would be lost.
    """
    unwanted, doubtful = ({encode_key(key) for key in each} for each in (keys, conflicting))

    def attempt() -> int:
        plan = _without(features, unwanted, doubtful)
        _rewrite(features, plan, SEGMENT_BYTES, None)
        return plan.n_held

    return _attempts(features, attempt)


@dataclass(frozen=True)
class _Plan:
    """Segments to rewrite, and which of each one's utterances are kept, bool (n,); how the new ones are stored.

    n_before: segments in all. n_held: unwanted keys that the set held.
    """

    old: list[Segment]
    kept: list[np.ndarray]
    format: str
    compress: str
    n_before: int
    n_held: int = 0


def _opened(features: FeatureSet) -> FeatureSet:
    """Return the set, opened anew, so that the index of its keys is let go before rows are copied."""
    return FeatureSet(features.path, features.name)


def _without(features: FeatureSet, unwanted: set[bytes], doubtful: set[bytes]) -> _Plan:
    own = _opened(features)
    index = own.index
    if doubtful:
        unwanted = unwanted.union(doubtful.intersection(map(encode_key, own.reading(conflicting_keys))))
    positions = index.positions_of_bytes(sorted(unwanted))
    held = positions[positions >= 0]
    if len(held):
        _refuse_conflicts(own, "removed", unwanted)
    copies = [i for i in index.shadowed.tolist() if index.key_bytes(i) in unwanted]
    dropped = np.union1d(held, np.array(copies, np.int64))
    chosen = set(index.segment[dropped].tolist())
    return _plan(own, chosen, dropped, own.format, own.compress, len(held))


def _refuse_conflicts(features: FeatureSet, done: str, besides: Collection[bytes] = ()) -> None:
    """Raise StoreError where a key, other than `besides`, has copies made from different data: one would be lost."""
    found = features.reading(lambda now: conflicts(now, by_rows=False, besides=besides))
    if found:
        raise StoreError(f"{found[0]} Nothing was {done}: one of the copies would have been lost.")


def _chosen(features: FeatureSet, segment_bytes: int, format: str | None, compress: str | None) -> _Plan:
    with contextlib.suppress(OSError):
        remove_stale(features.path)
    own = _opened(features)
    index, segments = own.index, own.segments
    _refuse_conflicts(own, "compacted")
    new_format = own.format if format is None else format
    new_compress = (own.compress if new_format == own.format else "") if compress is None else compress
    chosen = set(np.unique(index.segment[index.shadowed]).tolist())
    row_bytes = own.spec.row_type.row_bytes(own.dim) * len(own.layers)
    small = [i for i, segment in enumerate(segments) if segment.n_rows * row_bytes < segment_bytes // 2]
    if len(small) > 1:
        chosen.update(small)
    if format is not None or compress is not None:
        stored = [(segment.format, segment.info.compress) for segment in segments]
        chosen.update(i for i, each in enumerate(stored) if each != (new_format, new_compress))
    return _plan(own, chosen, np.empty(0, np.int64), new_format, new_compress)


def _plan(
    features: FeatureSet, chosen: set[int], dropped: np.ndarray, format: str, compress: str, n_held: int = 0
) -> _Plan:
    """Return the rewriting of the chosen segments without the dropped positions and copies that don't count."""
    index, segments = features.index, features.segments
    if chosen and len(index.shadowed):
        # A copy that counts must not lose to one that doesn't while old segments go: all segments with the key take
        # part.
        chosen = chosen.union(np.unique(index.segment[index.shadowed]).tolist())
        chosen.update(np.unique(index.segment[index.counting(index.shadowed)]).tolist())
    kept = np.ones(len(index.segment), bool)
    kept[index.shadowed] = False
    kept[dropped] = False
    places = sorted(chosen)
    masks = [kept[slice(*index.segment_starts[i : i + 2].tolist())].copy() for i in places]
    return _Plan([segments[i] for i in places], masks, format, compress, len(segments), n_held)


def _rewrite(features: FeatureSet, plan: _Plan, segment_bytes: int, progress: Progress | None) -> CompactReport:
    """Commit the plan's utterances in new segments, then remove the old ones."""
    n_kept, n_all = (sum(map(count, plan.kept)) for count in (np.count_nonzero, len))
    new_segments: list[Path] = []
    writer: SegmentWriter | None = None
    n_done = 0
    try:
        for segment, kept in zip(plan.old, plan.kept, strict=True):
            for block in stored_utterances(segment, kept):
                first = 0
                while first < len(block):
                    writer = writer or SegmentWriter(features.path, features.spec, plan.format, plan.compress)
                    last = first + _fitting(writer, block.offsets[first:], segment_bytes)
                    writer.extend(block.part(first, last))
                    first = last
                    if writer.n_bytes >= segment_bytes:
                        new_segments.append(writer.commit())
                        writer = None
                n_done += len(block)
                if progress is not None:
                    progress(n_done, n_kept)
        if writer is not None:
            new_segments.append(writer.commit())
            writer = None
    finally:
        if writer is not None:
            writer.discard()
    for segment in reversed(plan.old):
        if segment.path not in new_segments:
            remove_segment(segment.path)
    try:
        sync_directory(features.path)
    except OSError as error:
        raise StoreError(f"{features.path} can't be written: {error.strerror or error}.") from error
    return CompactReport(plan.n_before, plan.n_before - len(plan.old) + len(new_segments), n_kept, n_all - n_kept)


def _fitting(writer: SegmentWriter, offsets: np.ndarray, segment_bytes: int) -> int:
    """Return how many utterances are to be added: up to the one that fills the segment, or all; offsets: (n + 1,)."""
    row_bytes = writer.spec.row_type.row_bytes(writer.spec.dim) * len(writer.spec.layers)
    n_bytes = writer.n_bytes + (offsets[1:] - offsets[0]) * row_bytes
    return min(int(np.searchsorted(n_bytes, segment_bytes)) + 1, len(n_bytes))


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
