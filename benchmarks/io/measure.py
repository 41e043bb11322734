"""Timing: every way on the same batches, repeats interleaved, warm or from disk, one thread or several."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

from featurestore.errors import ConfigError

from .disk import bytes_from_disk, drop, files_below, make_cold
from .elsewhere import Elsewhere, digest_of
from .rows import Batch, IoSettings, Rows
from .ways import FLOOR, Place, Reader, Way

# A reader that has taken as long as this isn't repeated further, once it has run twice.
LONG_ENOUGH_S = 4.0
SLOW_S = 1.0


class Timings:
    """Seconds of each way's repeats, and the bytes that came from the device."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.seconds: dict[str, list[float]] = {way.id: [] for way in ways}
        self.from_disk: dict[str, list[int]] = {way.id: [] for way in ways}

    def wants(self, way: Way) -> bool:
        taken = self.seconds[way.id]
        return len(taken) < 2 or sum(taken) < LONG_ENOUGH_S


def measure(
    ways: Sequence[Way],
    work: Path,
    rows: Rows,
    settings: IoSettings,
    n_threads: int,
    cold: bool,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """One record per way: seconds for all utterances in each repeat, rates, and the ratio to the fastest floor."""
    state = "cold" if cold else "warm"
    ways = [way for way in ways if state in way.states and (n_threads == 1 or way.threads)]
    label = f"{state}, {n_threads} thread{'s' if n_threads > 1 else ''}"
    places = {way.id: Place(work / way.layout, rows, settings.batch, n_threads, cold) for way in ways}
    timings = Timings(ways)
    opened: dict[str, Sequence[Reader]] = {}
    try:
        for way in ways if not cold else ():
            progress(f"{label}: checking {way.name}")
            opened[way.id] = way.open(places[way.id])
            check(way, opened[way.id], places[way.id], settings)
        for repeat in range(settings.repeats):
            for way in _rotated(ways, repeat):
                if not timings.wants(way):
                    continue
                progress(f"{label}, run {repeat + 1} of {settings.repeats}: {way.name}")
                batches = batches_of(way, places[way.id], settings, repeat)
                if cold:
                    _time_cold(way, places[way.id], batches, timings, settings)
                    continue
                # An untimed pass first: a large server's last-level cache (480 MB in one) holds what the reader before
                # left there, and whoever shared its pages looked 1.4 times as fast as who did not. Where it takes
                # long, that is nothing, and it counts itself.
                seconds = time_readers(opened[way.id], batches)
                if seconds < SLOW_S:
                    seconds = time_readers(opened[way.id], batches)
                timings.seconds[way.id].append(seconds)
    finally:
        for readers in opened.values():
            close(readers)
    return _records(ways, timings, rows, {"state": state, "threads": n_threads})


def batches_of(way: Way, place: Place, settings: IoSettings, repeat: int) -> list[Batch]:
    """Return the batches of a repeat, random ones where the way can read them."""
    if way.order is not None:
        return place.rows.batches(way.order(place), settings.batch)
    return place.rows.random_batches(settings.batch, settings.seed, repeat)


def shares(batches: Sequence[Batch], n: int) -> list[Sequence[Batch]]:
    """Every thread's batches: each takes the next one in turn."""
    return [batches[i::n] for i in range(n)]


def time_readers(readers: Sequence[Reader], batches: Sequence[Batch]) -> float:
    """Seconds until the readers, a thread each, have read all batches."""
    if isinstance(readers[0], Elsewhere):
        return readers[0].seconds(batches)
    if len(readers) == 1:
        started = time.perf_counter()
        for _ in readers[0].read(batches):
            pass
        return time.perf_counter() - started
    ready = Barrier(len(readers) + 1)

    def work(reader: Reader, share: Sequence[Batch]) -> None:
        ready.wait()
        for _ in reader.read(share):
            pass

    with ThreadPoolExecutor(len(readers)) as threads:
        running = [threads.submit(work, *pair) for pair in zip(readers, shares(batches, len(readers)), strict=True)]
        ready.wait()
        started = time.perf_counter()
        for thread in running:
            thread.result()
        return time.perf_counter() - started


def check(way: Way, readers: Sequence[Reader], place: Place, settings: IoSettings) -> None:
    """Read all batches once, bit for bit as written (which also brings the files into the page cache)."""
    batches = batches_of(way, place, settings, 0)
    if way.in_blocks:
        read_bytes = np.concatenate([block.copy() for reader in readers for block in reader.read(batches)])
        written = np.concatenate([place.rows.of(i) for batch in batches for i in batch.numbers])
        _compare(way, read_bytes, written.view(np.uint8).reshape(-1))
        return
    of = way.expect(place) if way.expect else place.rows.of
    if isinstance(readers[0], Elsewhere):
        expected = [digest_of(np.concatenate([of(i) for i in batch.numbers])) for batch in batches]
        if readers[0].digests(batches) != expected:
            raise AssertionError(f"bench io: {way.name} returned other rows than were written")
        return
    for reader, share in zip(readers, shares(batches, len(readers)), strict=True):
        for batch, rows_read in zip(share, reader.read(share), strict=True):
            # A reader may widen rows, which is exact.
            _compare(way, rows_read, np.concatenate([of(i) for i in batch.numbers]).astype(rows_read.dtype, copy=False))


def _compare(way: Way, actual: np.ndarray, expected: np.ndarray) -> None:
    bits = f"u{expected.itemsize}"
    if actual.shape != expected.shape or not np.array_equal(actual.view(bits), expected.view(bits)):
        raise AssertionError(f"bench io: {way.name} returned other rows than were written")


def close(readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.close()


def _rotated(ways: Sequence[Way], repeat: int) -> list[Way]:
    """Another order for each repeat, so that whatever drifts meets all."""
    turned = [*ways[repeat % len(ways) :], *ways[: repeat % len(ways)]] if ways else []
    return turned[::-1] if repeat % 2 else turned


def _time_cold(way: Way, place: Place, batches: Sequence[Batch], timings: Timings, settings: IoSettings) -> None:
    files = files_below(place.directory)
    try:
        make_cold(files)
    except ConfigError:
        gc.collect()  # pages stay that a reader before still maps
        make_cold(files)
    readers = way.open(place)
    drop(files)  # once more: opening an Arrow file brings a quarter of 0.3 GB into the cache, by the kernel's readahead
    try:
        process = str(readers[0].pid) if isinstance(readers[0], Elsewhere) else "self"
        before = bytes_from_disk(process)
        seconds = time_readers(readers, batches)
        after = bytes_from_disk(process)
        if not timings.seconds[way.id]:
            check(way, readers, place, settings)
    finally:
        close(readers)
    timings.seconds[way.id].append(seconds)
    if before is not None and after is not None:
        timings.from_disk[way.id].append(after - before)


def _records(ways: Sequence[Way], timings: Timings, rows: Rows, state: dict[str, Any]) -> list[dict[str, Any]]:
    n_bytes = rows.values.nbytes
    medians = {way.id: statistics.median(timings.seconds[way.id]) for way in ways}
    floors = [medians[way.id] for way in ways if way.group == FLOOR]
    records = []
    for way in ways:
        seconds, from_disk = timings.seconds[way.id], timings.from_disk[way.id]
        record = {
            "id": way.id,
            "name": way.name,
            "group": way.group,
            **state,
            "gb_per_s": n_bytes / medians[way.id] / 1e9,
            "gb_per_s_least": n_bytes / max(seconds) / 1e9,
            "gb_per_s_most": n_bytes / min(seconds) / 1e9,
            "rows_per_s": len(rows.values) / medians[way.id],
            "utterances_per_s": len(rows) / medians[way.id],
            "ratio_to_floor": min(floors) / medians[way.id] if floors else None,
            "disk_bytes_per_byte": statistics.median(from_disk) / n_bytes if from_disk else None,
            "seconds": seconds,
        }
        records.append(record)
    return records
