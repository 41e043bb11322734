"""Writing: our store beside the disk's sequential rate with fsync, on the same rows; and how memory grows meanwhile."""

import mmap
import os
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .disk import BLOCK_BYTES, direct_is_possible, files_below, make_cold
from .ours import write_store
from .rows import Rows
from .ways import FLOOR, OURS

Write = Callable[[Path, Rows], None]

# Before each writing this many copies of the rows are read and dropped, which leaves memory that was just in use (see
# the package's docstring) for the page cache and for what a way stages. With one copy, what followed the writing with
# O_DIRECT, which needs no page cache, found too little: 0.38 to 0.62 of its rate where the same writer has 0.9 else.
SCRATCH_COPIES = 3


def write_sequentially(directory: Path, rows: Rows, direct: bool = False) -> None:
    """Write the rows' bytes into one file, 4 MiB at a time, then sync file and directory."""
    data = rows.values.data.cast("B")
    flags = os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if direct else 0)
    handle = os.open(directory / "sequential.bin", flags, 0o644)
    try:
        if direct:  # from memory that begins at a page, in whole blocks
            block = mmap.mmap(-1, BLOCK_BYTES)
            for start in range(0, len(data), BLOCK_BYTES):
                part = data[start : start + BLOCK_BYTES]
                block[: len(part)] = part
                os.write(handle, block)
            os.ftruncate(handle, len(data))
        else:
            while data:
                data = data[os.write(handle, data[:BLOCK_BYTES]) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def measure_writing(work: Path, rows: Rows, repeats: int, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record per way: rates of the bytes that it stores, interleaved, and by how much memory grew at most.

    Memory is counted without the page cache, from after a first, untimed round: that one loads what is needed once.
    """
    ways: dict[str, tuple[str, str, Write]] = {
        "write": ("sequential write, fsync", FLOOR, write_sequentially),
        "write-direct": ("the same, O_DIRECT", FLOOR, partial(write_sequentially, direct=True)),
        "write-medusa": ("medusa", OURS, write_store),
        "write-medusa-hdf5": ("medusa, HDF5 segments", OURS, partial(write_store, format="hdf5")),
        "write-medusa-int8": ("medusa, int8", OURS, partial(write_store, dtype="int8")),
    }
    if not direct_is_possible(work):
        del ways["write-direct"]
    scratch = work / "scratch"
    for i in range(SCRATCH_COPIES):
        (scratch / str(i)).mkdir(parents=True)
        write_sequentially(scratch / str(i), rows)
    seconds: dict[str, list[float]] = {id: [] for id in ways}
    growth: dict[str, list[int]] = {id: [] for id in ways}
    stored: dict[str, int] = {}
    for repeat in range(-1, repeats):
        for id in list(ways)[:: -1 if repeat % 2 else 1]:
            name, _, write = ways[id]
            progress(f"writing, run {repeat + 1} of {repeats}: {name}")
            if hasattr(os, "posix_fadvise"):
                make_cold(files_below(scratch))  # leaves memory in use: see the package's docstring
            target = work / id
            target.mkdir()
            try:
                before = _restart_peak()
                started = time.perf_counter()
                write(target, rows)
                taken = time.perf_counter() - started
                peak = _memory("VmHWM")
                stored[id] = sum(path.stat().st_size for path in files_below(target))
            finally:
                shutil.rmtree(target)
            if repeat >= 0:
                seconds[id].append(taken)
                if before is not None and peak is not None:
                    growth[id].append(max(0, peak - before))
    shutil.rmtree(scratch)
    return _records(ways, seconds, growth, stored, rows)


def _records(
    ways: dict[str, tuple[str, str, Write]],
    seconds: dict[str, list[float]],
    growth: dict[str, list[int]],
    stored: dict[str, int],
    rows: Rows,
) -> list[dict[str, Any]]:
    rates = {id: stored[id] / statistics.median(seconds[id]) for id in ways}
    floor = max(rates[id] for id, (_, group, _) in ways.items() if group == FLOOR)
    return [
        {
            "id": id,
            "name": name,
            "group": group,
            "stored_bytes": stored[id],
            "gb_per_s": rates[id] / 1e9,
            "gb_per_s_least": stored[id] / max(seconds[id]) / 1e9,
            "gb_per_s_most": stored[id] / min(seconds[id]) / 1e9,
            "rows_per_s": len(rows.values) / statistics.median(seconds[id]),
            "ratio_to_floor": rates[id] / floor,
            "memory_growth_bytes": max(growth[id]) if growth[id] else None,
            "seconds": seconds[id],
        }
        for id, (name, group, _) in ways.items()
    ]


def _restart_peak() -> int | None:
    """Memory in use now, from which on the system's record of the peak counts; None where there is no such record."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def _memory(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), None)
