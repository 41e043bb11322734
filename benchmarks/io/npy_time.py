"""Where the time of one .npy per utterance goes: the stages of reading it, each measured with all before it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from .rows import Batch, Rows


def npy_stages(directory: Path, rows: Rows, batch: int, seed: int, repeats: int) -> list[dict[str, Any]]:
    """[{"stage", "us_per_utterance"}]: what each stage adds, warm, the least of the repeats; the last one is memcpy."""
    batches = rows.random_batches(batch, seed, 0)
    out = np.zeros((rows.largest_batch(batch), rows.dim), rows.values.dtype)

    def opened(part: Batch) -> None:
        for key in part.keys:
            open(directory / f"{key}.npy", "rb").close()

    def parsed(part: Batch) -> None:
        for key in part.keys:
            with open(directory / f"{key}.npy", "rb") as file:
                npy_format.read_magic(file)
                npy_format.read_array_header_1_0(file)

    def into_buffer(part: Batch) -> None:
        first = 0
        for key in part.keys:
            with open(directory / f"{key}.npy", "rb") as file:
                npy_format.read_magic(file)
                n = npy_format.read_array_header_1_0(file)[0][0]
                file.readinto(out[first : first + n].data.cast("B"))
                first += n

    def loaded(part: Batch) -> list[np.ndarray]:
        return [np.load(directory / f"{key}.npy") for key in part.keys]

    def concatenated(part: Batch) -> np.ndarray:
        return np.concatenate(loaded(part))

    def copied(part: Batch) -> None:
        for i, (start, stop) in zip(part.numbers, _bounds(rows, part), strict=True):
            out[start:stop] = rows.of(i)

    stages: dict[str, Callable[[Batch], Any]] = {
        "opening and closing files": opened,
        "parsing headers": parsed,
        "reading into a reused buffer": into_buffer,
        "into fresh arrays instead (np.load)": loaded,
        "concatenating them": concatenated,
        "memcpy of the same utterances": copied,
    }
    taken = {name: min(_seconds(stage, batches) for _ in range(max(2, repeats))) for name, stage in stages.items()}
    records, before = [], 0.0
    for name, seconds in taken.items():
        added = seconds if name.startswith("memcpy") else seconds - before
        records.append({"stage": name, "us_per_utterance": added / len(rows) * 1e6})
        before = seconds
    return records


def _bounds(rows: Rows, batch: Batch) -> list[tuple[int, int]]:
    ends = np.cumsum([len(rows.of(i)) for i in batch.numbers]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _seconds(stage: Callable[[Batch], Any], batches: list[Batch]) -> float:
    started = time.perf_counter()
    for batch in batches:
        stage(batch)
    return time.perf_counter() - started
